"""``export``: writes a domain's memory and CPUs to a file that other tools open."""

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from .. import parsing
from .._native import AbsentError, DumpError
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..output.escape import visible
from ..output.json_types import Count
from .contract import OutputError, UsageError

if TYPE_CHECKING:
    from ..export import Request, Source, Written
    from ..export.request import Compression, Format
    from ..session import Domain, Dump
    from ..xen.host import XenHost

_FORMATS = ("elf", "kdump", "lime", "raw")
_COMPRESSIONS = ("zlib", "zstd", "none")
#: The endings of the names of --all-domains.
_ENDINGS = {"elf": "vmcore", "kdump": "kdump", "lime": "lime", "raw": "raw"}
#: Characters of a node name that a file name has.
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_NAME = 64
#: What DUMP_LEVEL may be: every bit.
_MAX_LEVEL = 31


class Options(NamedTuple):
    """What to write, and where."""

    #: The id or a name of the domain.
    domain: int | str = 0
    #: Path of its vmlinux.
    vmlinux: str | None = None
    #: The file.
    output: str | None = None
    #: A directory for one file per domain, in place of a file.
    all_domains_dir: str | None = None
    output_format: "Format" = "elf"
    dump_level: int = 0
    compress: "Compression | None" = None
    #: Replaces existing files.
    overwrite: bool = False
    #: Replaces existing files, and accepts a vmlinux or xen-syms of another build.
    force: bool = False
    #: Writes Xen.
    hypervisor: bool = False
    #: Path of xen-syms.
    xen_syms: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``export``."""
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="the file to write")
    add(
        "--all-domains",
        dest="all_domains_dir",
        metavar="DIR",
        help="write one file per domain into a directory",
    )
    add(
        "--format",
        dest="output_format",
        choices=_FORMATS,
        default="elf",
        help="default: elf, a vmcore; kdump: kdump-compressed; lime and raw: memory alone",
    )
    add(
        "--dump-level",
        type=_level,
        default=0,
        metavar="N",
        help="leave pages out, as makedumpfile: the sum of 1 zeros, 2 caches without private data, "
        "4 all caches, 8 user data, 16 free pages; default: 0",
    )
    add(
        "--compress",
        choices=_COMPRESSIONS,
        help="of the pages with --format kdump; default: zlib, which all readers have",
    )
    add("--overwrite", action="store_true", help="replace existing files")
    add(
        "--force",
        action="store_true",
        help="as --overwrite; also accept a vmlinux of another build for the one domain, or with "
        "--hypervisor a xen-syms",
    )


def _level(text: str) -> int:
    found = parsing.number(text)
    if found is None or not 0 <= found <= _MAX_LEVEL:
        raise argparse.ArgumentTypeError(f"not a number from 0 to {_MAX_LEVEL}: {text!r}")
    return found


def run(target: "Dump | XenHost", options: Options) -> "Exported":
    """Writes the file, or the files.

    UsageError if there is no such file to write, OutputError if it cannot be written.
    """
    if (options.output is None) == (options.all_domains_dir is None):
        raise UsageError("one of -o FILE and --all-domains DIR is needed")
    if options.output == "-":
        raise UsageError("argument -o: a file is needed, which is written out of order")
    if options.compress is not None and options.output_format != "kdump":
        raise UsageError("argument --compress: only allowed with --format kdump")
    if options.hypervisor:
        return _hypervisor(target, options)  # type: ignore[arg-type]
    if options.all_domains_dir is not None:
        return _all_domains(target, options, options.all_domains_dir)  # type: ignore[arg-type]
    return Exported([_one(target, options, options.domain, str(options.output))])  # type: ignore[arg-type]


def _hypervisor(xen: "XenHost", options: Options) -> "Exported":
    from ..export import hypervisor

    if options.output is None:
        raise UsageError("argument --all-domains: not allowed with argument --hypervisor")
    if options.output_format != "elf" or options.dump_level:
        raise UsageError("argument --hypervisor: only with --format elf and --dump-level 0")
    files = [xen.dump.path, *([options.xen_syms] if options.xen_syms else [])]
    _check(options, options.output, files)
    return Exported([_write(hypervisor.of_xen(xen), options, options.output, None)])


def _one(dump: "Dump", options: Options, number: int | str, path: str) -> "File":
    from ..export import of_domain

    files = [*dump.paths, *([options.vmlinux] if options.vmlinux else [])]
    _check(options, path, files)
    domain = _open(dump, options, number)
    source = of_domain(domain, _request(options, path))
    return _write(source, options, path, domain)


def _open(dump: "Dump", options: Options, number: int | str) -> "Domain":
    """A domain; of several, each with its own kernel if it does not run the given one."""
    if options.vmlinux is None or options.all_domains_dir is None:
        return dump.domain(number, options.vmlinux, force=options.force)
    # One vmlinux is not forced upon all domains.
    try:
        return dump.domain(number, options.vmlinux)
    except AbsentError:
        return dump.domain(number)


def _request(options: Options, path: str) -> "Request":
    from ..export import Request

    compression = options.compress or "zlib"
    level = options.dump_level
    force = options.overwrite or options.force
    return Request(path, options.output_format, level, compression, force)


def _check(options: Options, path: str, sources: Iterable[str]) -> None:
    from ..export import writing

    try:
        writing.check(path, sources, force=options.overwrite or options.force)
    except writing.ExportError as error:
        raise UsageError(str(error)) from None


def _write(source: "Source", options: Options, path: str, domain: "Domain | None") -> "File":
    from ..export import ExportError, write

    try:
        written = write(source, _request(options, path))
    except ExportError as error:
        raise OutputError(str(error)) from None
    warnings = [*source.warnings, *written.warnings]
    if domain is not None:
        known = set(domain.dump.warnings)
        own = [text for text in domain.warnings if text not in known]
        warnings = [*own, *warnings]
    return File(source, written, options.output_format, warnings)


def _all_domains(dump: "Dump", options: Options, directory: str) -> "Exported":
    """Writes a file for each domain; those that fail are named at the end."""
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {directory}: {error.strerror or error}") from None
    files: list[File] = []
    failures: list[str] = []
    for number in dump.domain_ids:
        path = os.path.join(directory, _name(dump, number, options.output_format))
        try:
            files.append(_one(dump, options, number, path))
        except (DumpError, UsageError) as error:
            failures.append(f"domain {number}: {error}")
        dump.native.release()
    return Exported(files, failures)


def _name(dump: "Dump", number: int, form: "Format") -> str:
    """The name of a domain's file: its id, and the node name of its kernel if that is known."""
    name = ""
    if dump.is_xen_host:
        try:
            kernel = dump.hypervisor.domain(number).kernel()
            name = "" if kernel is None else kernel.nodename or ""
        except AbsentError:
            pass
    name = _UNSAFE.sub("_", name)[:_MAX_NAME].strip(".")
    return f"domain-{number}{'-' * bool(name)}{name}.{_ENDINGS[form]}"


