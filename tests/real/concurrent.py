"""Compares concurrent readers of one dump (16 threads, 8 processes) with a single reader.

``python -m tests.real.concurrent vmcore vmlinux --seconds 60``
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import xenkdump_fast
from tests import rendering
from xenkdump_fast import Domain
from xenkdump_fast.commands import bt, check, domains, log, mod, notes, ps, sys, vcpus
from xenkdump_fast.session import DumpFile

THREADS, PROCESSES = 16, 8
PAGE = 4096
#: Pages translated per batch, and pages read per batch.
BATCH, ROWS = 50_000, 2_000


class Dump(NamedTuple):
    """A dump and the state shared by all readers in a process."""

    vmcore: str
    vmlinux: str
    domain: Domain


def opened(vmcore: str, vmlinux: str) -> Dump:
    """Opens domain 0."""
    return Dump(vmcore, vmlinux, xenkdump_fast.open(vmcore).domain(0, vmlinux))


def _batch(dump: Dump) -> bytes:
    """The results of one batch: translations, statuses, bytes."""
    kernel = dump.domain.kernel
    tasks = np.array([p.task.address for p in ps.run(dump.domain).processes], dtype=np.uint64)
    start = np.uint64(int(tasks.min()) & -PAGE)
    addresses = start + np.arange(BATCH, dtype=np.uint64) * np.uint64(PAGE // 8)
    status = np.zeros(BATCH, dtype=np.uint8)
    found = kernel.virtual.translate(addresses, status=status, threads=2)
    read = np.zeros(ROWS, dtype=np.uint8)
    rows = kernel.virtual.read_many(addresses[:: BATCH // ROWS], 64, status=read, threads=2)
    return b"".join(part.tobytes() for part in (found, status, rows, read))


def _p2m(dump: Dump) -> bytes:
    if not dump.domain.has_p2m:
        return b""
    p2m = dump.domain.p2m
    pfns = np.arange(min(p2m.pages, 4 * BATCH), dtype=np.uint64)
    status = np.zeros(len(pfns), dtype=np.uint8)
    mfns = p2m.resolve(pfns, status=status, threads=2)
    back = p2m.reverse(mfns[status == 0][:100])
    return b"".join(part.tobytes() for part in (mfns, status, back))


def _names(dump: Dump) -> list[object]:
    symbols, types = dump.domain.kernel.symbols, dump.domain.kernel.types
    text = symbols["linux_banner"]
    near = [symbols.lookup(text + 16 * i) for i in range(200)]
    layout = [types.offset(f"task_struct.{name}") for name in ("pid", "comm", "mm")]
    return [[symbol and symbol.name for symbol in near], layout]


#: Queries on the dump that all threads share.
SHARED: dict[str, Callable[[Dump], object]] = {
    "bt": lambda dump: rendering.json(bt.run(dump.domain, bt.Options(all=True))),
    "ps": lambda dump: rendering.json(ps.run(dump.domain)),
    "log": lambda dump: rendering.json(log.run(dump.domain)),
    "sys": lambda dump: rendering.json(sys.run(dump.domain)),
    "mod": lambda dump: rendering.json(mod.run(dump.domain)),
    "notes": lambda dump: rendering.json(notes.run(dump.domain.dump)),
    "batch": _batch,
    "P2M": _p2m,
    "names": _names,
}
#: Queries that open the dump again.
ALONE: dict[str, Callable[[Dump], object]] = {
    "domains": lambda dump: rendering.json(domains.run(DumpFile(dump.vmcore))),
    "vcpus": lambda dump: rendering.json(vcpus.run(DumpFile(dump.vmcore))),
    "check": lambda dump: rendering.json(
        check.run(xenkdump_fast.open(dump.vmcore), check.Options(0, dump.vmlinux))
    ),
    "bt, newly opened": lambda dump: SHARED["bt"](opened(dump.vmcore, dump.vmlinux)),
    "batch, newly opened": lambda dump: _batch(opened(dump.vmcore, dump.vmlinux)),
}


def digest(query: str, dump: Dump) -> str:
    """A hash of a query's result. An error is hashed like a result."""
    run = SHARED.get(query) or ALONE[query]
    try:
        result = run(dump)
    except xenkdump_fast.AbsentError as error:
        result = f"{type(error).__name__}: {error}"
    data = result if isinstance(result, bytes) else json.dumps(result, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


class Tally:
    """The results of one process: the number of runs of each query, and the differences."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def count(self, query: str, wrong: str | None) -> None:
        """Counts one result."""
        with self.lock:
            self.runs[query] += 1
            if wrong is not None:
                self.wrong.append(wrong)


def run_queries(
    dump: Dump, expected: dict[str, str], until: float, seed: int, tally: Tally
) -> None:
    """Runs random queries until the time is up, each at least once."""
    chance = random.Random(seed)
    todo = chance.sample(sorted(expected), len(expected))
    while todo or time.monotonic() < until:
        query = todo.pop() if todo else chance.choice(sorted(expected))
        try:
            same = digest(query, dump) == expected[query]
            wrong = None if same else f"{query}: another result"
        except Exception as error:
            wrong = f"{query}: {error!r}"
        tally.count(query, wrong and f"{os.getpid()}/{seed}: {wrong}")


def threads(dump: Dump, expected: dict[str, str], seconds: float, count: int) -> Tally:
    """Runs several threads on one opened dump."""
    tally, until = Tally(), time.monotonic() + seconds
    running = [
        threading.Thread(target=run_queries, args=(dump, expected, until, seed, tally))
        for seed in range(count)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return tally


def _process(
    paths: tuple[str, str], expected: dict[str, str], seconds: float
) -> tuple[Counter[str], list[str]]:
    tally = threads(opened(*paths), expected, seconds, 1)
    return tally.runs, tally.wrong


def read_concurrently(
    vmcore: str, vmlinux: str, seconds: float, count: int = THREADS, processes: int = PROCESSES
) -> tuple[Counter[str], list[str]]:
    """The number of runs of each query, and the results that differ from a single reader's."""
    single = opened(vmcore, vmlinux)
    expected = {query: digest(query, single) for query in (*SHARED, *ALONE)}
    again = {query: digest(query, single) for query in (*SHARED, *ALONE)}
    assert again == expected, "the results of a single reader differ"
    paths = (vmcore, vmlinux)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        others = [pool.apply_async(_process, (paths, expected, seconds)) for _ in range(processes)]
        # The threads share a dump that has not been read yet.
        tally = threads(opened(vmcore, vmlinux), expected, seconds, count)
        for other in others:
            runs, wrong = other.get(timeout=600 + seconds)
            tally.runs += runs
            tally.wrong += wrong
    return tally.runs, tally.wrong


def main() -> int:
    """Prints the number of runs of each query and the results that differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vmcore")
    parser.add_argument("vmlinux")
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    runs, wrong = read_concurrently(given.vmcore, given.vmlinux, given.seconds)
    for query, count in sorted(runs.items()):
        print(f"{count:8} {query}")
    print(f"{sum(runs.values()):8} in total, {len(wrong)} of them wrong")
    for text in wrong[:20]:
        print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
