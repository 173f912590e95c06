"""``triage``: examines many dumps, and sorts them by signature."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from .. import parsing, progress
from .._native import DumpError
from ..output.escape import visible
from ..output.json_types import Count
from .contract import Operands, OutputError, UsageError

if TYPE_CHECKING:
    from ..fleet import Summary

OPERANDS = Operands("PATH", "dumps, folders with dumps, and URLs of fsspec", "+")


class Options(NamedTuple):
    """The dumps, and how they are examined."""

    #: Dumps, folders and URLs.
    operands: Sequence[str]
    #: The directory of the table and the index.
    output: str = "triage"
    #: Processes on this machine; None: one per CPU.
    jobs: int | None = None
    #: Seconds for one dump.
    timeout: float = 300.0
    #: Bytes of memory for one process.
    memory: int = 2 << 30
    #: The address of a Dask scheduler.
    scheduler: str | None = None
    #: Whether a report is written for each dump.
    reports: bool = False
    #: Whether dumps that failed are examined again.
    retry: bool = False
    #: Where compressed and remote files are unpacked and copied to.
    copies: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``triage``."""
    add = parser.add_argument
    add(
        "-o",
        "--output",
        default="triage",
        metavar="DIR",
        help="where triage.parquet and index.html are written; default: triage. A run goes on with "
        "what is there",
    )
    add("-j", "--jobs", type=_count, metavar="N", help="processes; default: one per CPU")
    add(
        "--timeout",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="for one dump, which is then a failed one; default: 300",
    )
    add(
        "--memory",
        type=_size,
        default=2 << 30,
        metavar="SIZE",
        help="of one process, as 512M or 2G; default: 2G",
    )
    add("--scheduler", metavar="ADDRESS", help="of an existing Dask cluster, as tcp://host:8786")
    add("--reports", action="store_true", help="also write a report for each dump")
    add("--retry", action="store_true", help="examine dumps again that failed before")
    add(
        "--cache-dir",
        dest="copies",
        metavar="DIR",
        help="where compressed dumps are unpacked, and where remote ones are copied to while they "
        "are examined",
    )


def _count(text: str) -> int:
    count = parsing.number(text)
    if count is None or count < 1:
        raise argparse.ArgumentTypeError(f"not a number of processes: {text!r}")
    return count


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return seconds


def _size(text: str) -> int:
    try:
        size = parsing.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if size < 64 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} is too little for any dump; at least 64M")
    return size


def run(target: None, options: Options) -> "Result":
    """Examines the dumps; OutputError if the directory cannot be written."""
    del target
    from .. import fleet

    try:
        with closing(_Cluster(options.scheduler)) as cluster:
            summary = fleet.triage(
                options.operands,
                options.output,
                cluster.client,
                jobs=options.jobs,
                options=fleet.Options(options.copies, options.reports),
                limits=fleet.Limits(options.timeout, options.memory),
                retry=options.retry,
                progress=partial(progress.now.set, "dump"),
            )
    except fleet.MissingError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise OutputError(f"{where}{error.strerror or error}") from None
    return Result(summary)


class _Cluster:
    """A client of a cluster; ``client`` is None without one."""

    def __init__(self, address: str | None) -> None:
        self.client: Any = None
        if address is None:
            return
        from ..fleet import extra

        distributed = extra.module("distributed")
        try:
            self.client = distributed.Client(address, timeout="30s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise DumpError(f"{address}: no Dask scheduler can be reached: {error}") from None

    def close(self) -> None:
        """Ends the connection; the cluster goes on."""
        if self.client is not None:
            self.client.close()


class JSON(TypedDict):
    """What ``triage --json`` prints."""

    parquet: str
    index: str
    dumps: Count
    examined: Count
    failed: Count
    signatures: Count


class Result(NamedTuple):
    """What was written."""

    summary: "Summary"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was damaged in the directory."""
        return self.summary.warnings

    @property
    def failure(self) -> str | None:
        """Which dumps have no answer."""
        if not self.summary.dumps:
            return "no dump was found"
        return f"failed dumps: {self.summary.failed}" if self.summary.failed else None

    def text(self) -> Iterator[str]:
        """The numbers, and the files."""
        found = self.summary
        yield (
            f"{found.dumps} dumps, {found.examined} of them examined now; "
            f"different signatures: {found.signatures}; failed: {found.failed}"
        )
        yield visible(found.parquet)
        yield visible(found.page)

    def json(self) -> JSON:
        """The same."""
        found = self.summary._asdict()
        del found["warnings"]
        return cast(JSON, {"parquet": found.pop("parquet"), "index": found.pop("page"), **found})
