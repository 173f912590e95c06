"""Parts of a document that several sections have."""

import re
from collections.abc import Sequence

from ..linux.clock import date_text
from ..output.json_types import Registers
from .blocks import Line, Lines, Mark, Span, Table
from .model import Frame, Log, LogLine

#: Names of the levels of messages, from 0 up, as dmesg has them.
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
#: Registers in a row.
_COLUMNS = 4


def size(octets: int) -> str:
    """A size: ``512 KiB``, ``1.5 GiB``."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB")):
        if octets >= unit:
            return f"{octets / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{octets // 1024} KiB"


def date(seconds: int | None) -> str | None:
    """A date."""
    return None if seconds is None else date_text(seconds)


def duration(seconds: int | None) -> str | None:
    """Days, hours, minutes and seconds."""
    if seconds is None:
        return None
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} days, {clock}" if days else clock


def frame_line(number: int, frame: Frame, domain: int | None, *, link: bool = True) -> Line:
    """A frame of a stack; its function links to the tasks that are in it."""
    if frame["user"]:
        where = "[guest]" if domain is None else "[user space]"
        return Line([Span(f"     {where} {frame['pc']}", mark="dim")])
    name = frame["symbol"]
    shown = "(unknown)" if name is None else f"{name}+{frame['offset']:#x}"
    to = None
    if link and name is not None and domain is not None:
        to = function_id(domain, name)
    found = [Span(f"{f'#{number}':>4} "), Span(shown, to=to)]
    if frame["module"] is not None:
        found.append(Span(f" [{frame['module']}]"))
    if frame["interrupted"]:
        found.append(Span(" (interrupted)", mark="strong"))
    found.append(Span(f" {frame['pc']}", mark="dim"))
    if frame["guess"]:
        found.append(Span(" (guess)", mark="doubt"))
    return Line(found)


def function_id(domain: int, name: str) -> str:
    """The id of a function of a domain's kernel. Names are text from the dump."""
    plain = re.sub(r"[^A-Za-z0-9_]", lambda found: f"-{ord(found[0]):x}-", name)
    return f"d{domain}-f-{plain}"


def registers(found: Registers) -> Table:
    """Registers by their names, several in a row."""
    cells = [Span(f"{name} = {value}") for name, value in found.items()]
    rows: list[Sequence[Span]] = []
    for at in range(0, len(cells), _COLUMNS):
        row = cells[at : at + _COLUMNS]
        rows.append(row + [Span("")] * (_COLUMNS - len(row)))
    return Table((), rows, caption="Registers")


def log_lines(log: Log) -> Lines:
    """The last lines of a log, with their levels."""
    more = f"{log['omitted']} earlier messages are left out" if log["omitted"] else ""
    return Lines([_log_line(line) for line in log["lines"]], more)


def _log_line(line: LogLine) -> Line:
    level = line["level"]
    mark: Mark = ""
    if level is not None:
        mark = "bad" if level <= 3 else "doubt" if level == 4 else "dim" if level == 7 else ""
    name = "?" if level is None else _LEVELS[level] if level < len(_LEVELS) else str(level)
    head = f"{name:<6} "
    if line["time_ns"] is not None:
        seconds, rest = divmod(line["time_ns"], 10**9)
        head += f"[{seconds:5}.{rest // 1000:06}] "
    text = line["text"].replace("\n", "\n" + " " * len(head))
    return Line([Span(head, mark="dim"), Span(text)], mark)
