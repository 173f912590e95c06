"""A stretch of kernel memory of which the dump may lack some pages."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

from .._native import AbsentError, MemoryFault
from ..budget import Allowance
from .kernel import Kernel

PAGE = 4096


class PartialBuffer:
    """``size`` bytes at ``address``; what the dump lacks of them reads as zeros, and is known.

    AbsentError where more of them can be read than the dump has: page tables lead to the same bytes
    again and again. A cut dump may well have less than ``size`` bytes in all.
    """

    def __init__(self, kernel: Kernel, address: int, size: int) -> None:
        self.address = address
        #: Where each hole starts and ends, ascending.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.data: bytes | bytearray = b""
        if size <= kernel.memory_held:
            with suppress(MemoryFault):
                self.data = kernel.data(address, size)
        if len(self.data) < size:
            self.data = self._by_page(kernel, size)

    def _by_page(self, kernel: Kernel, size: int) -> bytearray:
        data = bytearray(size)
        room = Allowance(kernel.memory_held)
        at = 0
        while at < size:
            step = min(size - at, PAGE - (self.address + at) % PAGE)
            try:
                data[at : at + step] = kernel.data(self.address + at, step)
            except MemoryFault:
                self._starts.append(at)
                self._ends.append(at + step)
            else:
                if not room.take(step):
                    raise AbsentError(
                        f"more can be read of the {size} bytes at {self.address:#x} than the "
                        "dump has: page tables lead to the same bytes again and again"
                    )
            at += step
        return data

    @property
    def missing(self) -> int:
        """How many bytes the dump lacks."""
        return sum(self._ends) - sum(self._starts)

    def whole(self, start: int, end: int) -> bool:
        """Whether the dump has all bytes of ``[start, end)``."""
        return bisect_left(self._ends, start + 1) == bisect_left(self._starts, end)

    def whole_items(self, size: int) -> Iterator[int]:
        """The numbers of those items of an array that the dump has all bytes of."""
        at = 0
        for start, end in zip([*self._starts, len(self.data)], [*self._ends, 0], strict=True):
            yield from range(-(-at // size), start // size)
            at = end
