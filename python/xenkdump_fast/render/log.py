"""``log`` as crash prints it, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.log import Log
from ..linux.log_line import LogLine


def lines(result: Log) -> Iterator[str]:
    """Message by message; the further lines of one are indented to where its first starts."""
    return (part for line in result.lines for part in _message(line))


def _message(line: LogLine) -> Iterator[str]:
    if line.text == "":
        yield ""  # crash gives a message without text no time either
        return
    prefix = "" if line.time is None else f"[{time(line.time)}] "
    first, *others = line.text.split("\n")
    yield prefix + first
    for other in others:
        yield " " * len(prefix) + other


def time(nanoseconds: int) -> str:
    """Seconds since boot, as dmesg pads them: ``    1.000250``."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds:5}.{rest // 1000:06}"


def json(result: Log) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"domain": result.domain, "lines": list(map(_line_json, result.lines))}


def lazy_json(result: Log) -> dict[str, Any]:
    """The same, its list an iterator."""
    return {"domain": result.domain, "lines": map(_line_json, result.lines)}


def _line_json(line: LogLine) -> dict[str, Any]:
    found: dict[str, Any] = {
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
