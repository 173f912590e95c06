"""Xen's own table from machine frames to pseudo-physical ones, which every PV guest has mapped.

A guest may write its entries (update_machphys), so that they are hints: an entry counts only where
it leads back to the pfn from which the P2M leads to it.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .._native import P2M, AddressSpace, Dump

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .._native import Paging

#: Where each paging format's guests have the table, and the size of its entries: on 64-bit Xen, on
#: 32-bit Xen with PAE (a 32-bit guest of a 64-bit Xen has its own there too), and without.
TABLES: "dict[Paging, tuple[int, int]]" = {
    "x86_64": (0xFFFF_8000_0000_0000, 8),
    "x86-pae": (0xF580_0000, 4),
    "x86": (0xFC00_0000, 4),
}
#: How many frames are looked at to tell the table from whatever else may be mapped there.
SAMPLE = 512
#: How many roots are tried. Every root of a PV guest has the table, so that the first whose tables
#: the dump holds shows it; a domain has no more vCPUs than these.
ROOTS = 8192
#: How many pfns are taken at a time.
CHUNK = 1 << 20
#: How many frames that do not lead back are kept of each chunk.
LISTED = 100


class M2P(NamedTuple):
    """The table, as one root maps it."""

    virtual: AddressSpace
    address: int
    #: Bytes.
    entry: int
    #: Who named the root, in words.
    how: str


class Wrong(NamedTuple):
    """A frame whose entry does not lead back."""

    pfn: int
    mfn: int
    #: What the M2P says instead.
    found: int


class Reverse(NamedTuple):
    """Counts of a P2M's frames, by whether the M2P leads back from them."""

    equal: int
    different: int
    #: The M2P's page is not in the dump, or not mapped.
    unreadable: int
    #: The first of those that do not.
    first: list[Wrong]


def find(dump: Dump, p2m: P2M, roots: Iterable[tuple[int, str]]) -> M2P | None:
    """The table under the first of the ``roots`` that has it: most entries lead back to the P2M."""
    some = next(_pfns(p2m), None)
    if some is None:
        return None
    frames = _frames(p2m, some[:: max(1, len(some) // SAMPLE)].copy())
    tried: set[int] = set()
    for address, how in roots:
        if address in tried:
            continue
        if len(tried) == ROOTS:
            break
        tried.add(address)
        for paging, (base, entry) in TABLES.items():
            table = M2P(dump.virtual(address, paging), base, entry, f"{how}, {paging}")
            found = _reverse(table, *frames)
            if found.equal > found.different:
                return table
    return None


def compare(p2m: P2M, table: M2P, limit: int) -> Reverse:
    """Goes from every frame of the P2M back to its pfn; lists the first ``limit`` that differ."""
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


def _frames(
    p2m: P2M, pfns: "NDArray[np.uint64]"
) -> "tuple[NDArray[np.uint64], NDArray[np.uint64]]":
    """Those of the pfns that have a frame, and the frames."""
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
    listed = (column[wrong][:LISTED].tolist() for column in (pfns, mfns, entries))
    return Reverse(
        equal=int(((status == 0) & (entries == pfns)).sum()),
        different=int(wrong.sum()),
        unreadable=int((status != 0).sum()),
        first=[Wrong(*each) for each in zip(*listed, strict=True)],
    )


def _pfns(p2m: P2M) -> "Iterator[NDArray[np.uint64]]":
    """Every pfn that is worth asking, in arrays of about ``CHUNK``.

    A P2M may claim far more pfns than it has, as the broken do.
    """
    import numpy as np

    some, total = [], 0
    for first, count in p2m.spans():
        for start in range(first, first + count, CHUNK):
            some.append(np.arange(start, min(start + CHUNK, first + count), dtype=np.uint64))
            total += len(some[-1])
            if total >= CHUNK:
                yield np.concatenate(some)
                some, total = [], 0
    if some:
        yield np.concatenate(some)
