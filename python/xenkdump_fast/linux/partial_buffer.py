"""A range of virtual memory, some pages of which may be missing from the dump."""

from bisect import bisect_left
from collections.abc import Iterator

from .._contexts import suppress
from .._native import MemoryFault
from .._typing import Protocol
from ..budget import Budget

PAGE = 4096


class Source(Protocol):
    """The memory of a kernel, or of Xen."""

    @property
    def memory_held(self) -> int:
        """Bytes of memory that the dump holds."""

    def data(self, address: int, size: int) -> bytes:
        """The bytes at an address; MemoryFault if the dump lacks any of them."""


class PartialBuffer:
    """``size`` bytes at ``address``. Missing bytes read as zero; see ``missing``.

    BudgetExceededError if more of them can be read than the dump holds: page tables map the same
    pages repeatedly. ``size`` itself may be larger, as a truncated dump can hold less.
    """

    def __init__(self, memory: Source, address: int, size: int) -> None:
        self.address = address
        #: Offsets of the start and the end of each hole, ascending.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.data: bytes | bytearray = b""
        if size <= memory.memory_held:
            with suppress(MemoryFault):
                self.data = memory.data(address, size)
        if len(self.data) < size:
            self.data = self._by_page(memory, size)

    def _by_page(self, memory: Source, size: int) -> bytearray:
        data = bytearray(size)
        budget = Budget(f"bytes at {self.address:#x}", memory.memory_held)
        at = 0
        while at < size:
            step = min(size - at, PAGE - (self.address + at) % PAGE)
            try:
                data[at : at + step] = memory.data(self.address + at, step)
            except MemoryFault:
                self._starts.append(at)
                self._ends.append(at + step)
            else:
                budget.spend(step)
            at += step
        return data

    @property
    def missing(self) -> int:
        """The number of bytes that the dump lacks."""
        return sum(self._ends) - sum(self._starts)

    def missing_in(self, start: int, end: int) -> int:
        """The number of bytes of ``[start, end)`` that the dump lacks."""
        holes = zip(self._starts, self._ends, strict=True)
        return sum(max(0, min(last, end) - max(first, start)) for first, last in holes)

    def is_complete(self, start: int, end: int) -> bool:
        """Whether the dump has all bytes of ``[start, end)``."""
        return bisect_left(self._ends, start + 1) == bisect_left(self._starts, end)

    def complete_items(self, size: int) -> Iterator[int]:
        """The indices of the array items of which no byte is missing."""
        at = 0
        for start, end in zip([*self._starts, len(self.data)], [*self._ends, 0], strict=True):
            yield from range(-(-at // size), start // size)
            at = end
