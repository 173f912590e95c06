"""``signature``: what identifies the fault that ended a kernel or Xen."""

import argparse
import sys
from collections import deque
from collections.abc import Iterator

from .. import signature
from .._native import AbsentError
from .._typing import NamedTuple, TypedDict
from ..limits import MAX_LOG_FILE, MAX_LOG_LINE, MAX_LOG_LINES
from ..output.escape import visible
from ..output.json_types import Count
from ..regular_files import open_regular
from ..session import Dump
from ..signature import Death, Signature
from .contract import UsageError


class Options(NamedTuple):
    """What to take the signature of."""

    #: The domain; 0 is the whole host, with dom0.
    domain: int | str = 0
    #: Path of the vmlinux of dom0, or of the domain.
    vmlinux: str | None = None
    #: Path of a log in place of a dump.
    log: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``signature``."""
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="of the text of a log, a kernel's or Xen's, in place of a dump; - is stdin",
    )


def run(target: Dump | None, options: Options = Options()) -> "Result":
    """Finds what died, and its signature; AbsentError if nothing did."""
    if options.log is not None:
        if target is not None:
            raise UsageError("argument --log: not allowed with a dump")
        found = signature.of_log(_tail(options.log))
        if found is None:
            raise AbsentError(f"{options.log}: no fault of a kernel or of Xen in this log")
        return Result(None, None, found)
    assert target is not None
    domain = target.domain(options.domain, options.vmlinux)
    if domain.id and target.is_xen_host:
        found = signature.of_kernel(domain.kernel)
        death = None if found is None else Death("domain", domain.id, found)
    else:
        death = signature.of(target, lambda n: domain if n == domain.id else target.domain(n))
    if death is None:
        raise AbsentError(f"{target.path}: no fault of a kernel or of Xen was found")
    warnings = [*domain.warnings]
    if death.signature is None:
        raise AbsentError(f"{target.path}: {death.title} died, but no fault was found in it")
    return Result(death.title, death.domain, death.signature, warnings)


def _tail(path: str) -> str:
    """The end of a log: its last lines, each without its end if that is long."""
    if path == "-":
        pieces: deque[bytes] = deque()
        size = 0
        while piece := sys.stdin.buffer.read(1 << 20):
            pieces.append(piece)
            size += len(piece)
            while size - len(pieces[0]) >= MAX_LOG_FILE:
                size -= len(pieces.popleft())
        data = b"".join(pieces)
    else:
        data = _end(path)
    lines = data.rsplit(b"\n", MAX_LOG_LINES)[-MAX_LOG_LINES:]
    texts = (line[:MAX_LOG_LINE].decode("utf-8", "backslashreplace") for line in lines)
    return "\n".join(texts)


def _end(path: str) -> bytes:
    with open_regular(path) as file:
        if b"\0" in file.read(4096):
            raise UsageError(f"{path}: not a text; a dump needs no --log")
        size = file.seek(0, 2)
        file.seek(max(0, size - MAX_LOG_FILE))
        return file.read(MAX_LOG_FILE)


class JSON(TypedDict):
    """What ``signature --json`` prints."""

    #: "Xen", "dom0", "domain 3" or "kernel"; null of a log.
    died: str | None
    domain: Count | None
    signature: str
    hash: str
    version: Count
    kind: str
    text: str | None
    functions: list[str]
    module: str | None
    source: str
    guess: bool


class Result(NamedTuple):
    """A signature, and what died."""

    died: str | None
    domain: int | None
    signature: Signature
    warnings: list[str] = []  # noqa: RUF012 - never changed

    def text(self) -> Iterator[str]:
        """A line per field, as in ``sys``."""
        found = self.signature
        if self.died is not None:
            yield _row("DIED", self.died)
        yield _row("SIGNATURE", str(found))
        if found.module is not None:
            yield _row("MODULE", found.module)
        source = {"stack": "the stack in memory", "log": "the log", "none": "(none)"}[found.source]
        yield _row("FUNCTIONS", f"{source}{', some of them guesses' if found.guess else ''}")

    def json(self) -> JSON:
        """Every part of the signature."""
        found = self.signature
        return {
            "died": self.died,
            "domain": self.domain,
            "signature": found.normal,
            "hash": found.hash,
            "version": signature.VERSION,
            "kind": found.kind,
            "text": found.text,
            "functions": list(found.functions),
            "module": found.module,
            "source": found.source,
            "guess": found.guess,
        }


def _row(label: str, value: str) -> str:
    return f"{label:>12}: {visible(value)}"
