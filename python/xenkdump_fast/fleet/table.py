"""The table of a fleet: ``triage.parquet``, and a part for each dump until it is complete.

A part is a file of JSON that appears under its name when it is complete, so that a run can be
killed at any time. ``compact`` moves the parts into the Parquet file.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ..output.new_file import new_file
from . import extra, row
from .row import Row
from .sources import Source

PARQUET = "triage.parquet"
_PARTS = "parts"
_REPORTS = "reports"


class Table:
    """The rows in a directory."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Makes the directory. Raises OSError, MissingError.

        FileExistsError if it has other files and no table: they are not those of a triage.
        """
        extra.module("pyarrow")
        self.directory = Path(directory)
        self._parts = self.directory / _PARTS
        is_known = self._parts.is_dir() or self.parquet.is_file()
        if not is_known and self.directory.is_dir() and any(self.directory.iterdir()):
            raise FileExistsError(17, "not empty, and without a table of triage", str(directory))
        self._parts.mkdir(parents=True, exist_ok=True)

    @property
    def parquet(self) -> Path:
        """The Parquet file."""
        return self.directory / PARQUET

    def keys(self, *, failed: bool) -> set[str]:
        """The keys of the dumps that have a row; ``failed`` says whether failures count."""
        return {_key(one) for one in self.rows() if failed or one["status"] != row.FAILED}

    def add(self, source: Source, found: Row) -> None:
        """Writes the row of a dump, and its report; an older row of the same path is replaced."""
        report, found["report"] = found["report"], None
        found["path"] = source.text
        if report is not None:
            folder = self.directory / _REPORTS
            folder.mkdir(exist_ok=True)
            found["report"] = f"{_REPORTS}/{source.key}.html"
            _write(folder / f"{source.key}.html", report)
        _write(self._parts / f"{source.family}.json", json.dumps(found))

    def rows(self) -> list[Row]:
        """Every row, by path: those of the parts replace those of the Parquet file."""
        found: dict[str, Row] = {}
        if self.parquet.exists():
            parquet = extra.module("pyarrow.parquet")
            for one in parquet.read_table(self.parquet).to_pylist():
                found[one["path"]] = _from_parquet(one)
        for one in self._read_parts():
            found[one["path"]] = one
        return [found[path] for path in sorted(found)]

    def _read_parts(self) -> Iterator[Row]:
        for path in sorted(self._parts.glob("*.json")):
            with suppress(ValueError):
                yield json.loads(path.read_text(encoding="utf-8"))

    def compact(self) -> list[Row]:
        """Writes all rows to the Parquet file and removes the parts; returns the rows."""
        rows = self.rows()
        arrow, parquet = extra.module("pyarrow"), extra.module("pyarrow.parquet")
        table = arrow.Table.from_pylist([_to_parquet(one) for one in rows], schema=schema())
        with new_file(str(self.parquet), force=True) as part:
            parquet.write_table(table, part, compression="zstd")
        for path in self._parts.glob("*.json"):
            path.unlink()
        return rows


def schema() -> Any:
    """The columns of the Parquet file."""
    arrow = extra.module("pyarrow")
    text, whole = arrow.string(), arrow.int64()
    moment = arrow.timestamp("s", tz="UTC")
    kinds = {
        "size": whole,
        "modified": arrow.timestamp("us", tz="UTC"),
        "time": moment,
        "uptime": whole,
        "missing": arrow.list_(text),
        "duration": arrow.float64(),
        "copied": whole,
    }
    return arrow.schema([(name, kinds.get(name, text)) for name in Row.__annotations__])


def _to_parquet(found: Row) -> dict[str, Any]:
    modified = found["modified"]
    return {**found, "modified": None if modified is None else round(modified * 10**6)}


def _from_parquet(one: dict[str, Any]) -> Row:
    for name in ("modified", "time"):
        if one[name] is not None:
            one[name] = one[name].timestamp()
    if one["time"] is not None:
        one["time"] = int(one["time"])
    return cast(Row, one)


def _key(found: Row) -> str:
    return Source(found["path"], found["size"], found["modified"]).key


def _write(path: Path, text: str) -> None:
    with new_file(str(path), force=True) as part:
        Path(part).write_text(text, encoding="utf-8", errors="backslashreplace")


def pending(sources: Iterable[Source], table: Table, *, retry: bool) -> list[Source]:
    """The dumps that have no row; with ``retry`` also those that failed."""
    known = table.keys(failed=not retry)
    return [source for source in sources if source.key not in known]
