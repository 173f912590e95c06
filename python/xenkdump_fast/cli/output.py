"""A result onto the screen, warnings and errors beside it."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

from ..render.escape import visible
from . import waiting


def show(
    args: argparse.Namespace, render: ModuleType, result: Any, warnings: Iterable[str] = ()
) -> None:
    """Prints a result by its module of render/, as the arguments ask; its warnings to stderr.

    They are asked for last: a result that is made line by line may give cause for some.
    """
    if args.json:
        from ..render.json import document

        body = render.json(result)
        said = _folded(warnings)
        waiting.stop()
        print(document(args.command, getattr(args, "vmcore", None), body, said))
    else:
        waiting.stop()
        # Whatever may be long comes line by line.
        lines = getattr(render, "lines", None)
        sys.stdout.writelines(lines(result) if lines else [render.text(result)])
        said = _folded(warnings)
    _say(said)
    sys.stdout.flush()


class Warned(Protocol):
    """What has warnings."""

    @property
    def warnings(self) -> Iterable[str]: ...  # noqa: D102


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
        from ..folding import fold

        said = fold(said)
    return said


def _say(warnings: Iterable[str]) -> None:
    waiting.stop()
    for warning in warnings:
        print(f"xkdump: warning: {visible(warning)}", file=sys.stderr)
