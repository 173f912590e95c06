"""``sample``: writes a small synthetic dump for learning and testing."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import xenkdump_forge

from .. import progress
from ..parsing import number
from .contract import Operands, OutputError, UsageError

if TYPE_CHECKING:
    from xenkdump_forge import SyntheticDump

OPERANDS = Operands("DIR", "where vmlinux, vmcore and plan.json are written", "1")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Options(NamedTuple):
    """The kind of dump to write, and the directory."""

    #: The directory.
    operands: tuple[str]
    like: str = "modern"
    #: dom0's memory in bytes.
    memory: int | None = None
    #: The same seed gives the same bytes.
    seed: int = 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``sample``."""
    kinds = "; ".join(f"{name}: {text}" for name, text in xenkdump_forge.KINDS.items())
    parser.add_argument(
        "--like", default="modern", metavar="KIND", help=f"default: modern. Kinds: {kinds}"
    )
    parser.add_argument(
        "--memory",
        type=size,
        metavar="SIZE",
        help="dom0's memory, as 512M or 2G, at most 512G; sparse in the file, and ballooned out "
        "from 4G on",
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="same seed, same bytes")


def size(text: str) -> int:
    """A size in bytes from ``512M``, ``2G`` or a plain number."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    count = number(digits)
    if count is None or count < 0 or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"not a size: {text!r} (such as 512M or 2G)")
    return count * _UNITS[unit]


def _seed(text: str) -> int:
    seed = number(text)
    if seed is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return seed


def run(target: None, options: Options) -> "Written":
    """Writes the dump.

    UsageError if there is no such dump, OutputError if it cannot be written.
    """
    (directory,) = options.operands
    try:
        made = xenkdump_forge.write_dump(
            directory,
            options.like,
            memory=options.memory,
            seed=options.seed,
            progress=partial(progress.now.set, "page"),
        )
    except xenkdump_forge.WriteError as error:
        raise OutputError(str(error)) from None
    except xenkdump_forge.SyntheticDumpError as error:
        raise UsageError(str(error)) from None
    return Written(options.like, made)


class JSON(TypedDict):
    """What ``sample --json`` prints."""

    kind: str
    vmlinux: str
    vmcore: str
    plan: str


class Written(NamedTuple):
    """The files of a synthetic dump."""

    kind: str
    dump: "SyntheticDump"

    def text(self) -> Iterator[str]:
        """The files, then a command to try."""
        vmlinux, vmcore, plan = map(str, self._paths())
        yield from (vmlinux, vmcore, plan)
        yield f"Try: xkdump bt -a {vmlinux} {vmcore}"

    def json(self) -> JSON:
        """The kind and the paths of the files."""
        vmlinux, vmcore, plan = map(str, self._paths())
        return {"kind": self.kind, "vmlinux": vmlinux, "vmcore": vmcore, "plan": plan}

    def _paths(self) -> tuple[object, object, object]:
        dump = self.dump
        return dump.vmlinux, dump.vmcore, dump.directory / "plan.json"
