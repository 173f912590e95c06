"""Xen's own table from machine frames to pseudo-physical ones, which every PV guest has mapped.

A guest may write its entries (update_machphys), so that they are hints: an entry counts only where
it leads back to the pfn from which the P2M leads to it.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ._native import P2M, AddressSpace, Dump

if TYPE_CHECKING:
    from ._native import Paging

#: Where each paging format's guests have the table, and the size of its entries: on 64-bit Xen, on
#: 32-bit Xen with PAE (a 32-bit guest of a 64-bit Xen has its own there too), and without.
TABLES: "dict[Paging, tuple[int, int]]" = {
    "x86_64": (0xFFFF_8000_0000_0000, 8),
    "x86-pae": (0xF580_0000, 4),
    "x86": (0xFC00_0000, 4),
}
#: How many frames are looked at to tell the table from whatever else may be mapped there.
SAMPLE = 512
#: How many pfns are taken at a time.
CHUNK = 1 << 20


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
    for address, how in roots:
        for paging, (base, entry) in TABLES.items():
            table = M2P(dump.virtual(address, paging), base, entry, f"{how}, {paging}")
            found = compare(p2m, table, 0, step=max(1, p2m.pages // SAMPLE))
            if found.equal > found.different:
                return table
    return None


def compare(p2m: P2M, table: M2P, limit: int, *, step: int = 1) -> Reverse:
    """Goes from every ``step``-th frame of the P2M back to its pfn; lists ``limit`` that differ."""
    equal = different = unreadable = 0
    first: list[Wrong] = []
    for chunk in _frames(p2m, table, step):
        equal += chunk.equal
        different += chunk.different
        unreadable += chunk.unreadable
        first += chunk.first[: limit - len(first)]
    return Reverse(equal, different, unreadable, first)


def _frames(p2m: P2M, table: M2P, step: int) -> Iterator[Reverse]:
    import numpy as np

    for start in range(0, p2m.pages, CHUNK * step):
        pfns = np.arange(start, min(start + CHUNK * step, p2m.pages), step, dtype=np.uint64)
        status = np.empty(len(pfns), np.uint8)
        mfns = p2m.resolve(pfns, status=status)
        pfns, mfns = pfns[status == 0], mfns[status == 0]
        readable = np.empty(len(mfns), np.uint8)
        data = table.virtual.read_many(
            np.uint64(table.address) + mfns * np.uint64(table.entry), table.entry, status=readable
        )
        entries = np.ascontiguousarray(data).view(f"<u{table.entry}").ravel().astype(np.uint64)
        wrong = (readable == 0) & (entries != pfns)
        yield Reverse(
            equal=int(((readable == 0) & (entries == pfns)).sum()),
            different=int(wrong.sum()),
            unreadable=int((readable != 0).sum()),
            first=[
                Wrong(int(pfn), int(mfn), int(found))
                for pfn, mfn, found in zip(
                    pfns[wrong][:100], mfns[wrong][:100], entries[wrong][:100], strict=True
                )
            ],
        )
