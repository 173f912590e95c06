"""Triage of many dumps: a table with a row for each, and an index of their signatures.

::

    from xenkdump_fast import fleet
    fleet.triage(["/var/crash"], "triage")                       # on this machine
    fleet.triage(["s3://dumps/"], "triage", client=Client(...))  # on a Dask cluster

It needs the extra ``[fleet]``.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..limits import MAX_TRIAGE_JOBS
from . import row
from .examine import Options
from .extra import MissingError
from .process import Limits
from .row import Row
from .sources import find
from .table import Table, pending

__all__ = ["Limits", "MissingError", "Options", "Row", "Summary", "triage"]

#: Rows after which the parts are moved to the Parquet file.
_COMPACT_AFTER = 10_000


class Summary(NamedTuple):
    """The result of a run."""

    #: The Parquet file, and the page of HTML with the index.
    parquet: str
    page: str
    #: Dumps in the table; those of them that were examined now, and those that failed, of all.
    dumps: int
    examined: int
    failed: int
    #: Different signatures.
    signatures: int
    #: What was damaged in the directory.
    warnings: tuple[str, ...] = ()


def triage(
    paths: Iterable[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    client: Any = None,
    *,
    jobs: int | None = None,
    options: Options = Options(),
    limits: Limits = Limits(),
    retry: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Examines dumps, and writes ``triage.parquet`` and ``index.html`` into ``directory``.

    ``paths`` are dumps, folders with dumps, and URLs of fsspec. Dumps that have a row are left out
    unless they have changed; with ``retry`` those that failed are examined again. ``client`` is a
    ``distributed.Client``; without one, ``jobs`` processes of this machine are used, by default one
    per CPU. Rows are written as they are done, so an interrupted run can be continued.

    A damaged row in the directory is dropped, with a warning, and its dump is examined again.

    Raises OSError if the directory cannot be written or has another Parquet file, MissingError
    without the extra ``[fleet]``.
    """
    from . import extra, index

    extra.module("jinja2")  # before hours of work
    table = Table(directory)
    own = [os.fspath(directory), *([options.cache_dir] if options.cache_dir else [])]
    left = pending(find((os.fspath(path) for path in paths), own), table, retry=retry)
    if client is not None:
        from . import on_dask

        rows = on_dask.run(left, options, limits, client)
    else:
        from . import local

        count = min(jobs or os.cpu_count() or 1, MAX_TRIAGE_JOBS, max(len(left), 1))
        rows = local.run(left, options, limits, count)
    done = 0
    progress(0, len(left))
    try:
        for source, found in rows:
            table.add(source, found)
            done += 1
            progress(done, len(left))
            if done % _COMPACT_AFTER == 0:
                table.compact()
    finally:
        # Also after an interruption, so that the finished rows can be read.
        every = table.compact()
        index.write(every, table.directory)
    return Summary(
        os.fspath(table.parquet),
        os.fspath(table.directory / index.FILE),
        len(every),
        done,
        sum(one["status"] == row.FAILED for one in every),
        len({one["signature"] for one in every if one["signature"] is not None}),
        tuple(table.warnings),
    )
