"""Writes results to stdout, and warnings and errors to stderr.

Everything that a command prints goes through ``_lines`` or, as JSON, is ASCII; only what is asked
for as bytes is not escaped.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from . import progress_line
from .escape import printable

#: Returns the warnings so far.
Warnings = Callable[[], Iterable[str]]


class WriteError(Exception):
    """Stdout cannot be written."""


def write_text(lines: Iterable[str], warnings: Warnings) -> None:
    """Writes lines, then the warnings: producing the lines may cause some."""
    progress_line.stop()
    _print(_lines(lines))
    warn(warnings())


def write_bytes(data: bytes, warnings: Warnings) -> None:
    """Writes bytes as they are, and nothing else to stdout, then the warnings."""
    progress_line.stop()
    stream = getattr(sys.stdout, "buffer", None)
    if stream is not None:  # not closed by the shell
        _checked(stream.write, data)
        _checked(stream.flush)
    warn(warnings())


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

    _print(document(command, dump, body, deduplicated))
    warn(found)


def error(text: object) -> None:
    """Prints an error message of one line."""
    progress_line.stop()
    _complain([f"xkdump: {text}"])


def bug() -> None:
    """Prints the traceback of the current exception."""
    import traceback

    progress_line.stop()
    _complain(traceback.format_exc().splitlines())
    error("this is a bug in xkdump")


def _deduplicated(warnings: Iterable[str]) -> list[str]:
    found = list(warnings)
    if found:
        from ..diagnostics import deduplicated

        found = deduplicated(found)
    return found


def warn(warnings: Iterable[str]) -> None:
    """Prints warnings, deduplicated."""
    progress_line.stop()
    _complain(f"xkdump: warning: {text}" for text in _deduplicated(warnings))


def _print(pieces: Iterable[str]) -> None:
    """Writes to stdout. Exceptions raised while producing the pieces are passed on unchanged."""
    for piece in pieces:
        _checked(sys.stdout.write, piece)
    _checked(sys.stdout.flush)


def _checked(call: Callable[..., object], *arguments: str | bytes) -> None:
    try:
        call(*arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write to stdout: {error.strerror or error}") from None


def _complain(lines: Iterable[str]) -> None:
    """Writes to stderr; there is nowhere to report that this fails."""
    with suppress(OSError):
        sys.stderr.writelines(_lines(lines))


def _lines(lines: Iterable[str]) -> Iterator[str]:
    """Escaped lines: line feeds within a line are escaped too."""
    return (f"{printable(line)}\n" for line in lines)
