"""Guest-virtual addresses of a translated guest (HVM, PVH), compared with those of a PV guest.

``python -m benches.nested TURNS`` measures. Both guests have the same frames. Xen's page tables of
the translated one map them by pages of 2 MiB where they are contiguous (7 of 8 extents), else by
pages of 4 KiB; its own page tables are among its frames.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from xenkdump_fast._native import P2M, AddressSpace, Dump

from . import synthetic
from .guests import ORDERS, folder
from .pairing import Call, Figure, Pair, cores, emit, in_turn
from .synthetic import DIRECT, ENTRIES, FLAGS, HUGE, LARGE, PAGE, Shape, Tables, Words

SHAPE = replace(synthetic.SHAPES["64g"], pages=1 << 22, present=1 << 22)
#: The guest's physical address of its page tables: behind its memory.
TABLES_AT = 1 << 23
#: Flags of Xen's entries: of tables, of pages.
FORMATS = {"npt": (0x67, 0x67), "ept": (0x7, 0x37)}
BATCH, WANTED = 1 << 20, 0.5


def write(path: Path) -> dict[str, int]:
    """Writes the dump; returns the roots: machine addresses, for "guest" a physical one."""
    mfns = synthetic.frames_of(SHAPE, np.random.default_rng(SHAPE.pages))
    tables = Tables()
    roots = {"pv": root(tables, SHAPE, mfns, synthetic.TABLES)}
    # What the guest takes for machine addresses.
    pfns = np.arange(SHAPE.pages, dtype=np.uint64)
    roots["guest"] = root(tables, SHAPE, pfns, TABLES_AT)
    tables.reserve(-tables.next % ENTRIES)
    count = tables.next - synthetic.TABLES
    for name, (table_flags, page_flags) in FORMATS.items():
        level2 = nested(tables, mfns, np.uint64(table_flags), np.uint64(page_flags))
        own = np.arange(synthetic.TABLES, synthetic.TABLES + count, ENTRIES, dtype=np.uint64)
        second = np.zeros(2 * TABLES_AT // ENTRIES, np.uint64)
        second[: len(level2)] = level2
        start = TABLES_AT // ENTRIES
        second[start : start + len(own)] = own << np.uint64(12) | np.uint64(page_flags) | LARGE
        third = tables.add(second) << np.uint64(12) | np.uint64(table_flags)
        fourth = tables.add(synthetic.padded(third, np.uint64(0)))
        top = fourth << np.uint64(12) | np.uint64(table_flags)
        roots[name] = int(tables.add(synthetic.padded(top, np.uint64(0)))[0]) * PAGE
    synthetic.write(path, tables, SHAPE)
    return roots


def root(tables: Tables, shape: Shape, frames: Words, base: int) -> int:
    """A root that maps the frames in order: by small pages from DIRECT on, by large ones from HUGE.

    Its tables refer to one another by numbers that start at ``base``.
    """
    shift = np.uint64(base - synthetic.TABLES)

    def entries(level: Words, spread: int) -> Words:
        padded = np.zeros(-(-len(level) // ENTRIES) * ENTRIES, np.uint64)
        padded[: len(level)] = level
        found: Words = (tables.add(padded) + shift) << np.uint64(12) | FLAGS
        return found[:spread] if spread else found

    small = entries(frames << np.uint64(12) | FLAGS, 0)
    # Of a scattered extent only the first frame is right, which is enough to measure.
    large = (frames[::ENTRIES] // np.uint64(ENTRIES) * np.uint64(ENTRIES)) << np.uint64(12)
    top = np.zeros(ENTRIES, np.uint64)
    for at, level2 in ((DIRECT, small), (HUGE, large | FLAGS | LARGE)):
        level3 = entries(entries(level2, 0), 0)
        top[at >> 39 & 511 : (at >> 39 & 511) + len(level3)] = level3
    return (int(tables.add(top)[0]) + int(shift)) * PAGE


def nested(tables: Tables, mfns: Words, table_flags: np.uint64, page_flags: np.uint64) -> Words:
    """Xen's entries of level 2 for the guest's memory."""
    extents = mfns.reshape(-1, ENTRIES)
    whole = (np.diff(extents, axis=1) == 1).all(axis=1) & (extents[:, 0] % ENTRIES == 0)
    level2 = extents[:, 0] << np.uint64(12) | page_flags | LARGE
    scattered = extents[~whole].ravel() << np.uint64(12) | page_flags
    level2[~whole] = tables.add(scattered) << np.uint64(12) | table_flags
    return level2


def addresses(order: str, base: int) -> Words:
    """Addresses in that order, with varying offsets in their pages."""
    pfns = ORDERS[order](SHAPE.pages, BATCH)
    offsets = pfns * np.uint64(72) % np.uint64(PAGE)
    return pfns * np.uint64(PAGE) + offsets + np.uint64(base)


def measured(turns: int) -> Iterator[Pair | Figure]:
    """Both guests in alternation, by one thread."""
    path = folder() / "nested.vmcore"
    roots = write(path)
    dump = Dump(str(path))
    pv = dump.virtual(roots["pv"], "x86_64")
    for layout in FORMATS:
        p2m = P2M.nested(dump, roots[layout] // PAGE, layout)  # type: ignore[arg-type]
        own = dump.virtual(roots["guest"], "x86_64", p2m=p2m)
        for order in ORDERS:
            for pages, base in (("4 KiB", DIRECT), ("2 MiB", HUGE)):
                wanted = addresses(order, base)
                if base == DIRECT:
                    assert (own.translate(wanted) == pv.translate(wanted)).all()
                # Page tables of a PV guest have small pages only.
                small = addresses(order, DIRECT)
                found, theirs = in_turn(call(own, wanted), call(pv, small), BATCH, turns)
                what = f"virtual addresses of a guest of 16 GiB, {order}"
                ours = f"{layout.upper()} guest, {pages} pages"
                yield Pair(what, ours, "PV guest, 4 KiB pages", BATCH, found, theirs, WANTED)


def call(space: AddressSpace, wanted: Words) -> Call:
    """Translates into arrays that are reused."""
    out, status = np.empty(len(wanted), np.uint64), np.empty(len(wanted), np.uint8)
    return lambda: space.translate(wanted, out=out, status=status, threads=1)


if __name__ == "__main__":
    with cores(1):
        emit(measured(int(sys.argv[1])))
