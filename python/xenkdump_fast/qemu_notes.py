"""The notes that QEMU's dump-guest-memory adds for each CPU (target/i386/arch_dump.c)."""

from collections.abc import Iterable, Iterator

from ._native import Note
from ._typing import NamedTuple

#: QEMUCPUState has two u32 and 18 registers of 8 bytes, then ten segments of 24 bytes, whose base
#: is at 16: cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt.
_SEGMENTS, _SEGMENT, _BASE = 8 + 18 * 8, 24, 16
_TR, _IDT = 7, 9
#: CR0.PG.
_PAGING = 1 << 31


class QemuCpu(NamedTuple):
    """Registers that NT_PRSTATUS lacks."""

    cr0: int
    cr3: int
    cr4: int
    #: Virtual addresses of the task state segment and of the interrupt descriptor table.
    tss: int
    idt: int

    @property
    def has_paging(self) -> bool:
        """Whether paging is on."""
        return bool(self.cr0 & _PAGING)

    @property
    def root(self) -> int:
        """The physical address of the page-table root in cr3.

        Without long mode, which the address of the interrupt descriptor table shows, the low bits
        are not flags: the root of PAE is aligned to 32 bytes.
        """
        return self.cr3 & (~0xFFF if self.idt >> 32 else ~0x1F)


def cpus(notes: Iterable[Note]) -> Iterator[QemuCpu]:
    """The CPUs in the order of their notes."""
    for note in notes:
        if note.kind == "qemu":
            fields, data = note.fields, note.data
            yield QemuCpu(
                fields["cr0"], fields["cr3"], fields["cr4"], _base(data, _TR), _base(data, _IDT)
            )


def _base(data: bytes, segment: int) -> int:
    at = _SEGMENTS + segment * _SEGMENT + _BASE
    return int.from_bytes(data[at : at + 8], "little")
