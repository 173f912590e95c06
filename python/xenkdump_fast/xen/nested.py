"""Finds the page tables in which Xen keeps the P2M of a translated guest (HVM, PVH).

``struct domain`` points to a ``struct p2m_domain``, which holds the frame number of the root
(``phys_table``; on Intel ``ept.eptp`` too). Without debug information every word there is a
candidate. However it was found, a root is used only if it is verified: the tables belong to no
guest, the frames that they map belong to the domain according to the frame table, and the M2P leads
back from them. The tables of altp2m map a part of the domain's frames; in those of nested HVM the
guest-physical addresses are of a guest of the guest, to which the M2P does not lead back.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .._native import P2M, AbsentError
from ..limits import (
    MAX_M2P_SAMPLE,
    MAX_NESTED_CANDIDATES,
    MAX_NESTED_PROBLEMS,
    MAX_NESTED_TABLES,
    MAX_P2M_STRUCT,
    MAX_P2M_STRUCTS,
)
from . import frame_table, m2p
from .layout import Layout
from .memory import PAGE, XenMemory

if TYPE_CHECKING:
    from .._native import NestedFormat

#: The share of the sampled frames that must be the domain's, and that the M2P must lead back from.
#: A few may be shared with other domains, or be Xen's.
_ENOUGH = 0.9
#: Bytes of p2m_domain in which its pointer to the domain is: behind a lock and a CPU mask.
_BACK_WITHIN = 0x200
#: A table in the layout of NPT has the dirty bit in its entries that lead to tables, since they
#: have all flags. In EPT it is a part of the memory type, which these entries do not have.
_DIRTY = 1 << 6
_ADDRESS = 0x000F_FFFF_FFFF_F000
#: Entries of a root that are used: each maps 512 GiB.
_MAX_USED = 64


class Root(NamedTuple):
    """A root that was verified."""

    p2m: P2M
    #: Machine frame number of the root.
    mfn: int
    #: Where it was found, in words.
    how: str
    #: Estimated number of the frames that it maps.
    frames: int


class _Candidate(NamedTuple):
    mfn: int
    how: str


def find(
    memory: XenMemory,
    layout: Layout,
    frames: frame_table.Table | None,
    domain: tuple[int, int],
    more: Iterable[int] = (),
) -> Root:
    """The root of the ``struct domain`` with that address and size; AbsentError if none is.

    ``more`` are other machine addresses that may be the root's.
    """
    search = _Search(memory, frames, domain[0])
    found: list[Root] = []
    for candidates in (
        _by_layout(memory, layout, domain[0]),
        (_Candidate(at // PAGE, "the VMCB") for at in more),
        _by_search(memory, domain),
    ):
        found += search.verified(candidates)
        if found:
            break
    if not found:
        reason = "; ".join(search.problems) or "nothing in its struct leads to page tables"
        raise AbsentError(f"Xen's page tables of its memory are not found: {reason}")
    # The host's maps most: altp2m's are copies of some of its entries.
    return max(found, key=lambda root: root.frames)


def _by_layout(memory: XenMemory, layout: Layout, domain: int) -> Iterator[_Candidate]:
    """By the offsets from debug information."""
    p2m_at, root_at = layout.get("domain.p2m"), layout.get("p2m.root")
    if p2m_at is None or root_at is None:
        return
    pointer = memory.pointer(domain + p2m_at)
    mfn = None if pointer is None else memory.pointer(pointer + root_at)
    if mfn:
        yield _Candidate(mfn, f"phys_table of the p2m_domain at {pointer:#x}")


def _by_search(memory: XenMemory, domain: tuple[int, int]) -> Iterator[_Candidate]:
    """By the structs that ``struct domain`` points to and that point back to it."""
    address, size = domain
    structs = 0
    for pointer in dict.fromkeys(memory.words(address, size // memory.word * memory.word) or ()):
        if pointer % memory.word or not memory.is_xen(pointer) or pointer == address:
            continue
        head = memory.words(pointer, _BACK_WITHIN)
        if head is None or address not in head:
            continue
        structs += 1
        if structs > MAX_P2M_STRUCTS:
            return
        data = memory.struct(pointer, MAX_P2M_STRUCT)
        for i, value in enumerate(memory.split(data or b"")):
            how = f"word {i} of the struct at {pointer:#x}, to which its struct domain points"
            if value:
                yield _Candidate(value, how)
            # eptp: memory type, levels minus 1, flags, and the frame number.
            if value & 7 in (0, 6) and value >> 3 & 7 in (3, 4):
                yield _Candidate(value // PAGE, how)


class _Search:
    """Verifies candidates for the root of one domain."""

    def __init__(self, memory: XenMemory, frames: frame_table.Table | None, domain: int) -> None:
        self._memory = memory
        self._frames = frames
        self._max_page = frame_table.max_page(memory, frames)
        self._m2p = m2p.of_xen(memory.virtual)
        own = memory.translate(domain)
        #: What page_info._domain holds for the domain.
        self._owner = None if own is None else own // PAGE
        self._tried: set[int] = set()
        #: Why candidates were rejected.
        self.problems: list[str] = []

    def verified(self, candidates: Iterable[_Candidate]) -> Iterator[Root]:
        """Those that are the domain's."""
        for candidate in candidates:
            if candidate.mfn in self._tried or len(self._tried) >= MAX_NESTED_CANDIDATES:
                continue
            for layout in self._formats(candidate.mfn):
                self._tried.add(candidate.mfn)
                root, problem = self._verify(candidate, layout)
                if root is not None:
                    yield root
                    break
                if len(self.problems) < MAX_NESTED_PROBLEMS:
                    self.problems.append(f"mfn {candidate.mfn:#x} ({layout}): {problem}")

    def _formats(self, mfn: int) -> "tuple[NestedFormat, ...]":
        """The layouts that a page may have as a root, by its entries; none for most pages."""
        if self._max_page is not None and mfn >= self._max_page:
            return ()
        page = self._memory.frame(mfn) if 0 < mfn < 1 << 40 else None
        if page is None:
            return ()
        used = [entry for entry in struct.unpack("<512Q", page) if entry]
        if not 0 < len(used) <= _MAX_USED or any(not entry & 7 for entry in used):
            return ()
        dirty = {bool(entry & _DIRTY) for entry in used}
        if len(dirty) == 2:
            return ()
        return ("npt", "npt-5") if dirty == {True} else ("ept", "ept-5")

    def _verify(self, candidate: _Candidate, layout: "NestedFormat") -> tuple[Root | None, str]:
        """The root, or why it is not the domain's."""
        memory = self._memory
        try:
            p2m = P2M.nested(memory.dump, candidate.mfn, layout)
        except AbsentError as error:
            return None, str(error)
        pfns, total = m2p.sample(p2m, MAX_M2P_SAMPLE)
        if not len(pfns):
            return None, "it maps no frame"
        mfns = p2m.resolve(pfns).tolist()
        evidence = 0
        owners = frame_table.owners_of(memory, self._frames, mfns)
        if owners is not None and self._owner is not None:
            share = owners.count(self._owner) / len(owners)
            if share < _ENOUGH:
                return None, f"only {share:.0%} of its frames are the domain's"
            tables = p2m.tables(MAX_NESTED_TABLES)
            # Before Xen 4.11 (ff2a793e15) they belonged to the domain, without being its memory.
            allowed = (0, self._owner)
            owners = frame_table.owners_of(memory, self._frames, tables)
            if owners is None or any(owner not in allowed for owner in owners):
                return None, "its page tables belong to another domain"
            if any(self._is_mapped(p2m, mfn) for mfn in tables):
                return None, "it maps its own page tables"
            evidence += 1
        for table in self._m2p:
            found = m2p.compare_frames(table, pfns, p2m)
            if not found.equal + found.different:
                continue
            share = found.equal / (found.equal + found.different)
            if share < _ENOUGH:
                return None, f"the M2P leads back from only {share:.0%} of its frames"
            evidence += 1
        if not evidence:
            return None, "neither the frame table nor the M2P can be read"
        how = f"{layout.upper()} root mfn {candidate.mfn:#x}, {candidate.how}"
        return Root(p2m, candidate.mfn, how, total), ""

    def _is_mapped(self, p2m: P2M, mfn: int) -> bool:
        """Whether a frame is the guest's memory, according to the M2P."""
        for table in self._m2p:
            pfn = self._memory.number(table.address + mfn * table.entry, table.entry)
            if pfn is not None:
                return pfn < p2m.pages and p2m.entry(pfn) == ("frame", mfn)
        return False
