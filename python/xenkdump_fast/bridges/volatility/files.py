"""Writes symbol files, and keeps them in a directory."""

import hashlib
import json
import lzma
from pathlib import Path

from ...linux.kernel import Kernel
from ...output.new_file import new_file
from . import isf

#: How much of the symbols file is compressed at once.
_PIECE = 1 << 20
#: xz's least level: a higher one takes several times as long for a tenth less.
_PRESET = 1


def write(kernel: Kernel, path: Path, *, force: bool) -> None:
    """Writes the symbol file of a kernel: compressed if its name ends in ``.xz``.

    It is complete or absent. AbsentError if there is nothing to write, FileExistsError if it exists
    and ``force`` does not say to replace it, OSError if it cannot be written.
    """
    with new_file(str(path), force=force) as part:
        data = json.dumps(isf.document(kernel), separators=(",", ":")).encode()
        if path.suffix == ".xz":
            with lzma.open(part, "xb", preset=_PRESET) as file:
                for at in range(0, len(data), _PIECE):
                    file.write(data[at : at + _PIECE])
        else:
            with open(part, "xb") as plain:
                plain.write(data)


def symbol_file(kernel: Kernel, directory: Path) -> Path:
    """The symbol file of a kernel in a directory; it is written if it is not there."""
    path = directory / f"{_name(kernel)}.json"
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        write(kernel, path, force=True)
    return path


def _name(kernel: Kernel) -> str:
    """A name that is the same for the same symbols and types, made by the same version."""
    native = kernel.types.native
    facts = (
        kernel.image.build_id or kernel.image.path,
        kernel.image.symbol_source,
        str(kernel.image.is_memory),
        str(len(kernel.image.symbols(0))),
        "" if native is None else native.source,
        isf.producer(),
    )
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()
    return f"isf-{digest[:32]}"
