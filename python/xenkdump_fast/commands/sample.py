"""Writes a sample dump, to learn on and to test with."""

import argparse
from typing import TYPE_CHECKING, NamedTuple

import xenkdump_forge as sample

if TYPE_CHECKING:
    from xenkdump_forge import Sample

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Written(NamedTuple):
    """What ``xkdump sample`` wrote."""

    kind: str
    sample: "Sample"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    kinds = "; ".join(f"{name}: {text}" for name, text in sample.KINDS.items())
    parser.add_argument("directory", metavar="DIR", help="where vmlinux, vmcore and plan.json go")
    parser.add_argument(
        "--like", default="modern", metavar="KIND", help=f"default: modern. Kinds: {kinds}"
    )
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="dom0's memory, as 512M or 2G; sparse in the file",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same bytes")


def size(text: str) -> int:
    """A size in bytes from ``512M``, ``2G`` or a plain number."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if not number.isdecimal() or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"not a size: {text!r} (such as 512M or 2G)")
    return int(number) * _UNITS[unit]


def run(args: argparse.Namespace) -> Written:
    """Writes the sample; SampleError if it cannot be."""
    written = sample.forge(args.directory, args.like, memory=args.memory, seed=args.seed)
    return Written(args.like, written)
