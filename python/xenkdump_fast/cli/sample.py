"""``xkdump sample``."""

import argparse
from collections.abc import Sequence

from xenkdump_forge import SampleError

from ..commands import sample as command
from .output import show


def add_arguments(parser: argparse.ArgumentParser, name: str, argv: Sequence[str]) -> None:
    """The arguments of ``sample``."""
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(args: argparse.Namespace) -> None:
    """Writes the sample and prints where it is."""
    from ..render import sample as render
    from . import UsageError

    try:
        written = command.run(args)
    except SampleError as error:
        raise UsageError(str(error)) from None
    show(args, render, written)
