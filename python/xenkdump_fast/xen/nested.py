"""Finds the page tables in which Xen keeps the P2M of a translated guest (HVM, PVH).

``struct domain`` points to a ``struct p2m_domain``, which holds the frame number of the root
(``phys_table``; on Intel ``ept.eptp`` too). Without debug information every word there is a
candidate. However it was found, a root is used only if it is verified: the tables belong to no
guest, the frames that they map belong to the domain according to the frame table, and the M2P leads
back from them.

A domain may have more such structs, which its struct domain points to behind the first: of altp2m,
whose tables map a part of the domain's frames or all of them, and of nested HVM, whose tables map
the addresses of a guest of the guest. The M2P does not lead back from the latter, unless that guest
has the memory at the same addresses. So the struct's class decides (``p2m_class``).
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

from .._native import P2M, AbsentError
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import (
    MAX_NESTED_CANDIDATES,
    MAX_NESTED_PROBLEMS,
    MAX_NESTED_SAMPLE,
    MAX_NESTED_TABLES,
    MAX_P2M_STRUCT,
    MAX_P2M_STRUCTS,
)
from . import compat, frame_table, m2p
from .layout import Layout
from .memory import PAGE, XenMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .._native import NestedFormat

#: The share of the sampled frames that must be the domain's, and that the M2P must lead back from.
#: A few may be shared with other domains, or be Xen's.
_ENOUGH = 0.9
#: Bytes of p2m_domain in which its pointer to the domain is: behind a lock and a CPU mask.
_BACK_WITHIN = 0x200
#: p2m_class_t by its values.
_CLASSES: tuple[str, ...] = compat.value("class of a p2m_domain")
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
    #: What is assumed if the root may not be that of the guest's own memory; empty if it is.
    assumption: str = ""

    @property
    def warning(self) -> str | None:
        """A warning about the assumption, if there is one."""
        if not self.assumption:
            return None
        return f"its memory is read through the page tables at mfn {self.mfn:#x}: {self.assumption}"


class _Struct(NamedTuple):
    """A struct that struct domain points to and that points back to it."""

    address: int
    #: What it is if it is a p2m_domain: "host", "altp2m" or "nested".
    role: str


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
    for _, root in search.verified(_by_layout(memory, layout, domain[0])):
        return root
    structs = list(_pointing_back(memory, domain))
    found = [root for _, root in search.verified(_by_search(memory, structs, "host"))]
    if found:
        return _own(found, more)
    found = [root for _, root in search.verified(_by_search(memory, structs, "altp2m"))]
    if found:
        best = max(found, key=lambda root: root.frames)
        return best._replace(assumption="they are a view of altp2m, which may lack changes")
    if any(search.verified(_by_search(memory, structs, "nested"))):
        raise AbsentError(
            "Xen's page tables of its memory are not found: those found are of nested HVM, of a "
            "guest of the guest"
        )
    # That of a vCPU that was running a guest of its own is of nested HVM.
    for _, root in search.verified(_Candidate(at // PAGE, "the VMCB") for at in more):
        return root._replace(assumption="they are found through a vCPU only, not its struct domain")
    reason = "; ".join(search.problems) or "nothing in its struct leads to page tables"
    raise AbsentError(f"Xen's page tables of its memory are not found: {reason}")


def _own(found: list[Root], more: Iterable[int]) -> Root:
    """The first of the host's roots, in the order of the pointers to their structs."""
    # arch.p2m comes before arch.nested_p2m and arch.altp2m_p2m in every version.
    root, *rest = found
    if rest:
        others = ", ".join(f"mfn {other.mfn:#x}" for other in rest)
        root = root._replace(assumption=f"so might be those at {others}")
    is_npt = (root.p2m.nested_format or "").startswith("npt")
    if is_npt and any(at // PAGE == root.mfn for at in more):
        return root._replace(how=_how(root.p2m, root.mfn, "the VMCB"))
    return root


def _by_layout(memory: XenMemory, layout: Layout, domain: int) -> Iterator[_Candidate]:
    """By the offsets from debug information."""
    p2m_at, root_at = layout.get("domain.p2m"), layout.get("p2m.root")
    if p2m_at is None or root_at is None:
        return
    pointer = memory.pointer(domain + p2m_at)
    mfn = None if pointer is None else memory.pointer(pointer + root_at)
    if mfn:
        yield _Candidate(mfn, f"phys_table of the p2m_domain at {pointer:#x}")


def _by_search(memory: XenMemory, structs: Iterable[_Struct], role: str) -> Iterator[_Candidate]:
    """The words of those structs that have this role if they are a p2m_domain."""
    for found in structs:
        if found.role != role:
            continue
        data = memory.struct(found.address, MAX_P2M_STRUCT)
        for i, value in enumerate(memory.split(data or b"")):
            if not value or value >> 56:
                continue
            how = f"word {i} of the struct at {found.address:#x}, to which its struct domain points"
            yield _Candidate(value, how)
            # eptp: memory type, levels minus 1, flags, and the frame number.
            if value & 7 in (0, 6) and value >> 3 & 7 in (3, 4):
                yield _Candidate(value // PAGE, how)


def _pointing_back(memory: XenMemory, domain: tuple[int, int]) -> Iterator[_Struct]:
    """The structs that ``struct domain`` points to and that point back to it."""
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
        i = head.index(address)
        yield _Struct(pointer, _role(head[i + 1 : i + 2]))


def _role(after: Sequence[int]) -> str:
    """What a p2m_domain is, by the word after its pointer to the domain.

    Since Xen 4.6 its lower half is the class; before, it is the root of the guest's guest, and all
    ones in the host's.
    """
    if not after or after[0] == (1 << 64) - 1:
        return "host"
    number = after[0] & 0xFFFF_FFFF
    return _CLASSES[number] if number < len(_CLASSES) else "nested"


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

    def verified(self, candidates: Iterable[_Candidate]) -> Iterator[tuple[_Candidate, Root]]:
        """Those that are the domain's."""
        for candidate in candidates:
            if candidate.mfn in self._tried or len(self._tried) >= MAX_NESTED_CANDIDATES:
                continue
            for layout in self._formats(candidate.mfn):
                self._tried.add(candidate.mfn)
                root, problem = self._verify(candidate, layout)
                if root is not None:
                    yield candidate, root
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
        pfns, total = m2p.sample(p2m, MAX_NESTED_SAMPLE)
        if not len(pfns):
            return None, "it maps no frame"
        evidence = 0
        owners = frame_table.owners_of(memory, self._frames, p2m.resolve(pfns))
        if owners is not None and self._owner is not None:
            share = int((owners == self._owner).sum()) / len(owners)
            if share < _ENOUGH:
                return None, f"only {share:.0%} of its frames are the domain's"
            tables = p2m.tables(MAX_NESTED_TABLES)
            owners = frame_table.owners_of(memory, self._frames, _array(tables))
            # Before Xen 4.11 (ff2a793e15) they belonged to the domain, without being its memory.
            if owners is None or not set(owners.tolist()) <= {0, self._owner}:
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
        return Root(p2m, candidate.mfn, _how(p2m, candidate.mfn, candidate.how), total), ""

    def _is_mapped(self, p2m: P2M, mfn: int) -> bool:
        """Whether a frame is the guest's memory, according to the M2P."""
        for table in self._m2p:
            pfn = self._memory.number(table.address + mfn * table.entry, table.entry)
            if pfn is not None:
                return pfn < p2m.pages and p2m.entry(pfn) == ("frame", mfn)
        return False


def _how(p2m: P2M, mfn: int, where: str) -> str:
    return f"{(p2m.nested_format or '').upper()} root mfn {mfn:#x}, {where}"


def _array(numbers: list[int]) -> "NDArray[np.uint64]":
    import numpy as np

    return np.array(numbers, dtype=np.uint64)
