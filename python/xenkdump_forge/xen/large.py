"""A 64-bit Xen of a host with terabytes: its tables of all frames take little memory.

Frames have owners in extents of 2 MiB. So pages of the frame table repeat for each owner, and pages
of the M2P for each range of pfns: Xen's page tables map equal pages to one frame.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping

from ..memory.machine import PAGE
from ..memory.paging import ACCESSED, DIRTY, NX, PRESENT, USER, WRITE, X86_64, PageTables
from .xen64 import DIRECT_MAP, INVALID_M2P, M2P, RDWR_M2P, Xen64

#: FRAMETABLE_VIRT_START.
FRAME_TABLE = 0xFFFF82E000000000
#: Frames of an extent.
EXTENT = 512
_PAGE_INFO = 32
#: PGC_allocated with one reference.
_ALLOCATED = 1 << 63 | 1


class LargeXen(Xen64):
    """The hypervisor; its heap of ``heap`` bytes follows its image."""

    def _map_self(self) -> dict[int, int]:
        """Maps the image, and all memory in pages of 1 GiB."""
        root = self.machine_address(self.symbols["pgd_l4"]) // PAGE
        flags = PRESENT | WRITE | ACCESSED | DIRTY
        tables = self._tables = PageTables(X86_64, self.machine, self._page, root, flags)
        for offset in range(0, 0x800000, 2 << 20):
            tables.map(self.virt_start + offset, (self.phys_start + offset) // PAGE, flags, 2)
        for at in range(0, self.machine.size, 1 << 30):
            tables.map(DIRECT_MAP + at, at // PAGE, flags | NX, 3)
        for start in (M2P, RDWR_M2P, FRAME_TABLE):
            tables.table(start, 3)
        return {slot: tables.get(root, slot) for slot in range(256, 272) if tables.get(root, slot)}

    def _page(self) -> int:
        return (self._heap(PAGE) - DIRECT_MAP) // PAGE

    def heap_page(self) -> int:
        """The mfn of a page of Xen's heap, which has no owner."""
        return self._page()

    def write_frames(self, owners: Mapping[int, int], pfns: Mapping[int, array[int] | int]) -> None:
        """Writes the frame table and the M2P.

        ``owners`` has the address of the struct domain that owns each extent, ``pfns`` the first
        pfn of each, or the pfn of each of its frames.
        """
        count = self.machine.size // PAGE
        self.write_u64(self.symbols["frame_table"], FRAME_TABLE)
        self.write_u64(self.symbols["max_page"], count)
        flags = PRESENT | WRITE | ACCESSED | DIRTY | NX
        infos = {owner: self._infos(owner) for owner in {0, *owners.values()}}
        each = EXTENT * _PAGE_INFO // PAGE
        lists: dict[int, int] = {}
        unused = self._filled(array("Q", [INVALID_M2P]) * EXTENT)
        at_once = 1 << 12
        for start in range(0, count // EXTENT, at_once):
            extents = range(start, min(start + at_once, count // EXTENT))
            pages = [infos[owners.get(i, 0)] for i in extents for _ in range(each)]
            self._tables.map_run(FRAME_TABLE + start * each * PAGE, pages, flags)
            pages = []
            for i in extents:
                found = pfns.get(i)
                if found is None:
                    pages.append(unused)
                elif isinstance(found, int):
                    if found not in lists:
                        lists[found] = self._filled(array("Q", range(found, found + EXTENT)))
                    pages.append(lists[found])
                else:
                    pages.append(self._filled(found))
            guest = PRESENT | ACCESSED | USER | NX
            self._tables.map_run(M2P + start * PAGE, pages, guest)
            self._tables.map_run(RDWR_M2P + start * PAGE, pages, flags)

    def _infos(self, owner: int) -> int:
        """A page of page_infos with one owner; 0 is none."""
        frame = (owner - DIRECT_MAP) // PAGE if owner else 0
        info = struct.pack("<QQQII", 0, _ALLOCATED if owner else 0, 0, frame, 0)
        mfn = self._page()
        self.machine.write(mfn * PAGE, info * (PAGE // _PAGE_INFO))
        return mfn

    def _filled(self, words: array[int]) -> int:
        mfn = self._page()
        self.machine.write(mfn * PAGE, words.tobytes())
        return mfn
