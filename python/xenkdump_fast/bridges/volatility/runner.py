"""Runs volatility3's command line on a domain.

Nothing is scanned: the place of the kernel, its page tables and its symbols are known, and
volatility3 gets them as a configuration file (its option ``-c``).
"""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..._native import AbsentError
from .. import MissingPackageError
from . import files

if TYPE_CHECKING:
    from ...session.bare import BareMachine
    from ...session.domain import Domain

#: What volatility3 calls itself in its messages.
NAME = "xkdump volatility"

#: volatility3's class of page tables by the format of the kernel's.
_LAYERS = {
    "x86": "LinuxIntel",
    "x86-pae": "LinuxIntelPAE",
    "x86_64": "LinuxIntel32e",
}
#: The names under which plugins require the kernel, and its memory alone.
_KERNEL, _MEMORY = "kernel", "primary"
#: Bits of an address that have a meaning, by word size.
_MASKS = {4: (1 << 32) - 1, 8: (1 << 48) - 1}


def check() -> None:
    """Raises MissingPackageError without volatility3."""
    if importlib.util.find_spec("volatility3") is None:
        raise MissingPackageError("volatility3", "volatility")


def prepare(directory: str) -> None:
    """Imports volatility3, which makes its cache directory at once: in this one, not at home."""
    known = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = directory
    try:
        import volatility3.framework.constants
        import volatility3.schemas  # noqa: F401
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if known is not None:
            os.environ["XDG_CACHE_HOME"] = known


def run(domain: "Domain", words: Sequence[str], cache: str | None = None) -> int:
    """Runs volatility3 with the words of its command line; returns the exit status.

    ``cache`` is a directory that keeps the symbol file, which takes seconds to write. AbsentError
    if the domain lacks what volatility3 needs.
    """
    check()
    bare = domain.as_bare()
    key = f"{domain.dump.path}:{domain.id}"
    with tempfile.TemporaryDirectory(prefix="xkdump-") as temporary:
        prepare(temporary)
        from volatility3 import cli

        from .layer import DomainLayer

        symbols = files.symbol_file(domain.kernel, Path(cache or temporary))
        accept(symbols)
        config = Path(temporary) / "config.json"
        config.write_text(json.dumps(configuration(bare, key, symbols)))
        options = ["--offline", "--cache-path", temporary, "-c", str(config)]
        argv, sys.argv = sys.argv, [NAME, *options, *words]
        DomainLayer.register(key, bare.memory, bare.runs())
        try:
            cli.CommandLine.CLI_NAME = NAME
            cli.CommandLine().run()
            sys.stdout.flush()
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        finally:
            sys.argv = argv
            DomainLayer.forget(key)
    return 0


def accept(symbols: Path) -> None:
    """Spares the validation of our own file against the schema, which takes a minute."""
    from volatility3 import schemas

    document = json.loads(symbols.read_text())
    known = schemas.create_json_hash(document)
    if known is not None:
        schemas.cached_validations.add(known)


def configuration(bare: "BareMachine", key: str, symbols: Path) -> dict[str, object]:
    """The configuration of any plugin: the kernel, and its memory alone.

    ``key`` is what the memory was registered by. AbsentError if volatility3 does not know the
    format of the page tables.
    """
    name = _LAYERS.get(bare.paging)
    if name is None:
        raise AbsentError(f"volatility3 cannot read page tables of the format {bare.paging}")
    slide = bare.domain.kernel.location.slide
    layer = {
        "class": f"volatility3.framework.layers.intel.{name}",
        "page_map_offset": bare.root,
        "kernel_virtual_offset": slide,
        "memory_layer.class": f"{__package__}.layer.DomainLayer",
        "memory_layer.key": key,
    }
    table = {
        "class": "volatility3.framework.symbols.linux.LinuxKernelIntermedSymbols",
        "isf_url": symbols.absolute().as_uri(),
        "symbol_mask": _MASKS[bare.word],
    }
    config: dict[str, object] = {
        f"{_KERNEL}.class": "volatility3.framework.contexts.Module",
        f"{_KERNEL}.offset": slide,
    }
    config |= {f"{_KERNEL}.layer_name.{name}": value for name, value in layer.items()}
    config |= {f"{_KERNEL}.symbol_table_name.{name}": value for name, value in table.items()}
    config |= {f"{_MEMORY}.{name}": value for name, value in layer.items()}
    return config
