"""A result onto the screen, warnings and errors beside it.

All that a command prints goes through ``write`` or, as JSON, is ASCII.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Protocol, TextIO

from ..render.escape import printable
from . import waiting


class Warned(Protocol):
    """What has warnings."""

    @property
    def warnings(self) -> Iterable[str]: ...  # noqa: D102


def show(
    args: argparse.Namespace, render: ModuleType, result: Any, source: Warned | None = None
) -> None:
    """Prints a result by its module of render/, as the arguments ask; its warnings to stderr.

    Whatever may be long is made piece by piece, and may give cause for warnings as it is: the
    source is asked for them last.
    """
    waiting.stop()
    said = cache(lambda: _folded(() if source is None else source.warnings))
    if args.json:
        from ..render.json import document

        body = getattr(render, "lazy_json", render.json)(result)
        dump = getattr(args, "vmcore", None)
        sys.stdout.writelines(document(args.command, dump, body, said))
    else:
        write(sys.stdout, render.lines(result))
    _say(said())
    sys.stdout.flush()


@contextmanager
def telling(source: Warned) -> Iterator[None]:
    """Where what is done within fails, the source's warnings are said: they may be why."""
    try:
        yield
    except Exception:
        _say(_folded(source.warnings))
        raise


def fail(error: object, status: int) -> int:
    """Says what is wrong in one line; returns the exit status."""
    write(sys.stderr, [f"xkdump: {error}"])
    return status


def fail_by_bug(status: int) -> int:
    """Shows where the exception at hand comes from; returns the exit status."""
    import traceback

    waiting.stop()
    write(sys.stderr, traceback.format_exc().splitlines())
    return fail("this is a bug in xkdump", status)


def write(stream: TextIO, lines: Iterable[str]) -> None:
    """Writes lines, each with a line end that nothing in it can add to."""
    stream.writelines(f"{printable(line)}\n" for line in lines)


def _folded(warnings: Iterable[str]) -> list[str]:
    said = list(warnings)
    if said:
        from ..folding import fold

        said = fold(said)
    return said


def _say(warnings: Iterable[str]) -> None:
    waiting.stop()
    write(sys.stderr, (f"xkdump: warning: {warning}" for warning in warnings))
