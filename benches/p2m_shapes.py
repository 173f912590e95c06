"""P2Ms of different shapes (``shapes``) compared with numpy's ``take`` from a prepared table.

``python -m benches.p2m_shapes TURNS [PROGRAM]``; the program is the core's ``shapes``, which
compares with a table of 32 bits for each pfn that it prefetches. Batches are consecutive parts of a
list that does not fit into a second-level cache, so that no batch is cached from the call before.
Calls on one thread are measured by its CPU time, so that other programs disturb them less.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .pairing import Pair, Timer, cores, emit, in_turn, missing, parse, say
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
MOST_TURNS = 5


def in_batches(call: Callable[[slice], object], count: int, batch: int) -> Callable[[], None]:
    """Calls with each part of a list."""
    parts = [slice(at, at + batch) for at in range(0, count, batch)]

    def run() -> None:
        for part in parts:
            call(part)

    return run


def measured(turns: int, opened: ShapedGuest) -> Iterator[Pair]:
    """All batches, orders and threads of one guest."""
    for order in ("random", "sequential"):
        for batch, counts in BATCHES.items():
            count = max(LIST, batch)
            pfns = opened.pfns(order, count)
            for threads in counts:
                wanted = TIMES.get((order, threads)) if threads == 1 or batch > LIST else None
                yield pair(turns, opened, order, pfns, batch, threads, opened.table, wanted)
            yield pair(turns, opened, order, pfns, batch, 1, opened.narrow, None)
        if opened.has_holes:
            yield with_holes(turns, opened, order)


def pair(
    turns: int,
    opened: ShapedGuest,
    order: str,
    pfns: Any,
    batch: int,
    threads: int,
    table: Any,
    wanted: float | None,
) -> Pair:
    """A batch against ``take``: native indices, no bounds check, a preallocated result."""
    out, theirs = np.empty(batch, np.uint64), np.empty(batch, table.dtype)
    indices = pfns.view(np.intp)

    def ours(part: slice) -> None:
        opened.p2m.resolve(pfns[part], out=out, threads=threads)

    def take(part: slice) -> None:
        table.take(indices[part], out=theirs, mode="clip")

    with cores(threads):
        mine, other = (in_batches(call, len(pfns), batch) for call in (ours, take))
        times = in_turn(mine, other, len(pfns), turns, calls(len(pfns)), timer(threads))
    assert np.array_equal(out, theirs)
    name = "numpy take" if table.itemsize == 8 else "numpy take, 32 bits"
    who = f"resolve, {plural(threads)}, batches of {batch:,}"
    return Pair(what(opened, order), who, name, batch, *times, wanted=wanted)


def with_holes(turns: int, opened: ShapedGuest, order: str) -> Pair:
    """pfns with and without frames, with a status for each, against the same ``take``."""
    batch = min(65_536, LIST)
    pfns = opened.any_pfns(order, LIST)
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
    who = f"resolve with status, holes included, 1 thread, batches of {batch:,}"
    return Pair(what(opened, order), who, "numpy take", batch, *times)


def calls(count: int) -> int:
    """The calls of a turn, of which the fastest counts: more of short ones."""
    return 2 if count > LIST else 4


def timer(threads: int) -> Timer:
    """The clock: that of the calling thread, if it is the only one."""
    return time.thread_time_ns if threads == 1 else time.perf_counter_ns


def what(opened: ShapedGuest, order: str) -> str:
    """The shape and the order."""
    return f"{PREFIX}: {opened.about.shape}, {opened.about.size}, {order}"


def all_pairs(turns: int, program: str | None) -> Iterator[Pair]:
    """Every shape; guests of other sizes for some."""
    for shape in shapes(missing=missing):
        for size in SIZES:
            if size != MAIN_SIZE and shape not in ALL_SIZES:
                continue
            say(f"{shape}, {size}")
            opened = guest(shape, size)
            assert opened is not None
            yield from measured(turns, opened)
            path = opened.about.path.removesuffix(".vmcore") + ".json"
            del opened  # numpy's tables take up to 1.5 GiB
            if program is not None:
                yield from by_core(turns, program, path)


def by_core(turns: int, program: str, path: str) -> Iterator[Pair]:
    """The core against a prefetched table of 32 bits."""
    with cores(1):
        done = subprocess.run(
            [program, str(turns), path], check=True, stdout=subprocess.PIPE, text=True
        )
    for one in map(parse, done.stdout.splitlines()):
        assert isinstance(one, Pair)
        yield one


def main() -> None:
    """Measures all shapes."""
    turns, program = int(sys.argv[1]), next(iter(sys.argv[2:]), None)
    emit(all_pairs(min(turns, MOST_TURNS), program))


if __name__ == "__main__":
    main()
