"""Writes results to stdout, and warnings and errors to stderr.

Everything that a command prints goes through ``_write`` or, as JSON, is ASCII.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from . import progress_line
from .escape import printable

#: Returns the warnings so far.
Warnings = Callable[[], Iterable[str]]


def write_text(lines: Iterable[str], warnings: Warnings) -> None:
    """Writes lines, then the warnings: producing the lines may cause some."""
    progress_line.stop()
    _write(sys.stdout, lines)
    _warn(warnings())
    sys.stdout.flush()


def write_json(
    command: str, dump: str | None, body: Mapping[str, object], warnings: Warnings
) -> None:
    """Writes one JSON object with the warnings in it, which also go to stderr."""
    from .document import document

    progress_line.stop()
    found: list[str] = []

    def deduplicated() -> list[str]:
        found[:] = _deduplicated(warnings())
        return found

    sys.stdout.writelines(document(command, dump, body, deduplicated))
    _warn(found)
    sys.stdout.flush()


@contextmanager
def warnings_on_error(warnings: Warnings) -> Iterator[None]:
    """If the body fails, prints the warnings: they may explain the error."""
    try:
        yield
    except Exception:
        _warn(warnings())
        raise


def error(text: object) -> None:
    """Prints an error message of one line."""
    progress_line.stop()
    _write(sys.stderr, [f"xkdump: {text}"])


def bug() -> None:
    """Prints the traceback of the current exception."""
    import traceback

    progress_line.stop()
    _write(sys.stderr, traceback.format_exc().splitlines())
    error("this is a bug in xkdump")


def _deduplicated(warnings: Iterable[str]) -> list[str]:
    found = list(warnings)
    if found:
        from ..diagnostics import deduplicated

        found = deduplicated(found)
    return found


def _warn(warnings: Iterable[str]) -> None:
    progress_line.stop()
    _write(sys.stderr, (f"xkdump: warning: {text}" for text in _deduplicated(warnings)))


def _write(stream: TextIO, lines: Iterable[str]) -> None:
    """Writes escaped lines: line feeds within a line are escaped too."""
    stream.writelines(f"{printable(line)}\n" for line in lines)
