"""A domain's shared_info page. It is public ABI: the offsets are the same in every version."""

from collections.abc import Callable

from .._typing import NamedTuple
from ..limits import MAX_MACHINE_FRAMES
from . import compat

PAGE = 4096
#: Offsets by the guest's word: of wc_version, wc_sec, wc_nsec; of the members that SharedInfo has.
_WALLCLOCK: dict[int, int] = {
    word: compat.value(f"shared_info.wc_version {word}") for word in (8, 4)
}
_ARCH: dict[int, tuple[int, ...]] = {
    word: compat.value(f"shared_info.arch {word}") for word in (8, 4)
}


class SharedInfo(NamedTuple):
    """The P2M that a PV guest publishes."""

    #: Word size of the guest.
    word: int
    #: Number of pfns.
    max_pfn: int
    #: mfn of the top page of the frame-list tree; 0: not set up; all ones: no such tree.
    frame_list_list: int
    #: The root under which ``p2m_vaddr`` is mapped, encoded as a cr3 (see ``unfold``). 0: none.
    p2m_cr3: int
    #: Virtual address of the linear P2M.
    p2m_vaddr: int
    #: Odd while the guest is in the middle of an update.
    p2m_generation: int

    @property
    def has_frame_list(self) -> bool:
        """Whether there is a frame-list tree; modern domUs may have none."""
        # 32-bit guests of 64-bit toolstacks have all ones of either width.
        none = (0, 0xFFFF_FFFF, (1 << self.word * 8) - 1)
        return self.max_pfn > 0 and self.frame_list_list not in none

    @property
    def has_linear(self) -> bool:
        """Whether there is a linear list (Linux 3.19 on)."""
        return self.max_pfn > 0 and self.p2m_cr3 != 0 and self.p2m_vaddr != 0

    @property
    def root(self) -> int:
        """Machine address of the top page table that ``p2m_cr3`` names."""
        return unfold(self.p2m_cr3, self.word)


def unfold(cr3: int, word: int) -> int:
    """The machine address in a PV guest's cr3.

    That of a 32-bit guest has the mfn's bits from 20 on in its lowest 12 bits.
    """
    if word == 4:
        return cr3 & 0xFFFF_F000 | (cr3 & 0xFFF) << 32
    return cr3 & 0x000F_FFFF_FFFF_F000


def parse(page: bytes, word: int) -> SharedInfo:
    """Reads the page as one of a guest with this word; ``score`` decides whether it is."""
    return SharedInfo(word, *(int.from_bytes(page[at : at + word], "little") for at in _ARCH[word]))


def wallclock(page: bytes, word: int) -> tuple[int, int]:
    """wc_sec and wc_nsec, which Xen keeps for every kind of guest."""
    at = _WALLCLOCK[word]
    return (
        int.from_bytes(page[at + 4 : at + 8], "little"),
        int.from_bytes(page[at + 8 : at + 12], "little"),
    )


def score(info: SharedInfo, read_frame: Callable[[int], bytes | None]) -> int:
    """The evidence that a guest published ``info``: 0 is none, a negative score contradicts it.

    ``read_frame`` returns the contents of a machine frame, or None.
    """
    if info.max_pfn == 0:
        empty = not (info.frame_list_list or info.p2m_cr3 or info.p2m_vaddr)
        return 0 if empty else -1
    if info.max_pfn > MAX_MACHINE_FRAMES:
        return -1
    found = 0
    if info.has_frame_list:
        lists = _first_mfn(info.frame_list_list, info.word, read_frame)
        if lists is None:
            return -1
        # A list of lists of mfns.
        found += 1 + (_first_mfn(lists, info.word, read_frame) is not None)
    if info.has_linear:
        if read_frame(info.root // PAGE) is None:
            return -1
        found += 1
    return found


def _first_mfn(mfn: int, word: int, read_frame: Callable[[int], bytes | None]) -> int | None:
    """The first entry of a list page, if it is a possible mfn."""
    if not 0 < mfn < MAX_MACHINE_FRAMES:
        return None
    page = read_frame(mfn)
    if page is None:
        return None
    entry = int.from_bytes(page[:word], "little")
    return entry if 0 < entry < MAX_MACHINE_FRAMES else None
