"""A domain's shared_info page: public ABI, so its offsets hold for every version of Xen."""

from collections.abc import Callable
from typing import NamedTuple

PAGE = 4096
#: FOREIGN_FRAME and IDENTITY_FRAME are the two top bits of an entry; an mfn has 40 bits at most.
MAX_FRAMES = 1 << 40

#: Offsets by guest word: wc_version, wc_sec, wc_nsec; then arch.max_pfn and what follows it.
_WALLCLOCK = {8: 3072, 4: 2304}
_ARCH = {8: (3088, 3096, 3112, 3120, 3128), 4: (2316, 2320, 2328, 2332, 2336)}


class SharedInfo(NamedTuple):
    """What a PV guest tells of its P2M."""

    #: Word size of the guest.
    word: int
    #: Number of pfns.
    max_pfn: int
    #: mfn of the topmost frame-list page; 0: not set up; all ones: no such list.
    frame_list_list: int
    #: The root under which ``p2m_vaddr`` is mapped, as a cr3: folded for a 32-bit guest. 0: none.
    p2m_cr3: int
    #: Virtual address of the linear P2M.
    p2m_vaddr: int
    #: Odd while the guest is in the middle of an update.
    p2m_generation: int

    @property
    def has_frame_list(self) -> bool:
        """Whether there is a frame-list tree; modern domUs may say that there is none."""
        # 32-bit guests of 64-bit toolstacks were seen with either width of all ones.
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

    A 32-bit one has the bits of the mfn above the 20 that fit in its low 12.
    """
    if word == 4:
        return cr3 & 0xFFFF_F000 | (cr3 & 0xFFF) << 32
    return cr3 & 0x000F_FFFF_FFFF_F000


def parse(page: bytes, word: int) -> SharedInfo:
    """Reads the page as a guest of this word wrote it; whether one did is for ``score`` to tell."""
    return SharedInfo(word, *(int.from_bytes(page[at : at + word], "little") for at in _ARCH[word]))


def wallclock(page: bytes, word: int) -> tuple[int, int]:
    """wc_sec and wc_nsec, which Xen keeps for every kind of guest."""
    at = _WALLCLOCK[word]
    return (
        int.from_bytes(page[at + 4 : at + 8], "little"),
        int.from_bytes(page[at + 8 : at + 12], "little"),
    )


def score(info: SharedInfo, max_frames: int, read_frame: Callable[[int], bytes | None]) -> int:
    """How much speaks for ``info`` being what a guest published: 0 is nothing, below 0 against.

    ``read_frame`` gives a machine frame's bytes, None where there are none.
    """
    if info.max_pfn == 0:
        empty = not (info.frame_list_list or info.p2m_cr3 or info.p2m_vaddr)
        return 0 if empty else -1
    if info.max_pfn > MAX_FRAMES:
        return -1
    found = 0
    if info.has_frame_list:
        lists = _first_mfn(info.frame_list_list, info.word, max_frames, read_frame)
        if lists is None:
            return -1
        # A list of lists of mfns.
        found += 1 + (_first_mfn(lists, info.word, max_frames, read_frame) is not None)
    if info.has_linear:
        if read_frame(info.root // PAGE) is None:
            return -1
        found += 1
    return found


def _first_mfn(
    mfn: int, word: int, max_frames: int, read_frame: Callable[[int], bytes | None]
) -> int | None:
    """The first entry of a list page, if it is a possible mfn."""
    if not 0 < mfn < max_frames:
        return None
    page = read_frame(mfn)
    if page is None:
        return None
    entry = int.from_bytes(page[:word], "little")
    return entry if 0 < entry < max_frames else None
