"""A result onto the screen, warnings and errors beside it."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Protocol

from . import progress_line
from .escape import visible


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
    progress_line.stop()
    said = cache(lambda: _folded(() if source is None else source.warnings))
    if args.json:
        from .document import document

        body = getattr(render, "lazy_json", render.json)(result)
        dump = getattr(args, "vmcore", None)
        sys.stdout.writelines(document(args.command, dump, body, said))
    elif hasattr(render, "lines"):
        sys.stdout.writelines(render.lines(result))
    else:
        sys.stdout.write(render.text(result))
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
    print(f"xkdump: {visible(str(error))}", file=sys.stderr)
    return status


def _folded(warnings: Iterable[str]) -> list[str]:
    said = list(warnings)
    if said:
        from ..diagnostics import fold

        said = fold(said)
    return said


def _say(warnings: Iterable[str]) -> None:
    progress_line.stop()
    for warning in warnings:
        print(f"xkdump: warning: {visible(warning)}", file=sys.stderr)
