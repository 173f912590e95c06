"""What the kernel's page structs say of each page, by VMCOREINFO; the rules are makedumpfile's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._native import AbsentError
from ..limits import MAX_PAGE_STRUCT
from ..linux.boot import vmcoreinfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..linux.kernel import Kernel

    Words = NDArray[np.uint64]
    Flags = NDArray[np.bool_]

#: The bits of the dump level, and the kinds of pages.
ZERO, CACHE, CACHE_PRIVATE, USER, FREE = 1, 2, 4, 8, 16
KINDS = ("kept", "cache", "cache with private data", "user", "free", "offline or poisoned")
KEPT, IS_CACHE, IS_CACHE_PRIVATE, IS_USER, IS_FREE, IS_UNUSABLE = range(len(KINDS))
#: PAGE_MAPPING_ANON.
_ANON = 1
#: Since 6.11 (4ffca5a96678) page types are numbers in the top byte of _mapcount.
_TYPE = 0xFF00_0000
#: The start of the array of page structs without KASLR, until VMCOREINFO has it (7.0).
_VMEMMAP = {"x86_64": 0xFFFF_EA00_0000_0000, "x86_64-la57": 0xFFD4_0000_0000_0000}


class PageFlags:
    """Decodes page structs. AbsentError if VMCOREINFO lacks what the dump level needs."""

    def __init__(self, kernel: "Kernel", text: bytes, level: int, paging: str) -> None:
        facts = vmcoreinfo.parse(text.decode("utf-8", "backslashreplace"))
        self._facts = facts
        self._level = level
        self.warnings: list[str] = []
        size = self._need("SIZE(page)")
        if not 0 < size <= MAX_PAGE_STRUCT or size % 8:
            raise AbsentError(f"SIZE(page) in VMCOREINFO is {size}")
        self.size = size
        self.start = _start(kernel, facts, paging)
        self._flags = self._offset("flags", 8)
        self._mapping = self._offset("mapping", 8)
        self._mapcount = self._offset("_mapcount", 4)
        self._private = self._offset("private", 8)
        self._lru = 1 << self._bit("PG_lru")
        self._private_bit = 1 << self._bit("PG_private")
        self._swap_cache = 1 << self._bit("PG_swapcache")
        swap_backed = vmcoreinfo.number(facts, "NUMBER(PG_swapbacked)")
        # In kernels before 4.10 (6326fec1122c) PG_swapcache has a bit of its own.
        self._swap_backed = 0 if swap_backed is None else 1 << (swap_backed & 63)
        self._slab, self._poison = self._bit_or_0("PG_slab"), self._bit_or_0("PG_hwpoison")
        self._buddy = self._need("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)") if level & FREE else None
        self._slab_type = vmcoreinfo.number(facts, "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)")
        self._offline = vmcoreinfo.number(facts, "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)")
        self._huge_type = vmcoreinfo.number(facts, "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)")
        self._huge_flag = vmcoreinfo.number(facts, "NUMBER(PG_hugetlb)")
        self._huge_dtor = vmcoreinfo.number(facts, "NUMBER(HUGETLB_PAGE_DTOR)")
        self._dtor = vmcoreinfo.extent(facts, "OFFSET(page.compound_dtor)")
        if level & USER and not self._knows_huge():
            self.warnings.append(
                "--dump-level: VMCOREINFO does not tell pages of hugetlbfs: they are kept"
            )
        info = vmcoreinfo.extent(facts, "OFFSET(page.compound_info)")
        head = vmcoreinfo.extent(facts, "OFFSET(page.compound_head)")
        #: 7.0 has masks in place of pointers where the size of the struct is a power of two.
        self._has_masks = info is not None
        self._head = info if info is not None else head
        if self._head is None or self._head + 8 > size:
            self._head = None
            self.warnings.append(
                "--dump-level: VMCOREINFO does not tell the pages of compound pages (before Linux "
                "4.4): only the first of each is left out"
            )

    def _need(self, key: str) -> int:
        found = vmcoreinfo.number(self._facts, key)
        if found is None:
            raise AbsentError(
                f"--dump-level {self._level}: VMCOREINFO has no {key}, by which kinds of pages are "
                "recognised (level 1 needs none)"
            )
        return found

    def _offset(self, member: str, size: int) -> int:
        found = self._need(f"OFFSET(page.{member})")
        if not 0 <= found <= self.size - size:
            raise AbsentError(f"OFFSET(page.{member}) in VMCOREINFO is {found}")
        return found

    def _bit(self, name: str) -> int:
        return self._need(f"NUMBER({name})") & 63

    def _bit_or_0(self, name: str) -> int:
        found = vmcoreinfo.number(self._facts, f"NUMBER({name})")
        return 0 if found is None else 1 << (found & 63)

    def _knows_huge(self) -> bool:
        by_dtor = self._huge_dtor is not None and self._dtor is not None
        return self._huge_type is not None or self._huge_flag is not None or by_dtor

    def kinds(self, rows: "NDArray[np.uint8]", pfns: "Words") -> "tuple[Words, Words, Words]":
        """The kind of each page by its own struct, the order of free blocks, the pfn of its head.

        The rows are the structs of ``pfns``, which are contiguous.
        """
        import numpy as np

        flags = self._words(rows, self._flags)
        count = rows[:, self._mapcount : self._mapcount + 4].copy().view("<u4")[:, 0]
        is_slab = (flags & np.uint64(self._slab)) != 0
        if self._slab_type is not None:
            is_slab |= self._is_type(count, self._slab_type)
        is_anon = ((self._words(rows, self._mapping) & np.uint64(_ANON)) != 0) & ~is_slab
        is_swap = (flags & np.uint64(self._swap_cache)) != 0
        if self._swap_backed:
            is_swap &= (flags & np.uint64(self._swap_backed)) != 0
        is_cache = (((flags & np.uint64(self._lru)) != 0) | is_swap) & ~is_anon
        has_private = (flags & np.uint64(self._private_bit)) != 0
        found = np.full(len(rows), KEPT, np.uint64)
        # The order of makedumpfile's tests: the first that applies.
        found[self._is_unusable(flags, count)] = IS_UNUSABLE
        found[is_anon | self._is_huge(rows, count)] = IS_USER
        found[is_cache & has_private] = IS_CACHE_PRIVATE
        found[is_cache & ~has_private] = IS_CACHE
        order = np.zeros(len(rows), np.uint64)
        if self._buddy is not None:
            is_free = self._is_type(count, self._buddy) & ~is_slab
            order[is_free] = self._words(rows, self._private)[is_free]
            found[is_free] = IS_FREE
        return found, order, self._heads(rows, pfns)

    def _is_unusable(self, flags: "Words", count: "NDArray[np.uint32]") -> "Flags":
        import numpy as np

        is_unusable: Flags = (flags & np.uint64(self._poison)) != 0
        if self._offline is not None:
            is_unusable |= self._is_type(count, self._offline)
        return is_unusable

    def _is_type(self, count: "NDArray[np.uint32]", value: int) -> "Flags":
        import numpy as np

        value &= 0xFFFF_FFFF
        known = count if value & ~_TYPE else count & np.uint32(_TYPE)
        found: Flags = known == np.uint32(value)
        return found

    def _is_huge(self, rows: "NDArray[np.uint8]", count: "NDArray[np.uint32]") -> "Flags":
        """First pages of hugetlbfs; before 6.10 the second page has the mark."""
        import numpy as np

        if self._huge_type is not None:
            return self._is_type(count, self._huge_type)
        second = np.zeros(len(rows), bool)
        if self._huge_flag is not None:
            bit = np.uint64(1 << (self._huge_flag & 63))
            second = (self._words(rows, self._flags) & bit) != 0
        elif self._huge_dtor is not None and self._dtor is not None:
            # An unsigned char; 0 in pages that are not compound.
            second = rows[:, self._dtor] == np.uint8(self._huge_dtor & 0xFF)
        if self._head is not None:
            # The mark is only valid in a page that belongs to the one before it.
            second &= (self._words(rows, self._head) & np.uint64(1)) != 0
        first = np.zeros(len(rows), bool)
        first[:-1] = second[1:]
        return first

    def _heads(self, rows: "NDArray[np.uint8]", pfns: "Words") -> "Words":
        """The pfn of the first page of the compound page of each; its own if it is in none."""
        import numpy as np

        heads = pfns.copy()
        if self._head is None:
            return heads
        info = self._words(rows, self._head)
        is_tail = (info & np.uint64(1)) != 0
        address = info - np.uint64(1)
        if self._has_masks:
            # Only the high bits are set in a mask.
            inverse = ~address
            is_mask = (inverse & (inverse + np.uint64(1))) == 0
            own = np.uint64(self.start) + pfns * np.uint64(self.size)
            address = np.where(is_mask, own & address, address)
        offset = address - np.uint64(self.start)
        found = offset // np.uint64(self.size)
        is_valid = is_tail & (offset % np.uint64(self.size) == 0) & (found < pfns)
        heads[is_valid] = found[is_valid]
        wrong = int(np.count_nonzero(is_tail & ~is_valid))
        if wrong > len(rows) // 16:
            raise AbsentError(
                f"--dump-level: the page structs are not at {self.start:#x}: {wrong} of "
                f"{len(rows)} lead elsewhere"
            )
        return heads

    def _words(self, rows: "NDArray[np.uint8]", at: int) -> "Words":
        return rows[:, at : at + 8].copy().view("<u8")[:, 0]


def _start(kernel: "Kernel", facts: Mapping[str, str], paging: str) -> int:
    """The address of the struct of page 0. AbsentError if the kernel has no array of them."""
    if kernel.word != 8:
        raise AbsentError(
            "--dump-level: page structs of 32-bit kernels are not supported (level 1 needs none)"
        )
    at = vmcoreinfo.number(facts, "SYMBOL(vmemmap)", 16)
    if at is not None:
        return at
    symbol = kernel.symbols.get("vmemmap_base")
    if symbol is not None:
        return kernel.pointer(symbol)
    start = _VMEMMAP.get(paging)
    if start is None:
        raise AbsentError("--dump-level: the address of the page structs is not known")
    return start
