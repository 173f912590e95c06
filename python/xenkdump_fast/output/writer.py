"""Writes results to a stream, and warnings and errors to stderr.

Everything that a command prints goes through ``_lines`` or, as JSON, is ASCII; only what is asked
for as bytes is not escaped.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from .._contexts import suppress
from .._typing import Protocol
from . import progress_line
from .escape import printable

#: Returns the warnings so far.
Warnings = Callable[[], Iterable[str]]


class Stream(Protocol):
    """Where results are written to: a text file, or a part of a pipeline.

    Bytes are written to its member ``buffer``, if it has one.
    """

    def write(self, text: str, /) -> object:
        """Writes text."""

    def flush(self) -> object:
        """Passes on what has been written."""


class WriteError(Exception):
    """The stream cannot be written."""


class Writer:
    """Writes results to ``stream``, which messages call ``name``; by default to stdout."""

    def __init__(self, stream: Stream | None = None, name: str = "stdout") -> None:
        self._given = stream
        self._name = name

    @property
    def stream(self) -> Stream:
        """The stream; stdout as it is now."""
        return sys.stdout if self._given is None else self._given

    def text(self, lines: Iterable[str], warnings: Warnings = tuple) -> None:
        """Writes lines, then the warnings: producing the lines may cause some."""
        progress_line.stop()
        self._print(_lines(lines))
        self.warn(warnings())

    def data(self, data: bytes, warnings: Warnings) -> None:
        """Writes bytes as they are, and nothing else to the stream, then the warnings."""
        progress_line.stop()
        buffer = getattr(self.stream, "buffer", None)
        if buffer is not None:  # None in a stream of text only, as tests have
            self._checked(buffer.write, data)
            self._checked(buffer.flush)
        self.warn(warnings())

    def json(
        self, command: str, dump: str | None, body: Mapping[str, object], warnings: Warnings
    ) -> None:
        """Writes one JSON object with the warnings in it, which also go to stderr."""
        from .document import document

        progress_line.stop()
        found: list[str] = []

        def deduplicated() -> list[str]:
            found[:] = _deduplicated(warnings())
            return found

        self._print(document(command, dump, body, deduplicated))
        self.warn(found)

    def warn(self, warnings: Iterable[str]) -> None:
        """Prints warnings, deduplicated."""
        progress_line.stop()
        _complain(f"xkdump: warning: {text}" for text in _deduplicated(warnings))

    def _print(self, pieces: Iterable[str]) -> None:
        """Writes text. Exceptions raised while producing the pieces are passed on unchanged."""
        stream = self.stream
        begun = False
        try:
            for piece in pieces:
                begun = True
                self._checked(stream.write, piece)
            self._checked(stream.flush)
        except KeyboardInterrupt:
            # The shell reports it for streams of its own.
            if begun and self._given is None and not sys.stdout.isatty():
                incomplete(self._name)
            raise

    def _checked(self, call: Callable[..., object], *arguments: str | bytes) -> None:
        checked(self._name, call, *arguments)


def checked(name: str, call: Callable[..., object], *arguments: str | bytes) -> None:
    """Calls a method of a stream; WriteError if it cannot be written."""
    try:
        call(*arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WriteError(f"cannot write to {name}: {error.strerror or error}") from None


def flush_stdout() -> None:
    """Writes what is buffered; WriteError if it cannot be written."""
    checked("stdout", sys.stdout.flush)


def error(text: object) -> None:
    """Prints an error message of one line."""
    progress_line.stop()
    _complain([f"xkdump: {text}"])


def incomplete(name: str) -> None:
    """Says that output was cut: what is there may look complete."""
    error(f"interrupted: the output in {name} is incomplete")


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


def _complain(lines: Iterable[str]) -> None:
    """Writes to stderr; there is nowhere to report that this fails."""
    with suppress(OSError):
        sys.stderr.writelines(_lines(lines))


def _lines(lines: Iterable[str]) -> Iterator[str]:
    """Escaped lines: line feeds within a line are escaped too."""
    return (f"{printable(line)}\n" for line in lines)
