"""What explains a missed target: another measurement, or the time that is added to the peer's.

Each explanation is taken from the measurements, so that it cannot be older than the result.
"""

import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .pairing import Pair


@dataclass(frozen=True, slots=True)
class Floor:
    """A lower bound: a measurement that does less than the pair, on the same elements."""

    #: Patterns of the pair's ``what`` and ``theirs``.
    what: str
    theirs: str
    #: The other side of the pair with the bound.
    floor: str
    #: What the bound is the time of.
    why: str


FLOORS = (
    Floor(
        "P2M, .*, sequential|P2M shape: .*, sequential",
        "numpy take",
        "a copy of the pfns",
        "a copy of the batch, without any lookup",
    ),
    Floor(
        "P2M shape: .*",
        "numpy take",
        "an unchecked table, 32 bits",
        "lookups in a prepared table of 32 bits for each pfn, without checks",
    ),
    Floor(
        "P2M.*",
        "numpy take",
        "numpy take, 32 bits",
        "numpy's unchecked take from a prepared table of 32 bits for each pfn",
    ),
    Floor(
        "objects .*|.* bytes, .*|.* members .*",
        "a loop over read|drgn|libkdumpfile",
        "prefetched loads at known offsets",
        "prefetched loads from the mapped file at known offsets: no translation, no checks",
    ),
    Floor(
        "objects .*|.* bytes, .*|.* members .*",
        "a loop over read|drgn|libkdumpfile",
        "numpy take from the file",
        "numpy's take from the mapped file, with the offsets as input: no translation, no checks",
    ),
    Floor(
        "a whole dump in sequence, .*, elapsed time",
        "the decoder alone, 1 thread",
        "the decoder alone, 2 threads",
        "the decoder alone, on two threads in the same turns",
    ),
    Floor(
        "bt -a, .*",
        "drgn|crash|xkdump, the raw dump|python -c .*",
        "the start of Python and argparse",
        "the start of Python with argparse, before a command does anything",
    ),
)


def explanation(pair: Pair, pairs: Iterable[Pair]) -> str:
    """What explains that this pair misses its target; empty if nothing in the run does."""
    known = list(pairs)
    theirs = statistics.median(pair.theirs_ns)
    for rule in FLOORS:
        if not (re.fullmatch(rule.what, pair.what) and re.fullmatch(rule.theirs, pair.theirs)):
            continue
        # The same threads and batch, or else the same operation.
        bounds = [one for one in known if one.what == pair.what and one.theirs == rule.floor]
        bounds.sort(key=lambda one: (one.ours != pair.ours, one.elements != pair.elements))
        for bound in bounds[:1]:
            floor = statistics.median(bound.theirs_ns)
            return f"{rule.why}, would be {theirs / floor:.3g}x"
    if pair.theirs.startswith("the decoder alone"):
        more = statistics.median(pair.more_ns())
        return f"the reader adds {more:.0f} ns to a page: copies and the look-up"
    if pair.what.startswith("bt -a"):
        return "the parts of the command: see [the profile](profile.md)"
    return ""


def rows(pairs: Iterable[Pair]) -> Iterator[list[str]]:
    """For each missed target: operation, peer, target, result, explanation."""
    known = list(pairs)
    for pair in known:
        if pair.met() is not False:
            continue
        middle = statistics.median(pair.ratios())
        if pair.wanted is None:
            target = f"{pair.most_more_ns:g} ns more"
            result = f"{statistics.median(pair.more_ns()):.0f} ns more"
        elif pair.what.startswith("bt -a") and pair.wanted < 1:
            target, result = f"{1 / pair.wanted:.3g} times its time", f"{1 / middle:.2f} times"
        else:
            target, result = f"{pair.wanted:.3g}x", f"{middle:.2f}x"
        why = explanation(pair, known)
        yield [f"{pair.what}: {pair.ours}", pair.theirs, target, result, why]
