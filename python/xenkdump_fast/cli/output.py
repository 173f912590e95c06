"""A result onto the screen, warnings and errors beside it."""

import argparse
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ..render.escape import visible


def show(
    args: argparse.Namespace, render: ModuleType, result: Any, warnings: Iterable[str] = ()
) -> None:
    """Prints a result by its module of render/, as the arguments ask; its warnings to stderr."""
    said = list(warnings)
    if said:
        from .folding import fold

        said = fold(said)
    if args.json:
        from ..render.json import document

        print(document(args.command, getattr(args, "vmcore", None), render.json(result), said))
    else:
        sys.stdout.write(render.text(result))
    warn(said)
    sys.stdout.flush()


def warn(warnings: Iterable[str]) -> None:
    """Says each on stderr."""
    for warning in warnings:
        print(f"xkdump: warning: {visible(warning)}", file=sys.stderr)


def fail(error: object, status: int) -> int:
    """Says what is wrong in one line; returns the exit status."""
    print(f"xkdump: {visible(str(error))}", file=sys.stderr)
    return status
