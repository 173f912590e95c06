"""Writes a file: under a temporary name, in another thread, and removed on any error."""

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .. import progress
from .._native import ExportControl, export
from ..output.new_file import is_one_of, new_file
from . import segments
from .machine import Source
from .request import Request

#: Seconds between updates of the progress.
_PERIOD = 0.1


class ExportError(Exception):
    """The file cannot be written."""


class ExistsError(ExportError):
    """It exists, or is one of the files that are read."""


class Written(NamedTuple):
    """What was written."""

    path: str
    #: Size of the file, and what it takes on the disk.
    size: int
    allocated: int
    #: Pages with contents, and pages of zeros.
    written: int
    zero: int
    #: Pages that cannot be read, and those of them that read as zeros in the file.
    lost: int
    lost_as_zeros: int
    warnings: list[str]


def check(path: str, sources: Iterable[str], *, force: bool) -> None:
    """ExistsError if the file must not be written."""
    if is_one_of(path, sources):
        raise ExistsError(f"{path} is a file that is read")
    if os.path.isdir(path):
        raise ExistsError(f"{path} is a directory")
    if os.path.lexists(path):
        if os.path.exists(path) and not os.path.isfile(path):
            raise ExistsError(f"{path} is not a regular file")
        if not force:
            raise ExistsError(f"{path} exists (--overwrite replaces it)")


def write(source: Source, request: Request, threads: int | None = None) -> Written:
    """Writes the file. ExportError if it cannot be written, AbsentError as of the format.

    It appears under its name when it is complete. Ctrl-C, SIGTERM and SIGHUP remove what was
    written.
    """
    try:
        with new_file(request.path, force=request.force) as part:
            report = _run(source, request, part, threads)
            if request.format == "elf" and source.domain is not None:
                segments.sort(part)
            status = os.stat(part)
    except OSError as error:
        raise ExportError(f"cannot write {request.path}: {error.strerror or error}") from None
    return Written(
        request.path,
        status.st_size,
        status.st_blocks * 512,
        report["written"],
        report["zero"],
        report["lost"],
        report["lost_as_zeros"],
        list(_warnings(report, request)),
    )


def _run(source: Source, request: Request, part: str, threads: int | None) -> dict[str, Any]:
    """Writes the temporary file in another thread, so that this one receives signals."""
    control = ExportControl()
    options = source.options if threads is None else {**source.options, "threads": threads}
    total = sum(map(int, source.pages[:, 1]))
    found: list[dict[str, Any]] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            dumps = source.native, source.host
            runs = source.pages.reshape(-1), source.all_pages.reshape(-1)
            found.append(export(dumps, part, runs, request.format, options, control))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="xkdump export")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_PERIOD)
            progress.now.set("page", min(control.done, max(total - 1, 0)), total)
    finally:
        control.stop()
        thread.join()
        progress.now.what = ""
    if errors:
        raise errors[0]
    return found[0]


def _warnings(report: dict[str, Any], request: Request) -> Iterator[str]:
    if report["lost"]:
        text = (
            f"{request.path}: {report['lost']} pages cannot be read, the first at pfn "
            f"{report['first_lost']:#x}"
        )
        as_zeros = report["lost_as_zeros"]
        if as_zeros:
            text += f"; {as_zeros} of them read as zeros in the file"
        else:
            text += "; the file does not have them"
        yield text
