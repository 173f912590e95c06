"""Where a kernel maps physical memory: its linear mapping, and its image."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from .._native import AddressSpace, MemoryFault
from ..limits import MAX_LINEAR_SAMPLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..linux.system import Linux

PAGE = 4096
#: First virtual address, first pfn and number of pages.
Mapping = tuple[int, int, int]

#: __PAGE_OFFSET: 4.20 on (d52888aa2753, which moved the LDT), before it, and with 5 levels of page
#: tables; that of 2.6.0 to 2.6.26, then of i386.
_STARTS = {
    8: (
        0xFFFF_8880_0000_0000,
        0xFFFF_8800_0000_0000,
        0xFF11_0000_0000_0000,
        0xFF10_0000_0000_0000,
        0xFFFF_8100_0000_0000,
    ),
    4: (0xC000_0000, 0x8000_0000, 0x4000_0000, 0xB000_0000),
}


def linear(kernel: "Linux", virtual: AddressSpace, runs: "NDArray[np.uint64]") -> Mapping | None:
    """The kernel's linear mapping of ``runs``, verified by its page tables; None if it has none.

    ``virtual`` is its virtual memory, whose machine addresses are physical ones.
    """
    end = int(runs[-1].sum())
    for start in _starts(kernel):
        if verified(virtual, start, runs, end) is not None:
            count = end if kernel.word == 8 else min(end, _low_pages(virtual, start))
            return start, 0, count
    return None


def verified(
    virtual: AddressSpace, start: int, runs: "NDArray[np.uint64]", end: int
) -> Mapping | None:
    """A mapping of all pages below ``end`` at ``start``; None if page tables do not have it."""
    sample = [int(first) for first, _ in runs[:: max(len(runs) // MAX_LINEAR_SAMPLE, 1)]]
    first = int(runs[0][0])
    sample += [first + (end - first) * i // 16 for i in range(16)]
    hits = [_is_at(virtual, start + pfn * PAGE, pfn) for pfn in sample]
    return (start, 0, end) if True in hits and False not in hits else None


def _starts(kernel: "Linux") -> Iterator[int]:
    base = kernel.symbols.get("page_offset_base")
    if base is not None:
        # With KASLR, since 4.8 (0483e1fa6e09).
        with suppress(MemoryFault):
            yield kernel.pointer(base)
    yield from _STARTS[kernel.word]


def _is_at(virtual: AddressSpace, address: int, pfn: int) -> bool | None:
    """Whether an address is mapped to a pfn; None if it is not mapped."""
    try:
        return virtual.translate(address) // PAGE == pfn
    except MemoryFault:
        return None


def _low_pages(virtual: AddressSpace, start: int) -> int:
    """The pages of a 32-bit kernel's linear mapping: it ends before the first other address."""
    low, high = 0, (2**32 - start) // PAGE
    while low < high:
        middle = (low + high) // 2
        if _is_at(virtual, start + middle * PAGE, middle):
            low = middle + 1
        else:
            high = middle
    return low


def image(kernel: "Linux", virtual: AddressSpace) -> Mapping | None:
    """The kernel's image, if it is contiguous and is mapped apart from the linear mapping."""
    symbols = kernel.symbols
    start, end = symbols.get("_text") or symbols.get("_stext"), symbols.get("_end")
    if start is None or end is None or end <= start:
        return None
    start &= -PAGE
    count = (end - start) // PAGE
    try:
        first = virtual.translate(start) // PAGE
    except MemoryFault:
        return None
    sample = [count * i // 8 for i in range(8)] + [count - 1]
    found = [_is_at(virtual, start + i * PAGE, first + i) for i in sample]
    # Parts of the image are freed after the boot, and unmapped.
    if False in found or count <= 0:
        return None
    return start, first, count