class FileJson(TypedDict):
    """A file. ``domain`` is null for Xen."""

    file: str
    format: str
    domain: Count | None
    size: Count
    allocated: Count
    pages: Count
    written: Count
    zero: Count
    lost: Count
    excluded: dict[str, Count]


class JSON(TypedDict):
    """What ``export --json`` prints."""

    files: list[FileJson]
    failed: NotRequired[list[str]]


class HYPERVISOR_JSON(TypedDict):  # noqa: N801
    """What ``export --hypervisor --json`` prints."""

    files: list[FileJson]


class File(NamedTuple):
    """A file that was written."""

    source: "Source"
    written: "Written"
    format: "Format"
    warnings: list[str]

    def text(self) -> str:
        """Its name, and what is in it."""
        written = self.written
        pages = written.written + written.zero
        text = f"{visible(written.path)}: {pages} pages"
        if written.zero:
            text += f" ({written.zero} of zeros)"
        for kind, count in self.source.excluded.items():
            text += f", without {count} {kind}"
        return f"{text}; {written.size} bytes, {written.allocated} on disk"

    def json(self) -> FileJson:
        """The same."""
        written = self.written
        return {
            "file": written.path,
            "format": self.format,
            "domain": self.source.domain,
            "size": written.size,
            "allocated": written.allocated,
            "pages": int(self.source.all_pages[:, 1].sum()),
            "written": written.written,
            "zero": written.zero,
            "lost": written.lost,
            "excluded": dict(self.source.excluded),
        }


class Exported(NamedTuple):
    """The files that were written, and why others were not."""

    files: Sequence[File]
    failures: Sequence[str] = ()

    @property
    def warnings(self) -> list[str]:
        """Of all files, each once; then the failures but one."""
        found = dict.fromkeys(text for file in self.files for text in file.warnings)
        return [*found, *self.failures[:-1]]

    @property
    def failure(self) -> str | None:
        """Why there are not all files."""
        return self.failures[-1] if self.failures else None

    def text(self) -> Iterator[str]:
        """A line for each file."""
        return (file.text() for file in self.files)

    def json(self) -> JSON:
        """The files."""
        found: JSON = {"files": [file.json() for file in self.files]}
        if self.failures:
            found["failed"] = list(self.failures)
        return found
