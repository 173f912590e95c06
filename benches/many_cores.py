"""Batches on many threads: against one thread, and against numpy on as many threads.

``python -m benches.many_cores TURNS [--threads N,N...] [--all]`` needs only Python, numpy and this
package. It writes two guests (300 MB on disk) into XKDUMP_BENCH, by default ``.cache/bench``, and
prints a JSON line for each measurement and a table at the end, on standard error. On 16 idle cores
5 turns take about three minutes and 6 GiB of memory, page cache included.

Threads are pinned to different physical cores while there are enough. The numpy side divides the
same batch among a pool of threads that lives as long as the program. Its ``take`` from a prepared
table does neither the checks nor the translation; its copies of the arguments show what the memory
could deliver.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .guests import Guest, file_offsets, open_guest
from .pairing import CORES, Call, Figure, Pair, clock, emit, in_turn, say
from .pairs import plural

#: The numbers of threads, as far as the machine has cores.
THREADS = (1, 2, 4, 8, 16)
#: With fewer cores the part is skipped: the other parts measure two threads.
LEAST_CORES = 4
#: Bytes of the arrays that measure the bandwidth of memory, and of a read of a domain.
COPIED = 256 << 20
READ, STEP = 1 << 30, 64 << 20
#: Batches of pfns that are also compared with a copy: they do not fit into a processor's caches.
LONG = 1 << 22
#: Batches that ``threads`` must not slow down, and the ratio to one thread that counts as equal.
SMALL = (1, 16, 256, 4096)
EQUAL = 0.95

Work = Callable[[int], object]
Part = Callable[[slice], object]


def physical_cores() -> list[int]:
    """The cores of this process: one of each physical core, then their siblings."""
    seen: dict[str, int] = {}
    order = []
    for core in CORES:
        path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        siblings = path.read_text() if path.is_file() else str(core)
        seen[siblings] = seen.get(siblings, 0) + 1
        order.append((seen[siblings], core))
    return [core for _, core in sorted(order)]


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Restricts this thread, and threads that it starts, to as many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, physical_cores()[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads for the numpy side, which keep the cores that they were started on."""
    return ThreadPoolExecutor(threads)


