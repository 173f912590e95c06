"""P2Ms of different shapes (``shapes``) compared with numpy's ``take`` from a prepared table.

``python -m benches.p2m_shapes TURNS [LIBRARY [SHAPE...]]``; the library is that of ``floors/``:
what does less than a lookup has to do, compared with ``take`` and with lookups in the same way.
Batches are consecutive parts of a list that does not fit into a second-level cache, so that no
batch is cached from the call before. Calls on one thread are measured by its CPU time, so that
other programs disturb them less.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .floors import COPY, GATHER, Floors, in_halves
from .pairing import Pair, Timer, cores, emit, in_turn, missing, say
from .pairs import TIMES, plural
from .shapes import SIZES, ShapedGuest, guest, shapes

#: The start of each of these pairs, by which ``report`` recognises them.
PREFIX = "P2M shape"
#: Sizes of batches, and the threads for each.
BATCHES = {4_096: (1,), 65_536: (1, 2), 1 << 22: (1, 2)}
#: The size of the list, unless the batch is larger.
LIST = 1 << 20
#: Shapes for which guests of all sizes are measured.
ALL_SIZES = (
    "only extents",
    "an eighth single frames",
    "no extents",
    "ballooned",
    "xen417-dom0 0",
    "xen417-three-domains 0",
)
MAIN_SIZE = "64 GiB"
#: Parts of the pfns that have no frame, of lookups with a status for each.
HOLES = (0.01, 0.1, 0.5)
MOST_TURNS = 5


def in_batches(call: Callable[[slice], object], count: int, batch: int) -> Callable[[], None]:
    """Calls with each part of a list."""
    parts = [slice(at, at + batch) for at in range(0, count, batch)]

    def run() -> None:
        for part in parts:
            call(part)

    return run


def measured(turns: int, opened: ShapedGuest, floors: Floors | None = None) -> Iterator[Pair]:
    """All batches, orders and threads of one guest."""
    for order in ("random", "sequential"):
        for batch, counts in BATCHES.items():
            count = max(LIST, batch)
            pfns = opened.pfns(order, count)
            for threads in counts:
                wanted = TIMES.get((order, threads)) if threads == 1 or batch > LIST else None
                yield pair(turns, opened, order, pfns, batch, threads, wanted)
                if floors is not None and (threads == 1 or batch > LIST):
                    yield from with_floors(turns, opened, order, pfns, batch, threads, floors)
        if opened.has_holes:
            yield with_holes(turns, opened, order, opened.any_pfns(order, LIST), "all pfns")
    if opened.has_holes:
        for part in HOLES:
            pfns = opened.mixed_pfns(LIST, part)
            yield with_holes(turns, opened, "random", pfns, f"{part:.0%} without a frame")


def with_floors(
    turns: int,
    opened: ShapedGuest,
    order: str,
    pfns: Any,
    batch: int,
    threads: int,
    floors: Floors,
) -> Iterator[Pair]:
    """An unchecked table, and a copy, against ``take`` and against lookups."""
    table, indices = opened.table, pfns.view(np.intp)
    out, theirs, floor = (np.empty(batch, np.uint64) for _ in range(3))

    def ours(part: slice) -> None:
        opened.p2m.resolve(pfns[part], out=out, threads=threads)

    def take(part: slice) -> None:
        table.take(indices[part], out=theirs, mode="clip")

    def gather(part: slice) -> Callable[[], None]:
        return floors.gather(opened.narrow, pfns[part], min(batch, len(pfns[part])), floor[part])

    def copy(part: slice) -> Callable[[], None]:
        return floors.copy(pfns[part], min(batch, len(pfns[part])), floor[part])

    resolve, numpy = (in_batches(call, len(pfns), batch) for call in (ours, take))
    which = f"{plural(threads)}, batches of {batch:,}"
    with cores(threads), ThreadPoolExecutor(threads) as pool:
        for make, name in ((gather, GATHER), (copy, COPY)):
            every = slice(0, len(pfns))
            least = make(every) if threads == 1 else in_halves(pool, make, len(pfns))
            for mine, who, other, peer in (
                (resolve, f"resolve, {which}", least, name),
                (least, f"{name}, {which}", numpy, "numpy take"),
            ):
                times = in_turn(mine, other, len(pfns), turns, calls(len(pfns)), timer(threads))
                yield Pair(what(opened, order), who, peer, batch, *times)
            if make is gather:
                assert np.array_equal(floor, theirs)


def pair(
    turns: int,
    opened: ShapedGuest,
    order: str,
    pfns: Any,
    batch: int,
    threads: int,
    wanted: float | None,
) -> Pair:
    """A batch against ``take``: native indices, no bounds check, a preallocated result."""
    table = opened.table
    out, theirs = np.empty(batch, np.uint64), np.empty(batch, np.uint64)
    indices = pfns.view(np.intp)

    def ours(part: slice) -> None:
        opened.p2m.resolve(pfns[part], out=out, threads=threads)

    def take(part: slice) -> None:
        table.take(indices[part], out=theirs, mode="clip")

    with cores(threads):
        mine, other = (in_batches(call, len(pfns), batch) for call in (ours, take))
        times = in_turn(mine, other, len(pfns), turns, calls(len(pfns)), timer(threads))
    assert np.array_equal(out, theirs)
    who = f"resolve, {plural(threads)}, batches of {batch:,}"
    return Pair(what(opened, order), who, "numpy take", batch, *times, wanted=wanted)


def with_holes(turns: int, opened: ShapedGuest, order: str, pfns: Any, which: str) -> Pair:
    """pfns with and without frames, with a status for each, against the same ``take``."""
    batch = min(65_536, LIST)
    indices = pfns.view(np.intp)
    out, theirs, status = (np.empty(batch, kind) for kind in (np.uint64, np.uint64, np.uint8))

    def ours(part: slice) -> None:
        opened.p2m.resolve(pfns[part], out=out, status=status, threads=1)

    def take(part: slice) -> None:
        opened.table.take(indices[part], out=theirs, mode="clip")

    with cores(1):
        mine, other = (in_batches(call, LIST, batch) for call in (ours, take))
        times = in_turn(mine, other, LIST, turns, calls(LIST), timer(1))
    assert np.array_equal(out, theirs)
    who = f"resolve with status, {which}, 1 thread, batches of {batch:,}"
    return Pair(what(opened, order), who, "numpy take", batch, *times, wanted=1)


def calls(count: int) -> int:
    """The calls of a turn, of which the fastest counts: more of short ones."""
    return 2 if count > LIST else 4


def timer(threads: int) -> Timer:
    """The clock: that of the calling thread, if it is the only one."""
    return time.thread_time_ns if threads == 1 else time.perf_counter_ns


def what(opened: ShapedGuest, order: str) -> str:
    """The shape and the order."""
    return f"{PREFIX}: {opened.about.shape}, {opened.about.size}, {order}"


def all_pairs(turns: int, floors: Floors | None, chosen: Sequence[str]) -> Iterator[Pair]:
    """Every shape, or those that are chosen; guests of other sizes for some."""
    for shape in shapes(missing=missing):
        for size in SIZES:
            if size != MAIN_SIZE and shape not in ALL_SIZES:
                continue
            if chosen and shape not in chosen:
                continue
            say(f"{shape}, {size}")
            opened = guest(shape, size)
            assert opened is not None
            yield from measured(turns, opened, floors)
            say(f"{shape}, {size}: {huge_pages()} MiB in huge pages")
            del opened  # numpy's tables take up to 1.5 GiB


def huge_pages() -> int:
    """How many MiB of this process, numpy's tables included, are in huge pages."""
    rollup = Path("/proc/self/smaps_rollup")
    lines = rollup.read_text().splitlines() if rollup.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:")) >> 10


def main() -> None:
    """Measures the shapes."""
    turns, library = int(sys.argv[1]), next(iter(sys.argv[2:]), None)
    floors = None if library is None else Floors(Path(library))
    emit(all_pairs(min(turns, MOST_TURNS), floors, sys.argv[3:]))


if __name__ == "__main__":
    main()
