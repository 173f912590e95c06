"""Alternating measurements of two implementations: ours, theirs, ours, ...

Other load slows both, so that the ratio of each turn is meaningful even if the times are not.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

#: The cores that this process may use.
CORES = sorted(os.sched_getaffinity(0))
Call = Callable[[], object]
Timer = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Pair:
    """The result of the turns."""

    #: The operation.
    what: str
    #: The two implementations: this package, with details, and the peer.
    ours: str
    theirs: str
    #: The number of elements per call.
    elements: int
    #: Nanoseconds per element, by turn.
    ours_ns: list[float]
    theirs_ns: list[float]
    #: The required speedup over the peer, or the permitted overhead in nanoseconds.
    wanted: float | None = None
    most_more_ns: float | None = None
    #: The part of ``run.py`` that measured it.
    part: str = ""

    def ratios(self) -> list[float]:
        """Our speedup over the peer, by turn."""
        return [b / a for a, b in zip(self.ours_ns, self.theirs_ns, strict=True)]

    def more_ns(self) -> list[float]:
        """Our overhead over the peer, by turn."""
        return [a - b for a, b in zip(self.ours_ns, self.theirs_ns, strict=True)]

    def met(self) -> bool | None:
        """Whether the median meets the target; None without a target."""
        if self.wanted is not None:
            return statistics.median(self.ratios()) >= self.wanted
        if self.most_more_ns is not None:
            return statistics.median(self.more_ns()) <= self.most_more_ns
        return None


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement without a peer."""

    what: str
    value: float
    unit: str
    part: str = ""


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Restricts this thread, and the threads and processes it starts, to ``count`` cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def clock(call: Call, elements: int, calls: int = 3, timer: Timer = time.perf_counter_ns) -> float:
    """Nanoseconds per element of the fastest of several calls."""
    best = 1 << 62
    for _ in range(calls):
        start = timer()
        call()
        best = min(best, timer() - start)
    return best / elements


def in_turn(
    ours: Call,
    theirs: Call,
    elements: int,
    turns: int,
    calls: int = 3,
    timer: Timer = time.perf_counter_ns,
) -> tuple[list[float], list[float]]:
    """The times of both, by a clock in nanoseconds. An untimed call precedes each measurement: it
    refills the caches that the other side evicted."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for call, times in zip((ours, theirs), found, strict=True):
            call()
            # The first turn fills tables that are filled on demand.
            took = clock(call, elements, calls, timer)
            if turn > 0:
                times.append(took)
    return found


def say(text: str) -> None:
    """Prints the current step."""
    print(f"benches: {text}", file=sys.stderr, flush=True)


def missing(what: str) -> None:
    """Names something that is not measured, for ``run.py``."""
    say(f"not measured: {what}")
    print(json.dumps({"missing": what}), flush=True)


def emit(found: Iterable[Pair | Figure]) -> None:
    """Writes the measurements, one per line, for ``run.py``."""
    for one in found:
        say(describe(one))
        print(json.dumps(asdict(one)), flush=True)


def describe(one: Pair | Figure) -> str:
    """A human-readable line."""
    if isinstance(one, Figure):
        return f"{one.what}: {one.value:.1f} {one.unit}"
    ratios = one.ratios()
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    times = (statistics.median(one.ours_ns), statistics.median(one.theirs_ns))
    return (
        f"{one.what}, {one.ours}: {median:.2f}x ({low:.2f} to {high:.2f}) {one.theirs}"
        f" ({times[0]:.3g} ns, {times[1]:.3g} ns)"
    )


def parse(line: str) -> Pair | Figure:
    """Parses a line of ``emit``, or of the core's ``pairs``."""
    found = json.loads(line)
    return Figure(**found) if "unit" in found else Pair(**found)
