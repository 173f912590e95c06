"""The physical CPUs: what each was doing in Xen, and which guest it had interrupted."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple

from .._native import AddressSpace, Dump, MemoryFault
from ..isolation import isolated
from . import memory
from .frames import WINDOW, CpuInfo, GuestFrame, find

#: Sizes of a pCPU's stack by Xen's word, ascending: STACK_ORDER is 3 on x86_64, and was less before
#: 3.1; it is 1 on x86_32. A stack is aligned to its size, and those for NMI and double fault lie in
#: it. The smallest that ends in a guest's registers is right: a larger one ends where another
#: pCPU's does.
_STACK_SIZES = {8: (0x2000, 0x4000, 0x8000), 4: (0x1000, 0x2000)}
_LAST = (1 << 64) - 1
#: More than Xen can be built for (CONFIG_NR_CPUS is 16383 at most).
MAX_PCPUS = 1 << 14


class Pcpu(NamedTuple):
    """A physical CPU at the moment of the crash."""

    #: Xen's number for it.
    number: int
    #: The hypervisor's own registers, from NT_PRSTATUS; empty without that note.
    registers: dict[str, int]
    #: As CRASH_REGS has it; None without that note.
    cr3: int | None
    #: The top page table under which Xen's memory was read: cr3's, or idle_pg_table.
    root: int | None
    paging: Literal["x86", "x86-pae", "x86_64"]
    #: Word size of the hypervisor.
    word: int
    #: The range of its Xen stack, where it could be read.
    stack: tuple[int, int] | None
    #: Xen's address of the ``struct vcpu`` it was running, be it the idle one.
    vcpu: int | None
    #: The guest's registers on the stack: of the vCPU that ran or, if the pCPU is idle, of the last
    #: that did: Xen moves them to its ``struct vcpu`` only when another guest needs the place.
    guest: GuestFrame | None
    warnings: tuple[str, ...] = ()


def pcpus(dump: Dump) -> list[Pcpu]:
    """Every pCPU that has notes, in their order; empty without Xen."""
    pairs = list(islice(_pairs(dump), MAX_PCPUS))
    if not pairs:
        return []
    # All notes of a hypervisor have its word.
    registers, regs = pairs[0]
    word = 4 if "eip" in registers or (not registers and regs and regs["word"] == 4) else 8
    roots = memory.Roots(dump, word)
    return [
        _pcpu(dump, index, word, registers, regs, roots)
        for index, (registers, regs) in enumerate(pairs)
    ]


def _pairs(dump: Dump) -> Iterator[tuple[dict[str, int], dict[str, Any] | None]]:
    """The registers of each NT_PRSTATUS with the CRASH_REGS behind it, either of which may be
    missing; nothing without Xen.
    """
    status: dict[str, int] | None = None
    is_xen = False
    for note in dump.notes:
        if note.kind == "prstatus":
            if status is not None and is_xen:
                yield status, None
            status = note.fields["registers"]
        elif note.kind in ("crash_regs", "crash_info", "xen_kdump_cr3"):
            is_xen = True
            if note.kind == "crash_regs":
                yield status or {}, note.fields
                status = None
    if status is not None and is_xen:
        yield status, None


def _pcpu(
    dump: Dump,
    index: int,
    word: int,
    registers: dict[str, int],
    regs: dict[str, Any] | None,
    roots: memory.Roots,
) -> Pcpu:
    sp = registers.get("rsp" if word == 8 else "esp")
    cr3 = regs["cr3"] if regs else None
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
        for root in roots.of(cr3):
            for paging in formats:
                infos = list(_infos(dump.virtual(root, paging), sp, word))
                # A guest's registers say more than a struct without any.
                for stack, info in sorted(infos, key=lambda found: found[1].guest is None):
                    guest = info.guest
                    if guest is not None and guest.kind == "pv" and guest.word == 8:
                        # Under Xen the note's segment bases are those of the guest.
                        for base in ("fs_base", "gs_base"):
                            guest.registers[base] = registers[base]
                    return found._replace(
                        number=info.number,
                        root=root,
                        paging=paging,
                        stack=stack,
                        vcpu=info.vcpu,
                        guest=guest,
                        warnings=(),
                    )
    return found._replace(warnings=tuple(warnings))


def _infos(virtual: AddressSpace, sp: int, word: int) -> Iterator[tuple[tuple[int, int], CpuInfo]]:
    """What may be the ``struct cpu_info`` of the stack that ``sp`` is on, with that stack."""
    for size in _STACK_SIZES[word]:
        low = sp & -size
        window = _read(virtual, low + size - WINDOW, WINDOW)
        if window is not None:
            info = find(low + size, window, word, partial(memory.is_xen, virtual, word))
            if info is not None:
                # The end of all addresses is none of them.
                yield (low, min(low + size, _LAST)), info


def _read(virtual: AddressSpace, address: int, size: int) -> bytes | None:
    try:
        return virtual.read(address, size)
    except MemoryFault:
        return None
