"""File formats that a synthetic dump is written in, besides ELF."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from ..elf.core import Core
from ..errors import SyntheticDumpError
from ..formats import FORMATS
from ..kernels.base import Kernel
from . import flattened, images, kdump, save, save_v1
from .saved_domain import SavedDomain


def write(core: Core, path: Path, name: str, kernels: Sequence[Kernel] = ()) -> None:
    """Writes a dump in a format of ``FORMATS``; more files beside it if it is split.

    Formats of a single domain have the first of ``kernels``.
    """
    if name in _DOMAIN_WRITERS:
        if not kernels:
            raise SyntheticDumpError(f"{name} is the format of a domain")
        with path.open("wb") as file:
            _DOMAIN_WRITERS[name](SavedDomain.of(kernels[0]), file)
        return
    if name not in _WRITERS:
        raise SyntheticDumpError(f"unknown format {name!r}; the formats are {', '.join(FORMATS)}")
    _WRITERS[name](core, path)


def _kdump(compression: str) -> Callable[[Core, Path], None]:
    return lambda core, path: kdump.write(core, [path], compression=compression)


def _split(core: Core, path: Path) -> None:
    kdump.write(core, [path, *(path.with_name(f"{path.name}.{i}") for i in (2, 3))])


def _flattened(core: Core, path: Path) -> None:
    core.write(path)
    path.write_bytes(flattened.flatten(path.read_bytes()))


def _flattened_kdump(core: Core, path: Path) -> None:
    kdump.write(core, [path])
    path.write_bytes(flattened.flatten(path.read_bytes()))


def _image(write_image: Callable[[Core, io.BufferedIOBase], None]) -> Callable[[Core, Path], None]:
    def writer(core: Core, path: Path) -> None:
        with path.open("wb") as file:
            write_image(core, file)

    return writer


_WRITERS: dict[str, Callable[[Core, Path], None]] = {
    "elf": lambda core, path: core.write(path),
    **{f"kdump-{name}": _kdump(name) for name in ("raw", "zlib", "lzo", "snappy", "zstd")},
    "kdump-split": _split,
    "flattened": _flattened,
    "flattened-kdump": _flattened_kdump,
    "lime": _image(images.lime),
    "raw": _image(images.raw),
}
_DOMAIN_WRITERS: dict[str, Callable[[SavedDomain, io.BufferedIOBase], None]] = {
    "xl-save": save.write,
    "xl-save-hvm": lambda domain, file: save.write(domain, file, save.Options(hvm=True)),
    "xm-save": save_v1.write,
    "xm-save-hvm": lambda domain, file: save_v1.write(domain, file, save_v1.Options(hvm=True)),
}
