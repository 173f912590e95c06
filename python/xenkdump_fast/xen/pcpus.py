"""The physical CPUs: the registers of Xen, and those of the guest that was interrupted."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from .. import qemu_notes
from .._native import AddressSpace, Dump, MemoryFault
from .._typing import Any, Literal, NamedTuple
from ..isolation import isolated
from ..limits import MAX_PCPUS
from . import compat, frames, memory
from .detect import XenImage
from .frames import WINDOW, CpuInfo, GuestFrame, find

#: Sizes of a pCPU's stack by Xen's word, ascending. A stack is aligned to its size.
_STACK_SIZES: dict[int, tuple[int, ...]] = {
    8: compat.values("stack size 8"),
    4: compat.values("stack size 4"),
}
_LAST = (1 << 64) - 1
#: The number of pCPUs whose stacks are read together.
_BATCH = 256
#: The instruction VMRUN, which ends when the guest leaves for Xen.
_VMRUN = b"\x0f\x01\xd8"

#: The ends of stacks by their addresses, below each root with its paging.
_Ends = Mapping[tuple[int, memory.Paging], Mapping[int, bytes]]


class Pcpu(NamedTuple):
    """A physical CPU at the moment of the crash."""

    #: Xen's number for it.
    number: int
    #: The hypervisor's own registers, from NT_PRSTATUS; empty without that note.
    registers: dict[str, int]
    #: From CRASH_REGS, or the root in the CR3 note of 2006; None without either.
    cr3: int | None
    #: The page-table root under which Xen's memory was read: cr3, or idle_pg_table.
    root: int | None
    paging: Literal["x86", "x86-pae", "x86_64"]
    #: Word size of the hypervisor.
    word: int
    #: The range of its Xen stack, where it could be read.
    stack: tuple[int, int] | None
    #: Xen's address of the ``struct vcpu`` it was running, which may be the idle vCPU.
    vcpu: int | None
    #: The guest's registers on the stack: of the vCPU that ran or, if the pCPU is idle, of the last
    #: one. Xen moves them to ``struct vcpu`` only when another guest takes the pCPU.
    guest: GuestFrame | None
    #: Whether it was running a guest's code: then ``registers`` is empty.
    in_guest: bool = False
    #: Registers of the guest's code that it was running, if ``guest`` does not have them.
    running: dict[str, int] | None = None
    #: Whether it was stopped behind VMRUN (AMD): the registers of the guest that has just left are
    #: in the processor and the VMCB, and those on the stack are of the exit before.
    has_left: bool = False
    warnings: tuple[str, ...] = ()


class _Cpu(NamedTuple):
    """The notes of a pCPU."""

    registers: dict[str, int]
    #: Of the hypervisor; None if the notes do not contain it.
    word: int | None
    cr3: int | None
    cr4: int | None
    #: Xen's address of the task state segment, in QEMU's notes.
    tss: int | None = None


def pcpus(dump: Dump, image: XenImage | None = None) -> list[Pcpu]:
    """Every pCPU that has notes, in their order; empty without Xen.

    ``image`` is Xen's image if no note is Xen's: then QEMU's notes are used.
    """
    found = _by_xen(dump) if image is None else _by_qemu(dump, image.word)
    cpus = list(islice(found, MAX_PCPUS))
    if not cpus:
        return []
    # All notes of a hypervisor have its word.
    word = cpus[0].word or 8
    roots = memory.Roots(dump, word, () if image is None else [image.root])
    result: list[Pcpu] = []
    for first in range(0, len(cpus), _BATCH):
        batch = cpus[first : first + _BATCH]
        ends = _stack_ends(dump, word, batch, roots)
        result += [_pcpu(dump, first + i, word, cpu, roots, ends) for i, cpu in enumerate(batch)]
        if len(batch) == _BATCH:
            # The file's pages would count as memory of this process.
            dump.release()
    return result


def _stack_ends(dump: Dump, word: int, cpus: Sequence[_Cpu], roots: memory.Roots) -> _Ends:
    """The ends of the stacks that the pCPUs may have.

    Read in one call for each root, which idle pCPUs share. Without those that cannot be read below
    the first root, and those of pCPUs that were running a guest's code: they are read one by one.
    """
    wanted: dict[tuple[int, memory.Paging], list[int]] = {}
    for cpu in cpus:
        sp = cpu.registers.get("rsp" if word == 8 else "esp")
        root = next(roots.of(cpu.cr3), None)
        if sp is not None and root is not None:
            addresses = wanted.setdefault((root, memory.pagings(word, cpu.cr4)[0]), [])
            addresses += (low + size - WINDOW for low, size in _stacks(sp, word))
    found = {}
    for (root, paging), addresses in wanted.items():
        each = dump.virtual(root, paging).read_each(addresses, [WINDOW] * len(addresses))
        pairs = zip(addresses, each, strict=True)
        found[root, paging] = {address: data for address, data in pairs if data is not None}
    return found


def _by_qemu(dump: Dump, word: int) -> Iterator[_Cpu]:
    """The NT_PRSTATUS and the note of QEMU of each CPU."""
    statuses = (note.fields["registers"] for note in dump.notes if note.kind == "prstatus")
    for registers, cpu in zip(statuses, qemu_notes.cpus(dump.notes), strict=False):
        yield _Cpu(registers, word, cpu.cr3, cpu.cr4, cpu.tss)


def _by_xen(dump: Dump) -> Iterator[_Cpu]:
    """The NT_PRSTATUS of each pCPU with the CRASH_REGS that follows it, either of which may be
    missing; nothing without Xen.
    """
    for registers, regs, root in _pairs(dump):
        word = (4 if "eip" in registers else 8) if registers else None
        if regs is None:
            yield _Cpu(registers, word, root, None)
        else:
            yield _Cpu(registers, word or regs["word"], regs["cr3"], regs["cr4"])


def _pairs(dump: Dump) -> Iterator[tuple[dict[str, int], dict[str, Any] | None, int | None]]:
    """The registers, the fields of CRASH_REGS, and the root in the CR3 note of 2006."""
    status: dict[str, int] | None = None
    root: int | None = None
    kinds = [note.kind for note in dump.notes if note.kind in ("prstatus", "xen_kdump_cr3")]
    # The CR3 note is behind the registers, or before them.
    is_before = kinds[:1] == ["xen_kdump_cr3"] and kinds[-1] == "prstatus"
    is_xen = False
    for note in dump.notes:
        if note.kind == "prstatus":
            if status is not None and is_xen:
                yield status, None, root
                root = None
            status = note.fields["registers"]
            if is_before:
                yield status, None, root
                status = root = None
        elif note.kind in ("crash_regs", "crash_info", "xen_kdump_cr3"):
            is_xen = True
            if note.kind == "crash_regs":
                yield status or {}, note.fields, None
                status = None
            elif note.kind == "xen_kdump_cr3" and (is_before or status is not None):
                root = note.fields["mfn"] * memory.PAGE or None
    if status is not None and is_xen:
        yield status, None, root


def _pcpu(
    dump: Dump,
    index: int,
    word: int,
    cpu: _Cpu,
    roots: memory.Roots,
    ends: _Ends,
) -> Pcpu:
    registers, cr3 = cpu.registers, cpu.cr3
    formats = memory.pagings(word, cpu.cr4)
    sp = registers.get("rsp" if word == 8 else "esp")
    pc = registers.get("rip" if word == 8 else "eip", 0)
    in_guest = cpu.tss is not None and not memory.is_in_range(word, pc)
    problem = "no NT_PRSTATUS note"
    if cpu.tss is not None and in_guest:
        sp = _primary_stack(dump.virtual(memory.root_of(cpu.cr3 or 0, word), formats[0]), cpu.tss)
        problem = "it was running a guest, and its Xen stack is not known"
    found = Pcpu(
        number=index,
        registers={} if in_guest else registers,
        cr3=cr3,
        root=next(roots.of(cr3), None),
        paging=formats[0],
        word=word,
        stack=None,
        vcpu=None,
        guest=None,
        in_guest=in_guest,
        running=registers if in_guest else None,
        warnings=(
            f"pCPU {index}: {problem}"
            if sp is None
            else f"pCPU {index}: no guest's registers are at the top of Xen's stack at {sp:#x}",
        ),
    )
    if sp is None:
        return found
    warnings = list(found.warnings)
    with isolated(f"pCPU {index}'s Xen stack cannot be read", warnings.append):
        for at in roots.of(cr3):
            for paging in formats:
                infos = list(_infos(dump.virtual(at, paging), sp, word, ends.get((at, paging), {})))
                # A struct with a guest's registers is preferred.
                for stack, info in sorted(infos, key=lambda found: found[1].guest is None):
                    guest = info.guest
                    has_left = False
                    if in_guest:
                        guest = frames.running(registers, word, stack[1])
                    elif guest is not None and guest.kind == "hvm":
                        has_left = _is_behind_vmrun(dump.virtual(at, paging), pc)
                    elif guest is not None and guest.kind == "pv" and guest.word == 8:
                        # Xen does not change a PV guest's segment bases.
                        for base in ("fs_base", "gs_base"):
                            guest.registers[base] = registers[base]
                    return found._replace(
                        number=info.number,
                        root=at,
                        paging=paging,
                        stack=stack,
                        vcpu=info.vcpu,
                        guest=guest,
                        running=None,
                        has_left=has_left,
                        warnings=(),
                    )
    return found._replace(warnings=tuple(warnings))


def _primary_stack(virtual: AddressSpace, tss: int) -> int | None:
    """The stack pointer that the processor loads when a guest enters Xen: rsp0 or esp0 of the TSS.

    Both are at offset 4, and point behind the guest's registers in ``struct cpu_info``.
    """
    try:
        return virtual.word(tss + 4, 8 if tss >> 32 else 4)
    except MemoryFault:
        return None


def _is_behind_vmrun(virtual: AddressSpace, pc: int) -> bool:
    return pc >= len(_VMRUN) and _read(virtual, pc - len(_VMRUN), len(_VMRUN)) == _VMRUN


def _stacks(sp: int, word: int) -> Iterator[tuple[int, int]]:
    """The start and the size of the stacks that ``sp`` may be on."""
    for size in _STACK_SIZES[word]:
        yield sp & -size, size


def _infos(
    virtual: AddressSpace, sp: int, word: int, ends: Mapping[int, bytes]
) -> Iterator[tuple[tuple[int, int], CpuInfo]]:
    """The candidates for the ``struct cpu_info`` of the stack of ``sp``, with that stack.

    ``ends`` are the ends of stacks that were read before.
    """
    for low, size in _stacks(sp, word):
        at = low + size - WINDOW
        window = ends.get(at) or _read(virtual, at, WINDOW)
        if window is not None:
            info = find(low + size, window, word, partial(memory.is_xen, virtual, word))
            if info is not None:
                # The end of the address space does not fit into 64 bits.
                yield (low, min(low + size, _LAST)), info


def _read(virtual: AddressSpace, address: int, size: int) -> bytes | None:
    try:
        return virtual.read(address, size)
    except MemoryFault:
        return None
