"""volatility3's symbol file (ISF, schema 6.2.0) of a kernel.

Addresses are those of the link: volatility3 finds the offset of KASLR itself. The banner of the
kernel is what it recognises the kernel by.
"""

import base64
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..._native import MemoryFault, Symbols
from ...linux import variables
from ...linux.boot.image import BANNER, banner_of
from ...linux.kernel import Kernel
from .declarations import Declarations
from .isf_types import FUNCTION, VOID, Descriptor, IsfTypes

SCHEMA = "6.2.0"


def document(kernel: Kernel) -> dict[str, Any]:
    """The symbol file of a kernel, as a JSON object.

    AbsentError if there is no type information, or no banner.
    """
    graph, native = kernel.types.graph, kernel.types.native
    assert native is not None
    banner = _banner(kernel)
    types = IsfTypes(graph, kernel.word, numbered=native.source == "BTF")
    symbols = kernel.image.symbols(0)
    described = _Symbols(kernel, types, symbols).described()
    types.finish()
    if "linux_banner" not in described:
        raise kernel.missing("linux_banner")
    described["linux_banner"]["constant_data"] = base64.b64encode(banner).decode()
    return {
        "metadata": _metadata(kernel, native.source),
        "base_types": types.base_types,
        "enums": types.enums,
        "user_types": types.user_types,
        "symbols": described,
    }


def _banner(kernel: Kernel) -> bytes:
    """The banner with its NUL, as it is in memory."""
    try:
        banner = kernel.cstring(kernel.symbol("linux_banner"))
    except MemoryFault:
        banner = b""
    if not banner.startswith(BANNER):
        banner = banner_of(kernel.image)
    return banner + b"\0"


def producer() -> str:
    """The version of this package."""
    try:
        return version("xenkdump_fast")
    except PackageNotFoundError:
        return "0"


def _metadata(kernel: Kernel, source: str) -> dict[str, Any]:
    """Who made the file, and of what. The schema has no name for BTF or kallsyms."""
    name = kernel.image.path.rpartition("/")[2]
    of: dict[str, Any] = {}
    if kernel.image.symbol_source != "kallsyms":
        kind = "system-map" if kernel.image.symbol_source == "map" else "symtab"
        of["symbols"] = [{"kind": kind, "name": name}]
    if source == "DWARF":
        of["types"] = [{"kind": "dwarf", "name": name}]
    own = {"name": "xenkdump_fast", "version": producer()}
    return {"format": SCHEMA, "producer": own, "linux": of}


class _Symbols:
    """The symbols of a kernel with the types that are known."""

    def __init__(self, kernel: Kernel, types: IsfTypes, symbols: Symbols) -> None:
        self._kernel = kernel
        self._symbols = symbols
        self._types = types
        self._version = kernel.version
        self._declarations = Declarations(kernel.types.graph, types, kernel.word)

    def described(self) -> dict[str, dict[str, Any]]:
        """All symbols by name; of several of one name, the one that ``Symbols.get`` prefers."""
        table = self._symbols.table()
        found: dict[str, dict[str, Any]] = {}
        rows = zip(
            table.names, table.addresses.tolist(), table.sizes.tolist(), table.kinds, strict=True
        )
        doubled = set()
        for name, address, size, kind in rows:
            if name in found:
                doubled.add(name)
                continue
            found[name] = {"type": self._type(name, size, kind), "address": address}
        for name in doubled:
            best = self._symbols.get(name)
            chosen = next(item for item in self._symbols.all(name) if item.address == best)
            kind, size = chosen.kind, chosen.size
            found[name] = {"type": self._type(name, size, kind), "address": chosen.address}
        return found

    def _type(self, name: str, size: int, kind: str) -> Descriptor:
        own = self._types.variable(name)
        if own is not None:
            return self._types.describe(own)
        text = variables.type_of(name, self._version, self._kernel.word)
        if text is not None:
            described = self._declarations.describe(text, size)
            if described is not None:
                return described
        return FUNCTION if kind == "func" else VOID
