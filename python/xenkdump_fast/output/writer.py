"""Writes results to stdout, and warnings and errors to stderr."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import progress_line
from .escape import visible

#: Asked for the warnings so far.
Warnings = Callable[[], Iterable[str]]


def write_text(lines: Iterable[str], warnings: Warnings) -> None:
    """Writes lines, then the warnings: producing the lines may cause some."""
    progress_line.stop()
    sys.stdout.writelines(f"{line}\n" for line in lines)
    _warn(warnings())
    sys.stdout.flush()


def write_json(command: str, dump: str | None, body: dict[str, Any], warnings: Warnings) -> None:
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
    """Prints one line that says what is wrong."""
    progress_line.stop()
    print(f"xkdump: {visible(str(text))}", file=sys.stderr)


def _deduplicated(warnings: Iterable[str]) -> list[str]:
    found = list(warnings)
    if found:
        from ..diagnostics import fold

        found = fold(found)
    return found


def _warn(warnings: Iterable[str]) -> None:
    progress_line.stop()
    for warning in _deduplicated(warnings):
        print(f"xkdump: warning: {visible(warning)}", file=sys.stderr)
