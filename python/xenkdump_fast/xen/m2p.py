"""Xen's M2P: its table from machine frames to pseudo-physical ones, which every PV guest maps.

A guest may write its entries (update_machphys). So an entry is valid only if the P2M maps its pfn
to the same machine frame.
"""

from collections.abc import Iterable, Iterator

from .._native import P2M, AddressSpace, Dump
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_M2P_DIFFERENCES, MAX_M2P_ROOTS, MAX_M2P_SAMPLE, MAX_PFNS_AT_ONCE
from . import compat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .._native import Paging

#: Where the table may be mapped: paging format, address, and size of its entries.
TABLES: "tuple[tuple[Paging, int, int], ...]" = compat.values("M2P")

#: Address and size of entries where page tables of a 64-bit Xen map its own table.
_XEN_TABLES = [table[1:] for table in TABLES if table[0] == "x86_64" and table[2] == 8]


class M2P(NamedTuple):
    """The table, as one root maps it."""

    virtual: AddressSpace
    address: int
    #: Bytes.
    entry: int
    #: Where the root was found, in words.
    how: str


class Wrong(NamedTuple):
    """A frame whose entry has another pfn."""

    pfn: int
    mfn: int
    #: The entry in the M2P.
    found: int


class Reverse(NamedTuple):
    """A P2M's frames, counted by whether the M2P has the same pfn."""

    equal: int
    different: int
    #: The M2P's page is not in the dump, or not mapped.
    unreadable: int
    #: The first of the different ones.
    first: list[Wrong]


def of_xen(virtual: AddressSpace) -> list[M2P]:
    """Where a 64-bit Xen's own page tables may map the table."""
    return [M2P(virtual, base, entry, "Xen's page tables") for base, entry in _XEN_TABLES]


def find(dump: Dump, p2m: P2M, roots: Iterable[tuple[int, str]]) -> M2P | None:
    """The table under the first of the ``roots`` where most entries agree with the P2M."""
    some = next(_pfns(p2m), None)
    if some is None:
        return None
    frames = _frames(p2m, some[:: max(1, len(some) // MAX_M2P_SAMPLE)].copy())
    tried: set[int] = set()
    for address, how in roots:
        if address in tried:
            continue
        if len(tried) == MAX_M2P_ROOTS:
            break
        tried.add(address)
        for paging, base, entry in TABLES:
            table = M2P(dump.virtual(address, paging), base, entry, f"{how}, {paging}")
            found = _reverse(table, *frames)
            if found.equal > found.different:
                return table
    return None


def compare(p2m: P2M, table: M2P, limit: int) -> Reverse:
    """Compares every frame of the P2M with the M2P; lists the first ``limit`` that differ."""
    total = Reverse(0, 0, 0, [])
    for pfns in _pfns(p2m):
        found = _reverse(table, *_frames(p2m, pfns))
        total = Reverse(
            total.equal + found.equal,
            total.different + found.different,
            total.unreadable + found.unreadable,
            (total.first + found.first)[:limit],
        )
    return total


def sample(p2m: P2M, count: int) -> "tuple[NDArray[np.uint64], int]":
    """About ``count`` pfns that have a frame, evenly spaced; and an estimate of how many have."""
    import numpy as np

    spans = p2m.spans()
    total = sum(size for _, size in spans)
    step = max(1, total // count)
    parts, skipped = [np.empty(0, dtype=np.uint64)], 0
    for first, size in spans:
        parts.append(np.arange(first + skipped, first + size, step, dtype=np.uint64))
        skipped = (skipped - size) % step
    pfns = np.concatenate(parts)
    found, _ = _frames(p2m, pfns)
    return found, total * len(found) // max(1, len(pfns))


def compare_frames(table: M2P, pfns: "NDArray[np.uint64]", p2m: P2M) -> Reverse:
    """Compares the frames of these pfns with the M2P."""
    return _reverse(table, *_frames(p2m, pfns))


def _frames(
    p2m: P2M, pfns: "NDArray[np.uint64]"
) -> "tuple[NDArray[np.uint64], NDArray[np.uint64]]":
    """The pfns that have a frame, and their frames."""
    import numpy as np

    status = np.empty(len(pfns), np.uint8)
    mfns = p2m.resolve(pfns, status=status)
    return pfns[status == 0], mfns[status == 0]


def _reverse(table: M2P, pfns: "NDArray[np.uint64]", mfns: "NDArray[np.uint64]") -> Reverse:
    import numpy as np

    status = np.empty(len(mfns), np.uint8)
    addresses = np.uint64(table.address) + mfns * np.uint64(table.entry)
    data = table.virtual.read_many(addresses, table.entry, status=status)
    entries = np.ascontiguousarray(data).view(f"<u{table.entry}").ravel().astype(np.uint64)
    wrong = (status == 0) & (entries != pfns)
    listed = (column[wrong][:MAX_M2P_DIFFERENCES].tolist() for column in (pfns, mfns, entries))
    return Reverse(
        equal=int(((status == 0) & (entries == pfns)).sum()),
        different=int(wrong.sum()),
        unreadable=int((status != 0).sum()),
        first=[Wrong(*each) for each in zip(*listed, strict=True)],
    )


def _pfns(p2m: P2M) -> "Iterator[NDArray[np.uint64]]":
    """Every pfn whose P2M page is in the dump, in arrays of about ``MAX_PFNS_AT_ONCE``.

    A broken P2M may claim far more pfns than it has.
    """
    import numpy as np

    some, total = [], 0
    for first, count in p2m.spans():
        for start in range(first, first + count, MAX_PFNS_AT_ONCE):
            some.append(
                np.arange(start, min(start + MAX_PFNS_AT_ONCE, first + count), dtype=np.uint64)
            )
            total += len(some[-1])
            if total >= MAX_PFNS_AT_ONCE:
                yield np.concatenate(some)
                some, total = [], 0
    if some:
        yield np.concatenate(some)
