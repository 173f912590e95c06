"""What differs between versions of Xen: one table, one row for each fact.

Offsets in Xen's structs differ with every release and are in no table: ``layout`` takes them from
the DWARF of xen-syms, ``infer`` finds them without it. Commits are of the Xen repository.
"""

from .._typing import Any, NamedTuple

# Tests that cover rows.
_FRAMES = "tests/xen/test_frames.py"
_INFER = "tests/xen/test_infer.py"
_COMPAT = "tests/xen/test_compat.py"
_HOST = "tests/real/test_hypervisor.py"
_COMMANDS = "tests/real/test_hypervisor_commands.py"
_CHECK = "tests/real/test_check.py"
_FRAME_TABLE = "tests/xen/test_frame_table.py"
_STACKS = "tests/xen/test_stacks.py"
_TRANSLATED = "tests/real/test_translated.py"
_LARGE = "tests/xen/test_large_host.py"


class Row(NamedTuple):
    """One fact of some versions."""

    #: What it is about. Rows with the same name are alternatives.
    name: str
    value: Any
    #: The versions of Xen that have it.
    versions: str
    #: The commit that introduced it; empty if it is older than the repository or not known.
    commit: str
    #: The test that covers it.
    test: str


#: Alternatives are tried in this order: the newest version first, unless a comment says otherwise.
TABLE = (
    # Members that were renamed or moved (layout.py). arch.guest_context became arch.user_regs and
    # arch.pv_vcpu, and that arch.pv.
    Row("member domain.id", "domain.domain_id", "all", "", _COMPAT),
    Row("member domain.next", "domain.next_in_list", "all", "", _COMPAT),
    Row("member domain.vcpu", "domain.vcpu", "all", "", _COMPAT),
    Row("member domain.max_vcpus", "domain.max_vcpus", "4.0 on", "fb442e2171", _COMPAT),
    Row("member domain.shared_info", "domain.shared_info", "all", "", _COMPAT),
    Row("member domain.uuid", "domain.handle", "3.0 on", "", _COMPAT),
    Row("member domain.pages", "domain.tot_pages", "all", "", _COMPAT),
    Row("member domain.max_pages", "domain.max_pages", "all", "", _COMPAT),
    Row("member domain.options", "domain.options", "4.13 on", "d8f2490561", _COMPAT),
    Row("member domain.emulation", "domain.arch.emulation_flags", "4.7 on", "171946abce", _COMPAT),
    Row("member vcpu.id", "vcpu.vcpu_id", "all", "", _COMPAT),
    Row("member vcpu.domain", "vcpu.domain", "all", "", _COMPAT),
    Row("member vcpu.processor", "vcpu.processor", "all", "", _COMPAT),
    Row("member vcpu.cr3", "vcpu.arch.cr3", "3.0.4 on", "", _COMPAT),
    Row("member vcpu.runstate", "vcpu.runstate", "3.0.2 on", "eefccca99e", _COMPAT),
    Row("member vcpu.pause_flags", "vcpu.pause_flags", "3.1 on", "c38176aa2f", _COMPAT),
    Row("member vcpu.registers", "vcpu.arch.user_regs", "4.2 on", "9a70856bb2", _COMPAT),
    Row("member vcpu.registers", "vcpu.arch.guest_context.user_regs", "to 4.1", "", _COMPAT),
    Row("member vcpu.gs_base", "vcpu.arch.pv.gs_base_kernel", "4.12 on", "fc5e7213f4", _COMPAT),
    Row(
        "member vcpu.gs_base",
        "vcpu.arch.pv_vcpu.gs_base_kernel",
        "4.2 to 4.11",
        "9a70856bb2",
        _COMPAT,
    ),
    Row("member vcpu.gs_base", "vcpu.arch.guest_context.gs_base_kernel", "to 4.1", "", _COMPAT),
    # Translated guests (nested.py, hvm.py): the P2M and its root, the control registers.
    Row("member domain.p2m", "domain.arch.p2m", "4.1 on", "9f0ebab347", _TRANSLATED),
    Row("member p2m.root", "p2m_domain.phys_table", "4.1 on", "9f0ebab347", _TRANSLATED),
    Row("member vcpu.guest_cr", "vcpu.arch.hvm.guest_cr", "4.12 on", "f99b99ed63", _TRANSLATED),
    Row(
        "member vcpu.guest_cr", "vcpu.arch.hvm_vcpu.guest_cr", "3.2 to 4.11", "b4923c7d99", _COMPAT
    ),
    # p2m_class_t by its values, in the word after p2m_domain.domain (nested.py). Before, it is the
    # root of the guest's guest (``cr3``), and all ones in the host's.
    Row("class of a p2m_domain", ("host", "nested", "altp2m"), "4.6 on", "8fe99c468d", _LARGE),
    # domain.vcpu is a pointer to an array, not the array itself (infer.py finds which).
    Row("domain.vcpu is a pointer", True, "4.0 on", "fb442e2171", _INFER),
    Row("domain.vcpu is a pointer", False, "to 3.4", "", _INFER),
    # Bytes of a pCPU's stack, to which it is aligned (pcpus.py). Ascending: the smallest that ends
    # in a guest's registers is right, a larger one ends where another pCPU's does. On x86_32 the
    # primary stack has been the upper half of 16 KiB since 3.0.3 (54f2a51531), so that 8 KiB fit.
    Row("stack size 8", 0x2000, "to 3.0.2, release builds", "f9c513d54f", _COMPAT),
    Row("stack size 8", 0x4000, "to 3.1", "54f2a51531", _COMPAT),
    Row("stack size 8", 0x8000, "3.2 on", "0b630aa340", _COMPAT),
    Row("stack size 4", 0x1000, "none known", "", _COMPAT),
    Row("stack size 4", 0x2000, "to 4.2", "f9c513d54f", _COMPAT),
    # Words of struct cpu_info between ss and processor_id (frames.py): es, ds, fs and gs, which
    # struct cpu_user_regs no longer has in 4.21. Other numbers are for future versions. The
    # distance from the stack's top is not used, since members were added at the end: cr4 (4.7,
    # 5d93f1d8ca), xen_cr3 and pv_cr3 (4.11, 5784de3e20).
    Row("words behind ss", 4, "to 4.20", "", _FRAMES),
    Row("words behind ss", 0, "4.21 on", "3c66a25672", _FRAMES),
    Row("words behind ss", 1, "none known", "", _FRAMES),
    Row("words behind ss", 2, "none known", "", _FRAMES),
    Row("words behind ss", 3, "none known", "", _FRAMES),
    Row("words behind ss", 5, "none known", "", _FRAMES),
    Row("words behind ss", 6, "none known", "", _FRAMES),
    # What hvm_invalidate_regs_fields() leaves in the selectors of an HVM guest.
    Row("selector of an HVM guest", 0xBEEF, "debug builds", "", _FRAMES),
    Row("selector of an HVM guest", 0, "release builds", "", _FRAMES),
    # Virtual addresses that are Xen's (memory.py), as [start, end). A 32-bit Xen without PAE, whose
    # memory starts at 0xfc000000, was removed in 3.3 (84d54d5d8b).
    Row("virtual range 8", (0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000), "all", "", _INFER),
    Row("virtual range 4", (0xF580_0000, 0x1_0000_0000), "to 4.2", "", _INFER),
    # XEN_VIRT_START is a multiple of this in every version (3.2: 0xffff828c80000000, 4.14 on,
    # 5af040ef8b: 0xffff82d040000000), and the image is smaller.
    Row("alignment of the image", 1 << 30, "all", "", _HOST),
    # The M2P by paging format, address and bytes of an entry (m2p.py). On x86_64 RO_MPT_VIRT_START,
    # which guests may read, and RDWR_MPT_VIRT_START. The page tables on which Xen runs a 32-bit
    # guest have the latter only, and RDWR_COMPAT_MPT_VIRT_START with the table of such guests.
    # These see it at the address of PAE on hosts with much memory, else higher.
    Row("M2P", ("x86_64", 0xFFFF_8000_0000_0000, 8), "all", "", _CHECK),
    Row("M2P", ("x86_64", 0xFFFF_8280_0000_0000, 8), "all", "", _COMPAT),
    Row("M2P", ("x86_64", 0xFFFF_82D0_0000_0000, 4), "4.4 on", "b0581b9214", _COMPAT),
    Row("M2P", ("x86_64", 0xFFFF_82C4_4000_0000, 4), "4.3", "4b28bf6ae9", _COMPAT),
    Row("M2P", ("x86_64", 0xFFFF_82C4_0000_0000, 4), "4.0 to 4.2", "bac2000063", _COMPAT),
    Row("M2P", ("x86_64", 0xFFFF_828C_0000_0000, 4), "3.1 to 3.4", "cb44adaed6", _COMPAT),
    Row("M2P", ("x86-pae", 0xF580_0000, 4), "all", "", _COMPAT),
    Row("M2P", ("x86", 0xFC00_0000, 4), "to 3.2", "", _COMPAT),
    # Bits of page_info.count_info that count references (frame_table.py): 29 to 3.1, 26 from 3.2 on
    # (55f97f49b7), more on x86_64 since 3.4 (eb063a09b3). On x86_32 there are 23 since then; the
    # next three are set for pages that are offline or broken.
    Row("bits of the reference count", 26, "all", "55f97f49b7", _FRAME_TABLE),
    # Offsets in struct shared_info by the guest's word (shared_info.py): wc_version; then max_pfn,
    # pfn_to_mfn_frame_list_list, and since 4.6 (50bd1f0825) p2m_cr3, p2m_vaddr, p2m_generation,
    # which are zero before. They are public ABI: only the last three are of some versions.
    Row("shared_info.wc_version 8", 3072, "all", "", _HOST),
    Row("shared_info.wc_version 4", 2304, "all", "", _COMPAT),
    Row("shared_info.arch 8", (3088, 3096, 3112, 3120, 3128), "all", "50bd1f0825", _HOST),
    Row("shared_info.arch 4", (2316, 2320, 2328, 2332, 2336), "all", "50bd1f0825", _COMPAT),
    # The pc in NT_PRSTATUS is the address of an inline function (stacks.py), and the functions that
    # may store it: its only caller, or an instance of its own. Since 4.15 it is the real pc.
    Row("constant pc", "elf_core_save_regs", "to 4.14", "1e15dcfbae", _STACKS),
    Row("stores the constant pc", "kexec_crash_save_cpu", "to 4.14", "1e15dcfbae", _STACKS),
    Row("stores the constant pc", "elf_core_save_regs", "to 4.14", "1e15dcfbae", _STACKS),
    # conring is a pointer to the ring, not the ring itself (console.py decides by its size).
    Row("conring is a pointer", True, "3.4 on", "71c0c5fbe5", _COMMANDS),
    Row("conring is a pointer", False, "to 3.3", "", _COMPAT),
    # Xen's messages about the reason of a crash (header.py), as regular expressions.
    Row("reason", r"Hardware Dom\d+ (crashed|shutdown).*", "4.6 on", "1f1243a9d4", _COMMANDS),
    Row("reason", r"Panic on CPU \d+:", "all", "", _COMMANDS),
    Row("reason", r"Domain 0 crashed: .*", "to 4.5", "", _COMPAT),
    Row("reason", r"FATAL TRAP: .*", "all", "", _COMPAT),
    # The symbol of the ELF note with the build id (build_id.py).
    Row("symbol of the build id", "__note_gnu_build_id_start", "4.7 on", "a353cab905", _COMMANDS),
    # Names that VMCOREINFO_XEN has for symbols of other names (build_id.py).
    Row("symbol in VMCOREINFO_XEN", ("pgd_l4", "idle_pg_table"), "3.3 on", "65ce603cc1", _HOST),
)


def values(name: str) -> tuple[Any, ...]:
    """The alternatives of a fact, in the order of the table; KeyError if there is none."""
    found = tuple(row.value for row in TABLE if row.name == name)
    if not found:
        raise KeyError(name)
    return found


def value(name: str) -> Any:
    """The value of a fact without alternatives."""
    (found,) = values(name)
    return found


def members() -> dict[str, tuple[str, ...]]:
    """The paths of each member of Xen's structs, by our name for it."""
    names = dict.fromkeys(row.name for row in TABLE if row.name.startswith("member "))
    return {name.removeprefix("member "): values(name) for name in names}
