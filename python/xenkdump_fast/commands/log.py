"""``log``: the kernel's log, or Xen's console."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, NotRequired, TypedDict, overload

from ..linux import printk
from ..linux.printk.message import Lines, LogLine
from ..output.json_types import Count, Stream
from ..session import Domain

if TYPE_CHECKING:
    from ..xen.console import Console
    from ..xen.host import XenHost


class Options(NamedTuple):
    """``log`` has no options."""


@overload
def run(target: Domain, options: Options = ...) -> "Log": ...


@overload
def run(target: "XenHost", options: Options = ...) -> "XenLog": ...


def run(target: "Domain | XenHost", options: Options = Options()) -> "Log | XenLog":
    """Reads the messages; AbsentError if there is no log."""
    if isinstance(target, Domain):
        return Log(target.id, printk.lines(target.kernel))
    from ..xen import console

    return XenLog(console.read(target))


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

    def text(self) -> Iterator[str]:
        """The messages as crash prints them; continuation lines are indented."""
        return (part for line in self.lines for part in _message(line))

    def json(self) -> JSON:
        """The domain and its messages."""
        return {"domain": self.domain, "lines": map(_line_json, self.lines)}


def _message(line: LogLine) -> Iterator[str]:
    if line.text == "":
        yield ""  # without a time, as in crash
        return
    prefix = "" if line.time is None else f"[{time(line.time)}] "
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
