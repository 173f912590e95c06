"""``report``: a report of a dump, as HTML, text, Markdown, JSON, or a folder of text files."""

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from ..output.new_file import is_one_of, new_file
from ..report.model import Content
from ..session import Dump
from .contract import OutputError, UsageError

if TYPE_CHECKING:
    from ..report.blocks import Document
    from ..xen.host import XenHost


class Options(NamedTuple):
    """The formats and the files."""

    #: The file, in the format that is asked for; else by the ending of its name, else HTML.
    output: str | None = None
    overwrite: bool = False
    #: On stdout without ``output``.
    as_text: bool = False
    markdown: bool = False
    #: The directory of a folder with a text file for each domain and pCPU.
    folder: str | None = None
    #: Leaves names, addresses, values of command lines and data of users out.
    redact: bool = False
    #: Path of the vmlinux of some of the domains.
    vmlinux: str | None = None
    #: Path of Xen's symbols.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False
    #: Whether JSON is printed, which is a format, too.
    json: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``report``."""
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", help="the file to write: HTML, unless --text or "
        "--markdown is given or the name ends in .txt or .md")  # fmt: skip
    add("--overwrite", action="store_true", help="replace an existing file")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--text", dest="as_text", action="store_true", help="text, on stdout without -o"
    )
    forms.add_argument("--markdown", action="store_true", help="Markdown, on stdout without -o")
    add("--folder", metavar="DIR", help="a new folder of text files: xen.log, domN.log, ...")
    add(
        "--redact",
        action="store_true",
        help="without host names, network addresses, values of command lines and data of users",
    )
    add(
        "--xen-syms",
        metavar="XEN-SYMS",
        help="Xen's symbols, not needed; with DWARF for the states of domains",
    )
    add("--force", action="store_true", help="accept a xen-syms of another build")


#: The formats by the ending of the output's name; others are HTML.
_ENDINGS = {".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown"}


def _with_format(options: Options) -> Options:
    """With the format that the ending of the output's name implies, if none is given."""
    if options.output is None or options.as_text or options.markdown:
        return options
    implied = _ENDINGS.get(os.path.splitext(options.output)[1].lower())
    if implied is None:
        return options
    return options._replace(as_text=implied == "text", markdown=implied == "markdown")


class JSON(Content):
    """What ``report --json`` prints."""


def run(target: Dump, options: Options = Options()) -> "Report":
    """Gathers the report and writes its files.

    UsageError for a file that exists, OutputError if one cannot be written.
    """
    from .. import report

    options = _with_format(options)
    _check(target, options)
    xen: XenHost | None = None
    if options.xen_syms is not None and target.is_xen_host:
        xen = target.xen(options.xen_syms, force=options.force)
    found = report.content(target, vmlinux=options.vmlinux, xen=xen, redact=options.redact)
    from ..report import outline

    document = outline.document(found)
    written: list[str] = []
    try:
        if options.output is not None:
            _write(document, options)
            written.append(options.output)
        if options.folder is not None:
            from ..report import folder

            written += folder.write(document, options.folder)
    except OSError as error:
        where = options.output if error.filename is None else error.filename
        raise OutputError(f"{where}: {error.strerror or error}") from None
    return Report(found, document, options, written)


def _check(target: Dump, options: Options) -> None:
    given = (options.output, options.folder)
    if not any(given) and not (options.as_text or options.markdown or options.json):
        raise UsageError(
            "one of the arguments -o, --folder, --text, --markdown and --json is required"
        )
    if options.json and options.output is not None:
        raise UsageError("argument --json: not allowed with -o; it is printed")
    path = options.output
    if path is not None:
        sources = [*target.paths, *(name for name in (options.vmlinux, options.xen_syms) if name)]
        if is_one_of(path, sources):
            raise UsageError(f"{path} is a file that is read")
        if os.path.lexists(path) and not options.overwrite:
            raise UsageError(f"{path} exists (--overwrite replaces it)")
        if not (options.as_text or options.markdown):
            _check_html()
    if options.folder is not None and os.path.lexists(options.folder):
        raise UsageError(f"{options.folder} exists")


def _check_html() -> None:
    from ..report.html import MissingError, check

    try:
        check()
    except MissingError as error:
        raise UsageError(f"argument -o: {error}") from None


def _write(document: "Document", options: Options) -> None:
    assert options.output is not None
    with new_file(options.output, force=options.overwrite) as part:
        if not options.as_text and not options.markdown:
            from ..report import html

            html.write(document, part)
            return
        with open(part, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{line}\n" for line in _lines(document, options))


def _lines(document: "Document", options: Options) -> Iterator[str]:
    from ..output.escape import printable

    if options.markdown:
        from ..report import markdown

        return markdown.lines(document)
    from ..report import text

    return map(printable, text.lines(document))


class Report(NamedTuple):
    """A report."""

    content: Content
    document: "Document"
    options: Options
    #: The files that were written.
    written: Sequence[str]

    def text(self) -> Iterator[str]:
        """The report, unless it was written to files: then their names."""
        if self.written or not (self.options.as_text or self.options.markdown):
            return iter(self.written)
        return _lines(self.document, self.options)

    def json(self) -> JSON:
        """The content. ``dump``, which every object has, is left out with ``--redact``."""
        if self.content["redacted"]:
            return cast(JSON, {"dump": None, **self.content})
        return {**self.content}
