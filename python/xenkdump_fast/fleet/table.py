"""The table of a fleet: ``triage.parquet``, and a part for each dump until it is complete.

A part is a file of JSON that appears under its name when it is complete, so that a run can be
killed at any time. ``compact`` moves the parts into the Parquet file. The directory may have been
changed by others: what is not a row is not used.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..diagnostics import Unique
from ..limits import MAX_TRIAGE_PART
from ..output.new_file import new_file
from ..regular_files import open_regular
from . import extra, row
from .check import checked
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
        #: What was found damaged.
        self.warnings = Unique()
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
        try:
            self._add(source, found)
        except ValueError as error:
            # Of this version, or a worker of a cluster has another one.
            text = f"internal error: its row cannot be written: {error}"
            self._add(source, row.failed(source.path, source.size, source.modified, text))

    def _add(self, source: Source, found: Row) -> None:
        report = found.get("report")
        one = checked({**found, "path": source.text, "report": None})
        part = json.dumps(one)
        if len(part) > MAX_TRIAGE_PART:
            raise ValueError(f"it has {len(part)} bytes")
        if isinstance(report, str):
            folder = self.directory / _REPORTS
            folder.mkdir(exist_ok=True)
            _write(folder / _report_name(one), report)
        _write(self._parts / f"{source.family}.json", part)

    def rows(self) -> list[Row]:
        """Every row, by path: those of the parts replace those of the Parquet file.

        Raises OSError if the Parquet file is damaged or has other columns.
        """
        found: dict[str, Row] = {}
        if os.path.lexists(self.parquet):
            found.update((one["path"], one) for one in self._read_parquet())
        found.update((one["path"], one) for one in self._read_parts())
        reports = self._reports()
        for one in found.values():
            # The column is not used: the file may be from somebody else.
            name = _report_name(one)
            one["report"] = f"{_REPORTS}/{name}" if name in reports else None
        return [found[path] for path in sorted(found)]

    def _read_parquet(self) -> Iterator[Row]:
        arrow, parquet = extra.module("pyarrow"), extra.module("pyarrow.parquet")
        with open_regular(os.fspath(self.parquet)) as file:
            try:
                table = parquet.read_table(file)
                if table.column_names != schema().names:
                    raise ValueError("it has other columns")
                # Times as numbers: not every one is a date in Python.
                values = table.cast(schema()).cast(_numbers()).to_pylist()
            except (arrow.ArrowException, OSError, ValueError) as error:
                text = str(error).partition("\n")[0][:200]
                raise OSError(
                    errno.EINVAL, f"damaged, or not a table of triage: {text}", str(self.parquet)
                ) from None
        for value in values:
            if value["modified"] is not None:
                value["modified"] /= 10**6
            try:
                yield checked(value)
            except ValueError as error:
                self.warnings.append(f"{self.parquet}: a row is dropped: {error}")

    def _read_parts(self) -> Iterator[Row]:
        for path in sorted(self._parts.glob("*.json")):
            try:
                with open_regular(os.fspath(path)) as file:
                    data = file.read(MAX_TRIAGE_PART + 1)
                if len(data) > MAX_TRIAGE_PART:
                    raise ValueError("it is too large")
                one = checked(json.loads(data))
                if path.stem != Source(one["path"], None, None).family:
                    raise ValueError("it has the name of another dump")
                yield one
            except (OSError, ValueError, RecursionError) as error:
                reason = error.strerror or error if isinstance(error, OSError) else error
                self.warnings.append(f"{path}: a damaged row is dropped: {reason}")

    def _reports(self) -> set[str]:
        """The names of the files with reports."""
        try:
            with os.scandir(self.directory / _REPORTS) as entries:
                return {one.name for one in entries if one.is_file(follow_symlinks=False)}
        except OSError:
            return set()

    def compact(self) -> list[Row]:
        """Writes all rows to the Parquet file and removes the parts; returns the rows."""
        rows = self.rows()
        arrow, parquet = extra.module("pyarrow"), extra.module("pyarrow.parquet")
        table = arrow.Table.from_pylist([_to_parquet(one) for one in rows], schema=schema())
        with new_file(str(self.parquet), force=True) as part:
            parquet.write_table(table, part, compression="zstd")
        for path in self._parts.glob("*.json"):
            with suppress(IsADirectoryError):  # not from triage
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


def _numbers() -> Any:
    """The schema with times as numbers, in their units."""
    arrow = extra.module("pyarrow")
    return arrow.schema(
        [(one.name, arrow.int64() if arrow.types.is_timestamp(one.type) else one.type)
         for one in schema()]
    )  # fmt: skip


def _key(found: Row) -> str:
    return Source(found["path"], found["size"], found["modified"]).key


def _report_name(found: Row) -> str:
    return f"{_key(found)}.html"


def _write(path: Path, text: str) -> None:
    # The directory may belong to others: a link must not lead to a file outside of it.
    with new_file(str(path), force=True, follow=False) as part:
        Path(part).write_text(text, encoding="utf-8", errors="backslashreplace")


def pending(sources: Iterable[Source], table: Table, *, retry: bool) -> list[Source]:
    """The dumps that have no row; with ``retry`` also those that failed."""
    known = table.keys(failed=not retry)
    return [source for source in sources if source.key not in known]
