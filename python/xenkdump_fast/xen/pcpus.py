"""The physical CPUs: the registers of Xen, and those of the guest that was interrupted."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple

from .._native import AddressSpace, Dump, MemoryFault
from ..isolation import isolated
from ..limits import MAX_PCPUS
from . import compat, memory
from .frames import WINDOW, CpuInfo, GuestFrame, find

#: Sizes of a pCPU's stack by Xen's word, ascending. A stack is aligned to its size.
_STACK_SIZES: dict[int, tuple[int, ...]] = {
    8: compat.values("stack size 8"),
    4: compat.values("stack size 4"),
}
_LAST = (1 << 64) - 1


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
    warnings: tuple[str, ...] = ()


def pcpus(dump: Dump) -> list[Pcpu]:
    """Every pCPU that has notes, in their order; empty without Xen."""
    pairs = list(islice(_pairs(dump), MAX_PCPUS))
    if not pairs:
        return []
    # All notes of a hypervisor have its word.
    registers, regs, _ = pairs[0]
    word = 4 if "eip" in registers or (not registers and regs and regs["word"] == 4) else 8
    roots = memory.Roots(dump, word)
    return [
        _pcpu(dump, index, word, registers, regs, cr3, roots)
        for index, (registers, regs, cr3) in enumerate(pairs)
    ]


def _pairs(dump: Dump) -> Iterator[tuple[dict[str, int], dict[str, Any] | None, int | None]]:
    """The registers of each NT_PRSTATUS with the CRASH_REGS that follows it, either of which may be
    missing; nothing without Xen. The last is the root in the CR3 note of 2006.
    """
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
    registers: dict[str, int],
    regs: dict[str, Any] | None,
    root: int | None,
    roots: memory.Roots,
) -> Pcpu:
    sp = registers.get("rsp" if word == 8 else "esp")
    cr3 = regs["cr3"] if regs else root
    formats = memory.pagings(word, regs["cr4"] if regs else None)
    found = Pcpu(
        number=index,
        registers=registers,
        cr3=cr3,
        root=next(roots.of(cr3), None),
        paging=formats[0],
        word=word,
        stack=None,
        vcpu=None,
        guest=None,
        warnings=(
            f"pCPU {index}: no NT_PRSTATUS note"
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
                infos = list(_infos(dump.virtual(at, paging), sp, word))
                # A struct with a guest's registers is preferred.
                for stack, info in sorted(infos, key=lambda found: found[1].guest is None):
                    guest = info.guest
                    if guest is not None and guest.kind == "pv" and guest.word == 8:
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
                        warnings=(),
                    )
    return found._replace(warnings=tuple(warnings))


def _infos(virtual: AddressSpace, sp: int, word: int) -> Iterator[tuple[tuple[int, int], CpuInfo]]:
    """The candidates for the ``struct cpu_info`` of the stack of ``sp``, with that stack."""
    for size in _STACK_SIZES[word]:
        low = sp & -size
        window = _read(virtual, low + size - WINDOW, WINDOW)
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
