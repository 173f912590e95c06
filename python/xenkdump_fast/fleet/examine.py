"""Examines one dump: opens it once, and fills in its row."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, NamedTuple

from .._native import AbsentError, DumpError
from ..diagnostics import deduplicated
from ..isolation import isolated
from ..limits import MAX_TRIAGE_TEXT, MAX_TRIAGE_WARNINGS
from ..linux import clock, header, panic
from ..session import unpacking
from ..signature import of
from . import extra, row
from .row import Row
from .sources import is_url

if TYPE_CHECKING:
    from ..linux.system import Linux
    from ..session import Domain, Dump
    from ..signature import Death

#: Bytes that are copied at once, and bytes of disk space that copies leave free.
_PIECE = 4 << 20
_RESERVE = 64 << 20


class Options(NamedTuple):
    """How dumps are examined."""

    #: Where compressed and remote files are unpacked and copied to; None: the latter to a temporary
    #: directory.
    cache_dir: str | None = None
    #: Whether a report is written for each.
    reports: bool = False


def examine(path: str, size: int | None, modified: float | None, options: Options) -> Row:
    """The row of a dump, whatever is wrong with it. ``report`` has the text of the report."""
    found = row.empty(path, size, modified)
    begun = time.monotonic()
    try:
        with _local(path, found, options) as file:
            _open(file, found, options)
    except MemoryError:
        found["error"] = "out of memory"
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        found["error"] = _text(f"{where}{error.strerror or error}")
    except (DumpError, extra.MissingError) as error:
        found["error"] = _text(str(error))
    except Exception as error:  # a bug must not stop the others
        found["error"] = _text(f"internal error: {type(error).__name__}: {error}")
    if found["error"] is not None:
        found["status"] = row.FAILED
    found["duration"] = round(time.monotonic() - begun, 3)
    return found


@contextmanager
def _local(path: str, found: Row, options: Options) -> Iterator[str]:
    """The path of the file on this machine: of a copy, which is removed, if it is remote."""
    if not is_url(path):
        yield path
        return
    fsspec = extra.module("fsspec")
    if options.cache_dir is not None:
        unpacking.create(options.cache_dir)
    with tempfile.TemporaryDirectory(prefix="xkdump-", dir=options.cache_dir) as folder:
        copy = os.path.join(folder, os.path.basename(path.rstrip("/")) or "vmcore")
        try:
            system, remote = fsspec.core.url_to_fs(path)
            size = system.info(remote).get("size")
            if isinstance(size, int) and size + _RESERVE > shutil.disk_usage(folder).free:
                raise OSError(errno.ENOSPC, f"a copy needs {size} bytes of disk space", folder)
            with system.open(remote, "rb") as source, open(copy, "xb") as target:
                _copy(source, target, folder)
        except OSError:
            raise
        except Exception as error:  # what a file system raises is not defined
            raise OSError(5, f"{type(error).__name__}: {error}", path) from error
        found["copied"] = os.path.getsize(copy)
        yield copy


def _copy(source: IO[bytes], target: IO[bytes], folder: str) -> None:
    """Copies a file whose size may be unknown or wrong, and leaves some disk space to others."""
    while piece := source.read(_PIECE):
        if len(piece) + _RESERVE > shutil.disk_usage(folder).free:
            done = target.tell()
            raise OSError(errno.ENOSPC, f"no disk space for a copy after {done} bytes", folder)
        target.write(piece)


def _open(file: str, found: Row, options: Options) -> None:
    from .. import session

    with session.open(file, cache_dir=options.cache_dir) as dump:
        domains: dict[int, Domain] = {}

        def open_domain(number: int) -> "Domain":
            if number not in domains:
                domains[number] = dump.domain(number)
            return domains[number]

        try:
            death = None
            try:
                death = of(dump, open_domain)
            except AbsentError as error:
                found["error"] = _text(str(error))
            found["status"] = row.NO_FAULT if death is None else row.OK
            _facts(dump, open_domain, death, found)
            if options.reports:
                # Without its report, the row is still useful.
                with isolated("no report", dump.warn):
                    found["report"] = _report(dump)
        finally:
            found["missing"] = _warnings(dump, domains.values())


def _facts(
    dump: "Dump",
    open_domain: "Callable[[int], Domain]",
    death: "Death | None",
    found: Row,
) -> None:
    if dump.is_xen_host:
        from ..xen import crash_info

        found["xen"] = crash_info.version(crash_info.read(dump.native))
    if death is not None:
        found["died"] = death.title
        signature = death.signature
        if signature is not None:
            found["kind"] = signature.kind
            found["signature"], found["signature_text"] = signature.hash, signature.normal
            found["module"] = signature.module
            found["message"] = None if signature.message is None else _text(signature.message)
    domain = 0 if death is None or death.domain is None else death.domain
    numbers = dump.domain_ids
    with suppress(AbsentError):
        first = open_domain(numbers[0]).kernel
        found["host"] = _name(first, "nodename")
    with suppress(AbsentError):
        kernel = open_domain(domain if domain in numbers else numbers[0]).kernel
        found["kernel"] = kernel.release or _name(kernel, "release")
        if found["message"] is None:
            with suppress(AbsentError):
                message = panic.message(kernel)
                found["message"] = None if message is None else _text(message)
        with suppress(AbsentError):
            found["time"] = clock.date(kernel)
        with suppress(AbsentError):
            found["uptime"] = clock.uptime(kernel)


def _name(kernel: "Linux", field: str) -> str | None:
    try:
        return header.uts(kernel).get(field)
    except AbsentError:
        return None


def _report(dump: "Dump") -> str:
    """The text of the report, as HTML."""
    from importlib import import_module

    try:
        report = import_module("xenkdump_fast.report")
    except ImportError as error:
        raise AbsentError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix="xkdump-") as folder:
        path = os.path.join(folder, "report.html")
        report.write_html(report.content(dump), path)
        with open(path, encoding="utf-8") as file:
            return file.read()


def _warnings(dump: "Dump", domains: "Iterable[Domain]") -> list[str]:
    every = [*dump.warnings, *(text for domain in domains for text in domain.warnings)]
    texts = deduplicated(every)[:MAX_TRIAGE_WARNINGS]
    return [_text(text) for text in texts]


def _text(text: str) -> str:
    return text[:MAX_TRIAGE_TEXT]
