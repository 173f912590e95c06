"""A stretch of kernel memory of which the dump may lack some pages."""

from .._native import MemoryFault
from .kernel import Kernel

PAGE = 4096


class Patchy:
    """``size`` bytes at ``address``; what the dump lacks of them reads as zeros, and is known."""

    def __init__(self, kernel: Kernel, address: int, size: int) -> None:
        self.address = address
        self._holes: list[tuple[int, int]] = []
        try:
            self.data = kernel.data(address, size)
        except MemoryFault:
            self.data = self._by_page(kernel, size)

    def _by_page(self, kernel: Kernel, size: int) -> bytes:
        data = bytearray(size)
        at = 0
        while at < size:
            step = min(size - at, PAGE - (self.address + at) % PAGE)
            try:
                data[at : at + step] = kernel.data(self.address + at, step)
            except MemoryFault:
                self._holes.append((at, at + step))
            at += step
        return bytes(data)

    @property
    def missing(self) -> int:
        """How many bytes the dump lacks."""
        return sum(end - start for start, end in self._holes)

    def whole(self, start: int, end: int) -> bool:
        """Whether the dump has all bytes of ``[start, end)``."""
        return not any(start < hole_end and end > hole for hole, hole_end in self._holes)
