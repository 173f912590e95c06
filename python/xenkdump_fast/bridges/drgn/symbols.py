"""Symbols of the kernel and its modules, for drgn."""

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from drgn import Program, Symbol, SymbolBinding, SymbolKind

from ..._native import Symbol as OwnSymbol
from ..._native import Symbols
from ...linux.system import Linux


class Finder:
    """The symbol finder. The symbols of modules are read when one is needed.

    ``known`` has the modules whose symbols drgn has from their files; None is the kernel.
    """

    def __init__(self, kernel: Linux, known: Collection[str | None]) -> None:
        self._kernel = kernel
        self._known = known
        symbols = kernel.symbols
        start, end = (symbols.get(name) or 0 for name in ("_stext", "_end"))
        self._image = range(start, end)
        self._has_modules = False

    def __call__(
        self, _program: Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        """The symbols of that name, the one at that address, or all."""
        found: Iterable[OwnSymbol]
        if name is not None:
            found = self._named(name)
            if address is not None:
                found = (each for each in found if _covers(each, address))
        elif address is not None:
            found = self._at(address)
        else:
            self._load_modules()
            found = self._kernel.code
        if self._known:
            found = (each for each in found if each.module not in self._known)
        made = map(_symbol, found)
        return list(islice(made, 1 if one else None))

    def _load_modules(self) -> None:
        if not self._has_modules:
            self._has_modules = True
            _ = self._kernel.unwinder  # which adds them to ``code``

    def _named(self, name: str) -> list[OwnSymbol]:
        kernel = self._kernel
        found = kernel.symbols.all(name)
        if not found:
            self._load_modules()
            found = kernel.code.all(name)
        # Of several, the one that a lookup by name prefers comes first.
        first = kernel.symbols.get(name)
        return sorted(found, key=lambda each: each.address != first)

    def _at(self, address: int) -> list[OwnSymbol]:
        if address not in self._image:
            self._load_modules()
        found = self._kernel.code.lookup(address)
        return [found] if found is not None and _covers(found, address) else []


class Static:
    """The symbol finder of an image without modules."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols

    def __call__(
        self, _program: Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        """The symbols of that name, the one at that address, or all."""
        found: Iterable[OwnSymbol] = self._symbols
        if name is not None:
            found = self._symbols.all(name)
        elif address is not None:
            nearest = self._symbols.lookup(address)
            found = [] if nearest is None else [nearest]
        if address is not None:
            found = (each for each in found if _covers(each, address))
        return list(islice(map(_symbol, found), 1 if one else None))


_KINDS = {"func": SymbolKind.FUNC, "object": SymbolKind.OBJECT, "notype": SymbolKind.UNKNOWN}
_BINDINGS = {
    "global": SymbolBinding.GLOBAL,
    "weak": SymbolBinding.WEAK,
    "local": SymbolBinding.LOCAL,
}


def _symbol(own: OwnSymbol) -> Symbol:
    return Symbol(own.name, own.address, own.size, _BINDINGS[own.binding], _KINDS[own.kind])


def _covers(symbol: OwnSymbol, address: int) -> bool:
    return symbol.address <= address < symbol.address + max(symbol.size, 1)