def in_parts(count: int, threads: int, part: Part) -> Call:
    """Calls ``part`` with each of as many equal parts of ``count`` elements, in parallel."""
    bounds = [count * number // threads for number in range(threads + 1)]
    parts = [slice(*both) for both in pairwise(bounds)]
    if threads == 1:
        return lambda: part(parts[0])
    threads_of = pool(threads)
    return lambda: [*threads_of.map(part, parts)]


@dataclass(frozen=True)
class Operation:
    """One kind of call on one batch."""

    what: str
    who: str
    elements: int
    #: The call, by number of threads.
    ours: Work
    #: numpy's part of the same batch, and its name.
    theirs: list[tuple[str, Part]]


def resolving(guest: Guest, order: str, count: int) -> Operation:
    """pfns to mfns."""
    pfns = guest.pfns(order, count)
    out, took, copied = (np.empty(count, np.uint64) for _ in range(3))
    indices, table = pfns.view(np.intp), guest.table

    def take(part: slice) -> None:
        table.take(indices[part], out=took[part], mode="clip")

    def ours(threads: int) -> None:
        guest.p2m.resolve(pfns, out=out, threads=threads)

    ours(2)
    take(slice(None))
    assert np.array_equal(out, took)
    theirs: list[tuple[str, Part]] = [("numpy take", take)]
    if count >= LONG:
        theirs.append(("a copy of the pfns", copying(pfns, copied)))
    return Operation(f"P2M, 64g, {order}, {count:,} pfns", "resolve", count, ours, theirs)


def translating(guest: Guest, pages: str, order: str, count: int) -> Operation:
    """Virtual addresses to machine addresses."""
    addresses = guest.addresses(pages, order, count)
    out, copied = np.empty(count, np.uint64), np.empty(count, np.uint64)
    translate = guest.spaces[pages].space.translate

    def ours(threads: int) -> None:
        translate(addresses, out=out, threads=threads)

    theirs = [("a copy of the addresses", copying(addresses, copied))]
    what = f"virtual, {pages}, 64g, {order}, {count:,} addresses"
    return Operation(what, "translate", count, ours, theirs)


def reading(guest: Guest, order: str, count: int, size: int = 64) -> Operation:
    """Objects in the direct map."""
    mapped = np.memmap(guest.about.path, np.uint8, "r")
    rows = mapped[: len(mapped) // size * size].reshape(-1, size)
    virtual = guest.spaces["4k"].space
    addresses = guest.addresses("4k", order, count) & ~np.uint64(size - 1)
    offsets = file_offsets(guest.dump, virtual.translate(addresses))
    indices = (offsets // np.uint64(size)).astype(np.intp)
    out, took = np.empty((count, size), np.uint8), np.empty((count, size), np.uint8)

    def take(part: slice) -> None:
        rows.take(indices[part], axis=0, out=took[part], mode="clip")

    def ours(threads: int) -> None:
        virtual.read_many(addresses, size, out=out, threads=threads)

    what = f"objects of {size} bytes, 4g, {order}, {count:,} objects"
    return Operation(what, "read_many", count, ours, [("numpy take from the file", take)])


def reading_domain(guest: Guest) -> Operation:
    """A domain's memory in its own order; numpy copies the mapped file in the file's order."""
    buffer, copied = np.empty(STEP, np.uint8), np.empty(STEP, np.uint8)
    mapped = np.memmap(guest.about.path, np.uint8, "r")[-READ:]

    def ours(threads: int) -> None:
        for at in range(0, READ, STEP):
            guest.physical.readinto(at, buffer, threads=threads)

    def copy(part: slice) -> None:
        for at in range(0, READ, STEP):
            np.copyto(copied[part], mapped[at : at + STEP][part])

    def of_bytes(part: slice) -> None:
        # The operation counts pages.
        pages = STEP // (READ // 4096)
        copy(slice(part.start * pages, part.stop * pages))

    name = "a copy of the mapped file"
    return Operation("a domain of 1 GiB", "readinto", READ // 4096, ours, [(name, of_bytes)])


def copying(source: Any, target: Any) -> Part:
    """A plain copy of a part."""
    return lambda part: np.copyto(target[part], source[part])


def operations() -> Iterator[Operation]:
    """What is measured on each number of threads."""
    guest = open_guest("64g")
    for order, count in (
        ("random", 1 << 16),
        ("random", 1 << 20),
        ("random", 1 << 24),
        ("sequential", 1 << 20),
        ("sequential", 1 << 24),
    ):
        yield resolving(guest, order, count)
    # Each thread finds the page tables of a batch for itself, so the size of the batch matters.
    for pages, order, count in (
        ("4k", "random", 1 << 20),
        ("4k", "random", 1 << 24),
        ("4k", "sequential", 1 << 24),
        ("2m", "random", 1 << 24),
    ):
        yield translating(guest, pages, order, count)
    small = open_guest("4g")
    for order in ("random", "kernel"):
        yield reading(small, order, 1 << 21)
    yield reading_domain(small)


def scaling(turns: int, counts: list[int]) -> Iterator[Pair]:
    """Each operation on each number of threads, in alternation with one thread, and with numpy on
    the same number."""
    for one in operations():
        for threads in counts:
            who = f"{one.who}, {plural(threads)}"
            ours, alone = partial(one.ours, threads), partial(one.ours, 1)
            with pinned(threads):
                if threads > 1:
                    times = in_turn(ours, alone, one.elements, turns, 2)
                    yield Pair(one.what, who, f"{one.who}, 1 thread", one.elements, *times)
                for name, part in one.theirs:
                    theirs = in_parts(one.elements, threads, part)
                    times = in_turn(ours, theirs, one.elements, turns, 2)
                    against = f"{name}, {plural(threads)}"
                    yield Pair(one.what, who, against, one.elements, *times)


def bandwidth(turns: int, counts: list[int]) -> Iterator[Figure]:
    """Plain copies by numpy: bytes read and written in a second."""
    source, target = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    for threads in counts:
        with pinned(threads):
            copy = in_parts(COPIED, threads, copying(source, target))
            best = min(clock(copy, 2 * COPIED) for _ in range(turns))
        yield Figure(f"numpy copies of memory, {plural(threads)}", 1 / best, "GB/s")


def small_batches(turns: int, most: int) -> Iterator[Pair]:
    """Small batches without ``threads``, and with the most, against one thread."""
    guest = open_guest("64g")
    space = guest.spaces["4k"].space
    calls: dict[str, tuple[Callable[..., object], Callable[[int], Any]]] = {
        "resolve": (guest.p2m.resolve, lambda count: guest.pfns("random", count)),
        "translate": (space.translate, lambda count: guest.addresses("4k", "random", count)),
    }
    for name, (call, arguments) in calls.items():
        # Summaries and tables are filled on demand.
        call(arguments(1 << 20), out=np.empty(1 << 20, np.uint64))
        for count in SMALL:
            batch, out = arguments(count), np.empty(count, np.uint64)
            repeated = (1 << 14) // count + 8

            def repeat(
                threads: int | None,
                call: Callable[..., object] = call,
                batch: Any = batch,
                out: Any = out,
                repeated: int = repeated,
            ) -> None:
                for _ in range(repeated):
                    call(batch, out=out, threads=threads)

            for who, threads in (("threads omitted", None), (f"threads={most}", most)):
                ours, alone = partial(repeat, threads), partial(repeat, 1)
                times = in_turn(ours, alone, count * repeated, 3 * turns, 5)
                what = f"{name}, batches of {count:,}"
                yield Pair(what, who, "threads=1", count, *times, wanted=EQUAL)


def table(found: list[Pair | Figure], counts: list[int]) -> str:
    """The ratios of the medians, a column for each number of threads."""
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for one in found:
        if isinstance(one, Figure):
            what, _, threads = one.what.rpartition(", ")
            row = rows.setdefault((what, one.unit), {})
            row[int(threads.split()[0])] = f"{one.value:.1f}"
        elif "thread" in one.ours and not one.ours.startswith("threads"):
            threads = one.ours.rpartition(", ")[2]
            against = one.theirs.rpartition(", ")[0]
            same = one.theirs == f"{one.ours.rpartition(', ')[0]}, 1 thread"
            row = rows.setdefault((one.what, "1 thread" if same else against), {})
            row[int(threads.split()[0])] = f"{statistics.median(one.ratios()):.2f}x"
    wide = max(len(f"{what} | {against}") for what, against in rows)
    lines = [f"{'what | against':{wide}} " + "".join(f"{count:>8}" for count in counts)]
    for (what, against), row in rows.items():
        cells = "".join(f"{row.get(count, ''):>8}" for count in counts)
        lines.append(f"{f'{what} | {against}':{wide}} {cells}")
    return "\n".join(lines)


def main() -> int:
    """Measures, or says why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("turns", type=int)
    parser.add_argument("--threads", help="the numbers of threads, separated by commas")
    parser.add_argument("--all", action="store_true", help="also with fewer than four cores")
    options = parser.parse_args()
    if len(CORES) < LEAST_CORES and not options.all:
        print(f"many_cores: this process may use {len(CORES)} cores only", file=sys.stderr)
        return 1
    if options.threads:
        counts = [int(count) for count in options.threads.split(",")]
    else:
        counts = [count for count in THREADS if count <= len(CORES)]
    found: list[Pair | Figure] = []

    def kept(measured: Iterator[Pair | Figure]) -> Iterator[Pair | Figure]:
        for one in measured:
            found.append(one)
            yield one

    emit(kept(bandwidth(options.turns, counts)))
    emit(kept(scaling(options.turns, counts)))
    emit(kept(small_batches(options.turns, max(counts))))
    say(f"cores: {len(CORES)}\n{table(found, counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
