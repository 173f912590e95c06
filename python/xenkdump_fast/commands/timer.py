"""``timer``: pending timers."""

import argparse
from collections.abc import Iterator, Sequence

from .._typing import NamedTuple, NotRequired, TypedDict
from ..linux.timers import Base, CpuBase, Timer, Timers
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..output.table import table
from ..session import Domain
from . import cpu_lists

_PARTIAL = "  (not complete)"


class Options(NamedTuple):
    """Which timers."""

    #: High-resolution timers.
    high_resolution: bool = False
    #: CPUs as in "0,3-4"; None for all.
    cpus: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``timer``."""
    parser.add_argument(
        "-r", "--high-resolution", action="store_true", help="high-resolution timers (hrtimer)"
    )
    parser.add_argument("-C", "--cpus", metavar="CPUS", help="only these CPUs, as in 0,3-4")


def run(target: Domain, options: Options = Options()) -> "Wheel | HighResolution":
    """Reads the timers. AbsentError if the types are not known or there is no such CPU."""
    kernel = target.kernel
    _ = kernel.unwinder  # loads the symbols of modules, which name functions
    timers = Timers(kernel)
    cpus = cpu_lists.chosen(options.cpus, timers.areas)
    if options.high_resolution:
        return HighResolution(target.id, kernel.word, timers.high_resolution(cpus))
    return Wheel(target.id, kernel.word, timers.jiffies, timers.wheel(cpus))


class TimerJson(TypedDict):
    """A timer. ``soft_expires`` only of a high-resolution one."""

    timer: Hex
    expires: int
    soft_expires: NotRequired[int]
    function: Hex
    name: str | None


class BaseJson(TypedDict):
    """The timers of a CPU in one base or by one clock.

    ``now`` is the time, in jiffies or nanoseconds; null if it is not known.
    """

    cpu: Count
    base: str
    address: Hex
    now: int | None
    complete: bool
    timers: list[TimerJson]


class JSON(TypedDict):
    """What ``timer --json`` prints."""

    domain: Count
    bases: list[BaseJson]


class Wheel(NamedTuple):
    """The timers of the timer wheel."""

    domain: int
    word: int
    jiffies: int
    bases: Sequence[Base]

    def text(self) -> Iterator[str]:
        """As crash prints them, the next one first."""
        yield "JIFFIES"
        yield str(self.jiffies)
        cpu = None
        for base in self.bases:
            if base.cpu != cpu:
                yield ""
            cpu = base.cpu
            yield f"TIMER_BASES[{base.cpu}][{base.name}]: {base.address:x}"
            head = ("  EXPIRES", "TTE", f"{'TIMER_LIST':^{2 * self.word}}", "FUNCTION")
            rows = [
                (
                    f"  {one.expires}",
                    str(one.expires - self.jiffies),
                    f"{one.address:x}",
                    _function(one),
                )
                for one in base.timers
            ]
            if rows:
                yield from table([head, *rows], (1,))
            elif base.complete:
                yield "  (none)"
            if not base.complete:
                yield _PARTIAL

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "bases": [_base(base, False) for base in self.bases]}


class HighResolution(NamedTuple):
    """High-resolution timers."""

    domain: int
    word: int
    cpus: Sequence[CpuBase]

    def text(self) -> Iterator[str]:
        """As crash prints them."""
        for i, cpu in enumerate(self.cpus):
            if i:
                yield ""
            yield f"CPU: {cpu.cpu}  HRTIMER_CPU_BASE: {cpu.address:x}"
            for j, base in enumerate(cpu.clocks):
                if j:
                    yield ""
                yield from self._clock(base)

    def _clock(self, base: Base) -> Iterator[str]:
        name = "" if base.clock is None else f"  [{visible(base.clock)}]"
        yield f"  CLOCK: {base.name}  HRTIMER_CLOCK_BASE: {base.address:x}{name}"
        if base.timers:
            now = "?" if base.now is None else str(base.now)
            head = ("SOFTEXPIRES", "EXPIRES", "TTE", f"{'HRTIMER':^{2 * self.word}}", "FUNCTION")
            rows = [
                (
                    str(one.soft_expires),
                    str(one.expires),
                    "?" if base.now is None else str(one.expires - base.now),
                    f"{one.address:x}",
                    _function(one),
                )
                for one in base.timers
            ]
            width = max(len(cell) for cell in ("SOFTEXPIRES", now, *(row[0] for row in rows)))
            yield f"  {'CURRENT':^{width}}".rstrip()
            yield f"  {now:>{width}}"
            yield from (f"  {line}" for line in table([head, *rows], (0, 1, 2)))
        elif base.complete:
            yield "  (empty)"
        if not base.complete:
            yield _PARTIAL

    def json(self) -> JSON:
        """The same."""
        bases = [_base(base, True) for cpu in self.cpus for base in cpu.clocks]
        return {"domain": self.domain, "bases": bases}


def _function(timer: Timer) -> str:
    name = "" if timer.name is None else f"  <{visible(timer.name)}>"
    return f"{timer.function:x}{name}"


def _base(base: Base, precise: bool) -> BaseJson:
    return {
        "cpu": base.cpu,
        "base": base.name,
        "address": hex(base.address),
        "now": base.now,
        "complete": base.complete,
        "timers": [_timer(timer, precise) for timer in base.timers],
    }


def _timer(timer: Timer, precise: bool) -> TimerJson:
    found: TimerJson = {
        "timer": hex(timer.address),
        "expires": timer.expires,
        "function": hex(timer.function),
        "name": timer.name,
    }
    if precise:
        found["soft_expires"] = timer.soft_expires
    return found
