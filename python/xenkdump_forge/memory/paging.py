"""Page tables of x86, in machine frames."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .machine import PAGE, MachineMemory

PRESENT = 1
WRITE = 2
USER = 4
ACCESSED = 0x20
DIRTY = 0x40
LARGE = 0x80
NX = 1 << 63


@dataclass(frozen=True)
class Paging:
    """A format: the shifts of the levels, the top first, and the size of an entry."""

    name: str
    shifts: tuple[int, ...]
    entry: int
    bits: int

    def index(self, level: int, va: int) -> int:
        """Index of ``va`` in a table of ``level`` (1 maps 4 KiB pages)."""
        shift = self.shifts[-level]
        top = level == len(self.shifts)
        width = self.bits - shift if top else (9 if self.entry == 8 else 10)
        return (va >> shift) & ((1 << width) - 1)


X86 = Paging("x86", (22, 12), 4, 32)
X86_PAE = Paging("x86-pae", (30, 21, 12), 8, 32)
X86_64 = Paging("x86_64", (39, 30, 21, 12), 8, 48)


class PageTables:
    """A root and the tables below it. ``allocate`` returns the mfn of a zeroed page."""

    def __init__(
        self,
        paging: Paging,
        machine: MachineMemory,
        allocate: Callable[[], int],
        root: int | None = None,
        table_flags: int = PRESENT | WRITE | USER | ACCESSED | DIRTY,
    ) -> None:
        self.paging = paging
        self.machine = machine
        self.allocate = allocate
        self.root = allocate() if root is None else root
        self.table_flags = table_flags
        machine.frame(self.root)

    def get(self, table: int, index: int) -> int:
        """Reads an entry."""
        size = self.paging.entry
        frame = self.machine.frame(table)
        return int.from_bytes(frame[index * size : (index + 1) * size], "little")

    def set(self, table: int, index: int, entry: int) -> None:
        """Writes an entry."""
        size = self.paging.entry
        self.machine.frame(table)[index * size : (index + 1) * size] = entry.to_bytes(
            size, "little"
        )

    def table(self, va: int, level: int) -> int:
        """The mfn of the table of ``level`` for ``va``, which is created if it is missing."""
        paging = self.paging
        at = self.root
        for upper in range(len(paging.shifts), level, -1):
            index = paging.index(upper, va)
            entry = self.get(at, index)
            if not entry & PRESENT:
                flags = self.table_flags
                if paging is X86_PAE and upper == 3:
                    flags = PRESENT  # the other flags of a PDPTE are reserved
                entry = self.allocate() * PAGE | flags
                self.set(at, index, entry)
            at = (entry & ~NX) // PAGE
        return at

    def map(self, va: int, mfn: int, flags: int, level: int = 1) -> None:
        """Maps a page, a large one at a ``level`` above 1."""
        large = LARGE if level > 1 else 0
        table = self.table(va, level)
        self.set(table, self.paging.index(level, va), mfn * PAGE | flags | large)

    def map_run(self, va: int, mfns: Sequence[int | None], flags: int) -> None:
        """Maps consecutive pages, one leaf table at a time; pages that are None are skipped."""
        size = self.paging.entry
        per_table = PAGE // size
        code = "Q" if size == 8 else "I"
        at = 0
        while at < len(mfns):
            first = self.paging.index(1, va + at * PAGE)
            n = min(per_table - first, len(mfns) - at)
            frame = self.machine.frame(self.table(va + at * PAGE, 1))
            part = mfns[at : at + n]
            entries = array(code, [0 if m is None else m * PAGE | flags for m in part])
            frame[first * size : (first + n) * size] = entries.tobytes()
            at += n
