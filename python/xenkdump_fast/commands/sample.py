"""``sample``: writes a small synthetic dump for learning and testing."""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import xenkdump_forge

from .. import parsing, progress
from .contract import Operands, OutputError, UsageError

if TYPE_CHECKING:
    from xenkdump_forge import SyntheticDump

OPERANDS = Operands("DIR", "where vmlinux, vmcore and plan.json are written", "1")


class Options(NamedTuple):
    """The kind of dump to write, and the directory."""

    #: The directory.
    operands: tuple[str]
    like: str = "modern"
    #: dom0's memory in bytes.
    memory: int | None = None
    #: The same seed gives the same bytes.
    seed: int = 0
    #: The file format of the dump.
    format: str = "elf"
    #: How the dump is compressed as a whole.
    compress: str | None = None
    #: Also the forms in which people have the image of a kernel.
    images: bool = False
    #: Replaces existing files.
    overwrite: bool = False


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
    formats = "; ".join(f"{name}: {text}" for name, text in xenkdump_forge.FORMATS.items())
    parser.add_argument(
        "--format", default="elf", metavar="FORMAT", help=f"default: elf. Formats: {formats}"
    )
    compressions = ", ".join(xenkdump_forge.COMPRESSIONS)
    parser.add_argument(
        "--compress",
        metavar="COMPRESSION",
        help=f"compress the dump as a whole. Compressions: {compressions}",
    )
    parser.add_argument(
        "--images",
        action="store_true",
        help="also the folder images, with dom0's kernel as a vmlinuz of each compression, as "
        "compressed and stripped vmlinux, and as System.map",
    )
    parser.add_argument(
        "--overwrite", "--force", action="store_true", help="replace existing files"
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="same seed, same bytes")


def size(text: str) -> int:
    """A size in bytes from ``512M``, ``2G`` or a plain number."""
    try:
        return parsing.size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seed(text: str) -> int:
    seed = parsing.number(text)
    if seed is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return seed


def run(target: None, options: Options) -> "Written":
    """Writes the dump.

    UsageError if there is no such dump, OutputError if it cannot be written.
    """
    (directory,) = options.operands
    if not options.overwrite:
        _check_absent(Path(directory))
    try:
        made = xenkdump_forge.write_dump(
            directory,
            options.like,
            memory=options.memory,
            seed=options.seed,
            format=options.format,
            compress=options.compress,
            images=options.images,
            progress=partial(progress.now.set, "page"),
        )
    except xenkdump_forge.WriteError as error:
        raise OutputError(str(error)) from None
    except xenkdump_forge.SyntheticDumpError as error:
        raise UsageError(str(error)) from None
    return Written(options, made)


def _check_absent(directory: Path) -> None:
    """UsageError if the directory has a file of a name that is written: it may be a real dump."""
    names = ("vmlinux", "plan.json", "vmcore", "vmcore.2", "vmcore.3", "images")
    for path in (directory / name for name in names):
        if path.exists():
            raise UsageError(f"{path} exists (--overwrite replaces it)")


class JSON(TypedDict):
    """What ``sample --json`` prints."""

    kind: str
    vmlinux: str
    vmcore: str
    plan: str


class Written(NamedTuple):
    """The files of a synthetic dump."""

    options: Options
    dump: "SyntheticDump"

    def text(self) -> Iterator[str]:
        """The files, then a command to try."""
        vmlinux, vmcore, plan = map(str, self._paths())
        yield from (vmlinux, vmcore, plan)
        options = ""
        if self.options.compress not in (None, "zstd-seekable"):
            options += f"--cache-dir {self.dump.directory / 'unpacked'} "
        if self.options.format == "raw":
            options += "--format raw "
        # Images of memory have no notes, which lead to a Xen host's kernels.
        if self.options.format in ("lime", "raw"):
            yield f"Try: xkdump notes {options}{vmcore}"
        else:
            yield f"Try: xkdump bt -a {options}{vmlinux} {vmcore}"

    def json(self) -> JSON:
        """The kind and the paths of the files."""
        vmlinux, vmcore, plan = map(str, self._paths())
        return {"kind": self.options.like, "vmlinux": vmlinux, "vmcore": vmcore, "plan": plan}

    def _paths(self) -> tuple[object, object, object]:
        dump = self.dump
        return dump.vmlinux, dump.vmcore, dump.directory / "plan.json"
