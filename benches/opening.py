"""Time and memory of opening, of first batches, and of passes over a whole domain.

``python -m benches.opening TURNS`` measures. Each memory measurement runs in a separate process:
``python -m benches.opening --only NAME GUEST``.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from xenkdump_fast._native import Dump

from . import synthetic
from .guests import folder, open_p2m, open_uncached
from .pairing import Call, Figure, clock, cores, emit
from .synthetic import DIRECT, PAGE, SHAPES, SyntheticGuest, Words

MILLISECOND = 1e6
FIRST = 1 << 16


def memory(field: str) -> int:
    """Memory of this process in KiB: VmHWM (peak), RssAnon (anonymous), RssFile (mapped files)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def opening(about: SyntheticGuest) -> object:
    """Opens everything and makes one query of each kind."""
    dump, p2m = open_p2m(about)
    virtual = dump.virtual(about.root, "x86_64")
    p2m.resolve(0)
    virtual.translate(DIRECT)
    return dump, p2m, virtual


def resolving_all(about: SyntheticGuest) -> object:
    """Resolves every pfn, with reused arrays."""
    opened = open_p2m(about)
    step = 1 << 16
    out, status = np.empty(step, np.uint64), np.empty(step, np.uint8)
    for first in range(0, about.pages, step):
        opened[1].resolve(np.arange(first, first + step, dtype=np.uint64), out=out, status=status)
    return opened


def resolving_at_random(about: SyntheticGuest) -> object:
    """Resolves random pfns, as many as the guest has pages."""
    opened = open_p2m(about)
    step = 1 << 16
    rng = np.random.default_rng(1)
    status = np.empty(step, np.uint8)
    for _ in range(0, about.present, step):
        opened[1].resolve(rng.integers(0, about.pages, step, dtype=np.uint64), status=status)
    return opened


def reading_all(about: SyntheticGuest) -> object:
    """Reads every byte of the domain, 16 MiB at a time."""
    dump, p2m = open_p2m(about)
    physical = dump.physical(p2m)
    buffer = np.empty(16 << 20, np.uint8)
    for at in range(0, about.present * PAGE, len(buffer)):
        physical.readinto(at, buffer)
    return physical


#: The measurements in separate processes. Each returns the objects that it holds at the end.
ALONE: dict[str, Callable[[SyntheticGuest], object]] = {
    "opening": opening,
    "every pfn in sequence": resolving_all,
    "as many pfns at random": resolving_at_random,
    "every byte": reading_all,
}


def alone(name: str, guest: str) -> None:
    """Runs one of ``ALONE`` in this process and prints its cost."""
    about = synthetic.write_guest(folder(), guest)
    before = {field: memory(field) for field in ("RssAnon", "RssFile")}
    start = time.perf_counter_ns()
    kept = ALONE[name](about)
    took = time.perf_counter_ns() - start
    after = {field: memory(field) - was for field, was in before.items()}
    del kept
    print(json.dumps({"ns": took, "peak": memory("VmHWM"), **after}))


def in_processes(turns: int) -> Iterator[Figure]:
    """The cost of each of ``ALONE``, in a separate process."""
    measurements = [("opening", guest) for guest in SHAPES]
    measurements += [(name, guest) for name in list(ALONE)[1:3] for guest in ("64g", "1t")]
    measurements += [("every byte", "4g")]
    for name, guest in measurements:
        command = [sys.executable, "-m", "benches.opening", "--only", name, guest]
        found = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(turns if name == "opening" else 1)
        ]
        middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
        what = f"{name}, {guest}"
        yield Figure(f"{what}: time", middle["ns"] / MILLISECOND, "ms")
        yield Figure(f"{what}: anonymous memory", middle["RssAnon"] / 1024, "MiB")
        yield Figure(f"{what}: mapped pages of the file", middle["RssFile"] / 1024, "MiB")
        yield Figure(f"{what}: peak of the whole process", middle["peak"] / 1024, "MiB")


def first_batches(turns: int) -> Iterator[Figure]:
    """The first batch after opening compared with later ones, and with a cold page cache."""
    for guest in SHAPES:
        opened = open_uncached(guest)
        pfns = opened.pfns("random", FIRST)
        addresses = opened.addresses("4k", "random", FIRST)
        del opened
        found: dict[str, list[float]] = {}
        for turn in range(turns + 3):
            # Only three times with a cold page cache, which is slow.
            uncached = turn < 3
            if uncached and not drop_cache(synthetic.write_guest(folder(), guest)):
                continue
            for what, ns in one_turn(batches(guest, pfns, addresses), uncached):
                found.setdefault(f"{what}, {guest}, random", []).append(ns)
        for what, times in sorted(found.items()):
            yield Figure(what, statistics.median(times), "ns per address")


def one_turn(calls: dict[str, Call], uncached: bool) -> Iterator[tuple[str, float]]:
    """The times of the first and the tenth batch of each call."""
    for what, call in calls.items():
        first = f"first batch of {FIRST}" + ", page cache cold" * uncached
        yield f"{first}: {what}", clock(call, FIRST, 1)
        if not uncached:
            for _ in range(8):
                call()
            yield f"tenth batch: {what}", clock(call, FIRST, 1)


def batches(guest: str, pfns: Words, addresses: Words) -> dict[str, Call]:
    """The queries on a newly opened guest."""
    opened = open_uncached(guest)
    translate = opened.spaces["4k"].space.translate
    out = np.empty(FIRST, np.uint64)
    return {
        "P2M": lambda: opened.p2m.resolve(pfns, out=out, threads=1),
        "virtual, 4k": lambda: translate(addresses, out=out, threads=1),
    }


def drop_cache(about: SyntheticGuest) -> bool:
    """Drops the file's pages from the page cache; False if that is not possible."""
    if not hasattr(os, "posix_fadvise"):
        return False
    file = os.open(about.path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
    return True


def opening_again(turns: int) -> Iterator[Figure]:
    """Time of opening in a process that has opened the guest before."""
    for guest in SHAPES:
        about = synthetic.write_guest(folder(), guest)
        times = []
        for _ in range(4 * turns):
            start = time.perf_counter_ns()
            Dump(about.path)
            times.append(time.perf_counter_ns() - start)
        yield Figure(f"opening the file, {guest}", statistics.median(times) / 1000, "µs")


def main() -> None:
    """Runs all measurements, or a single one in this process."""
    if sys.argv[1] == "--only":
        alone(*sys.argv[2:])
        return
    turns = int(sys.argv[1])
    with cores(1):
        emit(opening_again(turns))
        emit(in_processes(min(turns, 5)))
        emit(first_batches(turns))


if __name__ == "__main__":
    main()
