"""``isf``: the symbol file of a kernel for volatility3."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from .._typing import NamedTuple, TypedDict
from ..output.json_types import Count
from ..output.new_file import is_one_of
from ..session import Domain
from .contract import OutputError, UsageError


class Options(NamedTuple):
    """The file to write."""

    output: str | None = None
    #: Replaces an existing file.
    overwrite: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``isf``."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a name that ends in .json or .json.xz; default: linux-RELEASE.json.xz",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(target: Domain, options: Options = Options()) -> "Written":
    """Writes the file.

    UsageError for a wrong name or a file that exists, OutputError if it cannot be written.
    """
    from ..bridges.volatility import files

    kernel = target.kernel
    path = Path(options.output or f"linux-{_plain(kernel.release)}.json.xz")
    if not path.name.endswith((".json", ".json.xz")):
        raise UsageError(f"argument --output: {path} ends in neither .json nor .json.xz")
    if is_one_of(str(path), [*target.dump.paths, kernel.image.path]):
        raise UsageError(f"{path} is a file that is read")
    if os.path.lexists(path) and not options.overwrite:
        raise UsageError(f"{path} exists (--overwrite replaces it)")
    try:
        files.write(kernel, path, force=options.overwrite)
        size = path.stat().st_size
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
    return Written(target.id, str(path), size)


def _plain(release: str) -> str:
    """A release of a kernel as part of the name of a file."""
    return "".join(char if char.isalnum() or char in ".-+" else "_" for char in release)


class JSON(TypedDict):
    """What ``isf --json`` prints."""

    domain: Count
    file: str
    size: Count


class Written(NamedTuple):
    """A symbol file."""

    domain: int
    path: str
    size: int

    def text(self) -> Iterator[str]:
        """The name of the file."""
        yield self.path

    def json(self) -> JSON:
        """The file, with its size in bytes."""
        return {"domain": self.domain, "file": self.path, "size": self.size}
