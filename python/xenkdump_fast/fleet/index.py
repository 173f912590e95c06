"""The index of a table as a page of HTML: dumps by signature, without scripts."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ..limits import MAX_INDEX_DUMPS
from ..output.escape import visible
from ..output.new_file import new_file
from . import extra, row
from .check import is_signature
from .row import Row

FILE = "index.html"
_TEMPLATE = Path(__file__).with_name("index.html.jinja")


class Cluster(NamedTuple):
    """The dumps of one signature."""

    #: None: of no signature.
    signature: str | None
    title: str
    module: str | None
    died: list[str]
    kernels: list[str]
    hosts: int
    number: int
    first: int | None
    last: int | None
    #: The newest first; not more than ``MAX_INDEX_DUMPS``.
    dumps: list[Row]

    @property
    def anchor(self) -> str:
        """The id of its part of the page."""
        return str(self.signature) if is_signature(self.signature) else "none"


def write(rows: Sequence[Row], directory: Path) -> None:
    """Writes ``index.html``. Raises OSError, MissingError."""
    jinja2 = extra.module("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"moment": moment, "visible": visible}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    failed = [one for one in rows if one["status"] == row.FAILED]
    text = template.render(
        clusters=clusters(rows),
        failed=failed[:MAX_INDEX_DUMPS],
        failures=len(failed),
        total=len(rows),
        hosts=len({one["host"] for one in rows if one["host"] and one["signature"]}),
        limit=MAX_INDEX_DUMPS,
    )
    with new_file(str(directory / FILE), force=True) as part:
        Path(part).write_text(text, encoding="utf-8", errors="backslashreplace")


def clusters(rows: Sequence[Row]) -> list[Cluster]:
    """The dumps by signature, the most frequent first; those without one last."""
    by_signature: dict[str, list[Row]] = {}
    for one in rows:
        if one["status"] != row.FAILED:
            by_signature.setdefault(one["signature"] or "", []).append(one)
    found = [_cluster(signature or None, group) for signature, group in by_signature.items()]
    return sorted(found, key=lambda one: (one.signature is None, -one.number, one.title))


def _cluster(signature: str | None, group: list[Row]) -> Cluster:
    times = [one["time"] for one in group if one["time"] is not None]
    dumps = sorted(group, key=lambda one: (-(one["time"] or 0), one["path"]))
    title = next((one["signature_text"] for one in dumps if one["signature_text"]), None)
    return Cluster(
        signature,
        title or "no fault was found",
        next((one["module"] for one in dumps if one["module"]), None),
        _names(one["died"] for one in group),
        _names(one["kernel"] for one in group),
        len({one["host"] for one in group if one["host"]}),
        len(group),
        min(times, default=None),
        max(times, default=None),
        dumps[:MAX_INDEX_DUMPS],
    )


def _names(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})


def moment(seconds: int | None) -> str:
    """A time of day in UTC."""
    if seconds is None:
        return "unknown"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
