"""A domain's memory: its P2M, its pages, and their mappings."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SyntheticDumpError
from .machine import PAGE, FramePool, MachineMemory


@dataclass(frozen=True)
class Linear:
    """A range of virtual addresses that maps consecutive pfns."""

    start: int
    end: int
    pfn: int


class Guest:
    """A PV domain of ``pages`` pseudo-physical pages; ``word`` is the domain's, not Xen's.

    All pfns from ``pages`` to before ``max_pfn`` are ballooned out: their entries are invalid, and
    not stored here.
    """

    def __init__(
        self,
        machine: MachineMemory,
        pool: FramePool,
        word: int,
        pages: int,
        rng: random.Random,
        max_pfn: int | None = None,
    ) -> None:
        self.machine = machine
        self.word = word
        self.pages = pages
        self.max_pfn = pages if max_pfn is None else max_pfn
        self.rng = rng
        self.invalid = (1 << (8 * word)) - 1
        self.foreign_bit = 1 << (8 * word - 1)
        self.identity_bit = 1 << (8 * word - 2)
        self.p2m = array("Q" if word == 8 else "I", bytes(word * pages))
        self.linear: list[Linear] = []
        self.mapped: dict[int, int] = {}
        self._next = 0
        self._last: int | None = None
        self._heap = (0, 0)
        self._fill(pool)

    def _fill(self, pool: FramePool) -> None:
        at = 0
        for run in pool.take(self.pages):
            self.p2m[at : at + len(run)] = array(self.p2m.typecode, run)
            at += len(run)

    def is_frame(self, pfn: int) -> bool:
        """Whether the pfn has a frame of the domain."""
        return not self.p2m[pfn] & (self.foreign_bit | self.identity_bit)

    def mfn(self, pfn: int) -> int:
        """The mfn of a pfn."""
        entry = self.p2m[pfn]
        assert self.is_frame(pfn), hex(pfn)
        return int(entry)

    def frames(self, count: int) -> list[int | None]:
        """The mfns of the first ``count`` pfns; None for those without a frame."""
        bits = self.foreign_bit | self.identity_bit
        return [None if entry & bits else entry for entry in self.p2m[:count]]

    def special(self, start: int, count: int, kind: str) -> None:
        """Makes entries ``invalid`` (ballooned out), ``identity`` or ``foreign``."""
        for pfn in range(start, min(start + count, self.pages)):
            if kind == "invalid":
                self.p2m[pfn] = self.invalid
            elif kind == "identity":
                self.p2m[pfn] = self.identity_bit | pfn
            else:
                # Frames of another domain, mapped by grants.
                self.p2m[pfn] = self.foreign_bit | (self.machine.size // PAGE - 1 - (pfn & 0xFF))

    def map_foreign(self, pfn: int, mfns: Sequence[int]) -> None:
        """Makes entries refer to frames of another domain."""
        for i, mfn in enumerate(mfns):
            self.p2m[pfn + i] = self.foreign_bit | mfn

    def swap_in(self, pfn: int, mfn: int) -> None:
        """Exchanges the frame of ``pfn`` with ``mfn``, which may be another pfn's.

        The contents of both pages are kept.
        """
        old = self.mfn(pfn)
        frames = self.machine.frames
        if mfn in self.p2m:
            self.p2m[self.p2m.index(mfn)] = old
        self.p2m[pfn] = mfn
        mine, other = frames.pop(old, None), frames.pop(mfn, None)
        if mine is not None:
            frames[mfn] = mine
        if other is not None:
            frames[old] = other

    def start_allocating(self, pfn: int) -> None:
        """Sets the first pfn to allocate."""
        self._next = pfn

    def allocate(self, count: int = 1) -> int:
        """Allocates ``count`` consecutive pfns, each with a frame."""
        pfn = self._next
        while True:
            if pfn + count > self.pages:
                raise SyntheticDumpError(
                    f"a domain of {self.pages * PAGE} bytes is too small for its kernel"
                )
            if all(self.is_frame(p) for p in range(pfn, pfn + count)):
                break
            pfn += 1
        self._next = pfn + count
        return pfn

    def allocate_last(self, count: int) -> list[int]:
        """Allocates the last ``count`` free pfns, which does not move other allocations."""
        found: list[int] = []
        self._last = self.pages if self._last is None else self._last
        while len(found) < count:
            self._last -= 1
            if self._last < self._next:
                raise SyntheticDumpError(f"a domain of {self.pages * PAGE} bytes is too small")
            if self.is_frame(self._last):
                found.append(self._last)
        return found

    def page_table_page(self) -> int:
        """Allocates a page; returns its mfn."""
        return self.mfn(self.allocate())

    def map(self, va: int, pfns: Sequence[int]) -> None:
        """Records that pages are mapped at ``va`` (vmalloc, fixmap)."""
        for i, pfn in enumerate(pfns):
            self.mapped[va // PAGE + i] = pfn

    def pfn_of(self, va: int) -> int:
        """The pfn of a virtual address."""
        pfn = self.mapped.get(va // PAGE)
        if pfn is not None:
            return pfn
        for part in self.linear:
            if part.start <= va < part.end:
                return part.pfn + (va - part.start) // PAGE
        raise ValueError(f"{va:#x} is not mapped")

    def machine_address(self, va: int) -> int:
        """The machine address of a virtual one."""
        return self.mfn(self.pfn_of(va)) * PAGE + va % PAGE

    def write(self, va: int, data: bytes) -> None:
        """Writes at a virtual address."""
        done = 0
        while done < len(data):
            n = min(PAGE - (va + done) % PAGE, len(data) - done)
            self.machine.write(self.machine_address(va + done), data[done : done + n])
            done += n

    def read(self, va: int, size: int) -> bytes:
        """Reads at a virtual address."""
        out = bytearray()
        while len(out) < size:
            at = va + len(out)
            n = min(PAGE - at % PAGE, size - len(out))
            out += self.machine.read(self.machine_address(at), n)
        return bytes(out)

    def write_pfn(self, pfn: int, data: bytes) -> None:
        """Writes to consecutive pseudo-physical pages."""
        for i in range(0, len(data), PAGE):
            self.machine.write(self.mfn(pfn + i // PAGE) * PAGE, data[i : i + PAGE])

    def kmalloc(self, size: int, align: int = 64) -> int:
        """Allocates memory in the direct map (the first linear range)."""
        at, end = self._heap
        at = -(-at // align) * align
        if at + size > end:
            count = max(-(-size // PAGE), 8)
            direct = self.linear[0]
            at = direct.start + (self.allocate(count) - direct.pfn) * PAGE
            end = at + count * PAGE
        self._heap = (at + size, end)
        return at
