"""``log``: the kernel's log, or Xen's console."""

import argparse
from collections.abc import Iterator
from itertools import islice

from .._typing import TYPE_CHECKING, Literal, NamedTuple, NotRequired, TypedDict, overload
from ..linux import clock, printk
from ..linux.printk.message import Lines, LogLine
from ..output.json_types import Count, Stream
from ..parsing import number
from ..session import Domain
from .contract import UsageError

if TYPE_CHECKING:
    from ..xen.console_ring import Console
    from ..xen.host import XenHost


#: Names of levels (include/linux/kern_levels.h), from 0 up, as dmesg has them.
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")


class Options(NamedTuple):
    """The messages to print, and their times."""

    #: Only messages of this level or a more severe one, and those whose level is lost.
    level: int | None = None
    #: Only the last messages.
    last: int | None = None
    #: Dates in place of seconds since boot.
    dates: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``log``."""
    add = parser.add_argument
    add("--level", type=_level, help="only messages as severe as this: emerg to debug, or 0 to 7")
    add("-n", type=_count, dest="last", metavar="N", help="only the last N messages")
    add("-T", action="store_true", dest="dates", help="dates in place of seconds since boot")


def _level(text: str) -> int:
    level = _LEVELS.index(text) if text in _LEVELS else number(text)
    if level is None or not 0 <= level < len(_LEVELS):
        raise argparse.ArgumentTypeError(f"{text!r}; available: {', '.join(_LEVELS)}, or 0 to 7")
    return level


def _count(text: str) -> int:
    count = number(text)
    if count is None or count < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of messages")
    return count


@overload
def run(target: Domain, options: Options = ...) -> "Log": ...


@overload
def run(target: "XenHost", options: Options = ...) -> "XenLog": ...


def run(target: "Domain | XenHost", options: Options = Options()) -> "Log | XenLog":
    """Reads the messages; AbsentError if there is no log, or no date for ``dates``."""
    if isinstance(target, Domain):
        kernel = target.kernel
        booted = clock.date(kernel) - clock.uptime(kernel) if options.dates else None
        return Log(target.id, _selected(printk.lines(kernel), options), booted)
    if options != Options():
        raise UsageError("--level, -n and -T are not available with --hypervisor")
    from ..xen import console

    return XenLog(console.read(target))


def _selected(lines: Lines, options: Options) -> Lines:
    """The messages that the options ask for."""
    level, last = options.level, options.last
    found = lines
    if level is not None:
        found = Lines(lambda: (line for line in lines if line.level is None or line.level <= level))
    if last is None:
        return found
    first = max(0, sum(1 for _ in found) - last)
    return Lines(lambda: islice(found, first, None))


class LineJson(TypedDict):
    """A message."""

    sequence: Count
    time_ns: Count | None
    level: Count | None
    text: str
    caller: NotRequired[str]
    lost: NotRequired[Literal[True]]


class JSON(TypedDict):
    """What ``log --json`` prints."""

    domain: Count
    lines: Stream[LineJson]


class Log(NamedTuple):
    """The messages of a kernel."""

    domain: int
    lines: Lines
    #: When it was booted, in seconds since 1970, for dates in the text.
    booted: int | None = None

    def text(self) -> Iterator[str]:
        """The messages as crash prints them; continuation lines are indented."""
        return (part for line in self.lines for part in _message(line, self.booted))

    def json(self) -> JSON:
        """The domain and its messages."""
        return {"domain": self.domain, "lines": map(_line_json, self.lines)}


def _message(line: LogLine, booted: int | None) -> Iterator[str]:
    if line.text == "":
        yield ""  # without a time, as in crash
        return
    prefix = ""
    if line.time is not None:
        when = time(line.time)
        if booted is not None:
            when = clock.date_text(min(booted + line.time // 10**9, clock.LAST_SECOND))
        prefix = f"[{when}] "
    first, *others = line.text.split("\n")
    yield prefix + first
    for other in others:
        yield " " * len(prefix) + other


def time(nanoseconds: int) -> str:
    """Seconds since boot, padded as by dmesg: ``    1.000250``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds:5}.{rest // 1000:06}"


def _line_json(line: LogLine) -> LineJson:
    found: LineJson = {
        "sequence": line.sequence,
        "time_ns": line.time,
        "level": line.level,
        "text": line.text,
    }
    if line.caller is not None:
        found["caller"] = line.caller
    if line.lost:
        found["lost"] = True
    return found


class HYPERVISOR_JSON(TypedDict):  # noqa: N801 - see the contract
    """What ``log --hypervisor --json`` prints."""

    found_by: str
    overwritten: bool
    lines: list[str]


class XenLog(NamedTuple):
    """Xen's console."""

    console: "Console"

    def text(self) -> Iterator[str]:
        """The lines, as ``xl dmesg`` prints them."""
        return iter(self.console.lines)

    def json(self) -> HYPERVISOR_JSON:
        """The lines, and how they were found."""
        console = self.console
        return {
            "found_by": console.how,
            "overwritten": console.overwritten,
            "lines": console.lines,
        }
