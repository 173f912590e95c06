"""Two ways to the same thing, in turn: one of ours, one of theirs, one of ours, ...

What else the machine does then slows both, and the ratio of each turn is worth something even where
the times are not.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

#: The cores that this process may use at all.
CORES = sorted(os.sched_getaffinity(0))
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Pair:
    """What came of the turns."""

    #: What was done.
    what: str
    #: Who did it: this package and how, and who else.
    ours: str
    theirs: str
    #: How many elements a call had.
    elements: int
    #: Nanoseconds an element, turn by turn.
    ours_ns: list[float]
    theirs_ns: list[float]
    #: How many times as fast as theirs ours has to be; or how many nanoseconds more it may take.
    wanted: float | None = None
    most_more_ns: float | None = None

    def ratios(self) -> list[float]:
        """How many times as fast ours was, turn by turn."""
        return [b / a for a, b in zip(self.ours_ns, self.theirs_ns, strict=True)]

    def more_ns(self) -> list[float]:
        """How much longer ours took, turn by turn."""
        return [a - b for a, b in zip(self.ours_ns, self.theirs_ns, strict=True)]

    def met(self) -> bool | None:
        """Whether the median is as wanted; None if nothing was."""
        if self.wanted is not None:
            return statistics.median(self.ratios()) >= self.wanted
        if self.most_more_ns is not None:
            return statistics.median(self.more_ns()) <= self.most_more_ns
        return None


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement that has nobody to stand beside."""

    what: str
    value: float
    unit: str


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Keeps this thread, and what it starts, to so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def clock(call: Call, elements: int, calls: int = 3) -> float:
    """Nanoseconds an element of the quickest of some calls."""
    best = 1 << 62
    for _ in range(calls):
        start = time.perf_counter_ns()
        call()
        best = min(best, time.perf_counter_ns() - start)
    return best / elements


def in_turn(
    ours: Call, theirs: Call, elements: int, turns: int, calls: int = 3
) -> tuple[list[float], list[float]]:
    """The times of both. Before each turn is a call that does not count: it warms what the other
    has cooled."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for call, times in zip((ours, theirs), found, strict=True):
            call()
            # The first turn is for tables that are filled as they are asked.
            took = clock(call, elements, calls)
            if turn > 0:
                times.append(took)
    return found


def say(text: str) -> None:
    """Tells what is being done."""
    print(f"benches: {text}", file=sys.stderr, flush=True)


def emit(found: Iterable[Pair | Figure]) -> None:
    """Writes what was measured, a line each, for ``run.py``."""
    for one in found:
        say(describe(one))
        print(json.dumps(asdict(one)), flush=True)


def describe(one: Pair | Figure) -> str:
    """A line for people."""
    if isinstance(one, Figure):
        return f"{one.what}: {one.value:.1f} {one.unit}"
    ratios = one.ratios()
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    return f"{one.what}, {one.ours}: {median:.2f}x ({low:.2f} to {high:.2f}) {one.theirs}"


def parse(line: str) -> Pair | Figure:
    """A line of ``emit``, or of the core's ``pairs``."""
    found = json.loads(line)
    return Figure(**found) if "unit" in found else Pair(**found)
