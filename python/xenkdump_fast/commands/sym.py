"""``sym``: symbols by name and by address."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise

from .._native import AbsentError, Symbol
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..output.escape import visible
from ..output.json_types import Count, Hex, Stream
from . import addresses, source_lines
from .addresses import Program
from .contract import Operands, UsageError
from .selection import for_each
from .source_lines import Line

if TYPE_CHECKING:
    from ..session import Domain
    from ..xen.host import XenHost

OPERANDS = Operands("ADDRESS|SYMBOL", "an address in hex, or the name of a symbol", hypervisor=True)


class Options(NamedTuple):
    """Which symbols."""

    #: Addresses in hex, or names.
    operands: Sequence[str] = ()
    #: Every symbol.
    all: bool = False
    #: Every symbol of this module.
    module: str | None = None
    #: Every symbol whose name contains this.
    query: str | None = None
    #: Also the symbol before each one.
    previous: bool = False
    #: Also the symbol after each one.
    next: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``sym``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-l", "--all", action="store_true", help="every symbol, by address")
    which.add_argument("-M", "--module", metavar="MODULE", help="every symbol of this module")
    which.add_argument(
        "-q", "--query", metavar="TEXT", help="every symbol whose name contains this text"
    )
    parser.add_argument(
        "-p", "--previous", action="store_true", help="also the symbol before each one"
    )
    parser.add_argument("-n", "--next", action="store_true", help="also the symbol after each one")


class Found(NamedTuple):
    """A symbol, and the address in it that was asked for."""

    symbol: Symbol
    offset: int = 0
    #: The line of the code there.
    line: Line | None = None


def run(target: "Domain | XenHost", options: Options = Options()) -> "FoundSymbols":
    """Looks up each operand, or lists symbols; AbsentError if none is found."""
    lists = options.all or options.module is not None or options.query is not None
    if lists == bool(options.operands):
        raise UsageError("either a symbol or an address is needed, or one of --all, -M and -q")
    known = addresses.program(target)
    if known.code is None:
        raise AbsentError(f"{known.name}: no symbols: xen-syms is needed")
    if lists:
        return FoundSymbols(known.word, _matching(known, options))
    found: list[Found] = []
    failure = for_each(options.operands, lambda operand: found.extend(_find(known, operand)))
    if options.previous or options.next:
        found = list(_with_neighbours(known, found, options))
    return FoundSymbols(known.word, iter(_with_lines(target, found)), failure)


def _with_lines(target: "Domain | XenHost", found: Sequence[Found]) -> Sequence[Found]:
    """With source lines, as far as there are any."""
    finder = source_lines.finder_if_any(target)
    if finder is None:
        return found
    lines = finder.find([one.symbol.address + one.offset for one in found])
    return [one._replace(line=line) for one, line in zip(found, lines, strict=True)]


def _find(known: Program, operand: str) -> list[Found]:
    assert known.code is not None
    named = known.code.all(operand)
    if named:
        return [Found(symbol) for symbol in named]
    address = known.address(operand)
    symbol = known.symbol(address)
    if symbol is None:
        raise AbsentError(f"{operand}: no symbol of {known.name} is at this address")
    return [Found(symbol, address - symbol.address)]


def _matching(known: Program, options: Options) -> Iterator[Found]:
    """The symbols that the options list; AbsentError if there are none."""
    assert known.code is not None
    found: Iterable[Symbol] = known.code
    if options.module is not None:
        found = (symbol for symbol in found if symbol.module == options.module)
    if options.query is not None:
        query = options.query
        found = (symbol for symbol in found if query in symbol.name)
    symbols = iter(found)
    first = list(islice(symbols, 1))
    if not first:
        if options.module is not None:
            raise AbsentError(f"{known.name}: no symbols of a module {options.module}")
        raise AbsentError(f"{known.name}: no symbol whose name contains {options.query!r}")
    return map(Found, chain(first, symbols))


def _with_neighbours(known: Program, found: Sequence[Found], options: Options) -> Iterator[Found]:
    """Each symbol with the one before and after it."""
    assert known.code is not None
    wanted = {one.symbol.address for one in found}
    before: dict[int, Symbol] = {}
    after: dict[int, Symbol] = {}
    for first, second in pairwise(known.code):
        if first.module != second.module or first.address == second.address:
            continue
        if second.address in wanted:
            before.setdefault(second.address, first)
        if first.address in wanted:
            after.setdefault(first.address, second)
    for one in found:
        address = one.symbol.address
        if options.previous and address in before:
            yield Found(before[address])
        yield one
        if options.next and address in after:
            yield Found(after[address])


class SymbolJson(TypedDict):
    """A symbol. ``offset`` is the distance of the address that was asked for; sizes may be 0.

    ``type`` is the letter that nm shows for it. ``file`` and ``line`` only of code, with DWARF.
    """

    name: str
    address: Hex
    offset: Count
    size: Count
    module: str | None
    type: str
    file: NotRequired[str]
    line: NotRequired[Count]


class JSON(TypedDict):
    """What ``sym --json`` prints."""

    symbols: Stream[SymbolJson]


HYPERVISOR_JSON = JSON


class FoundSymbols(NamedTuple):
    """Symbols."""

    word: int
    symbols: Iterator[Found]
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """A line for each as crash prints it: address, type, name and offset, module, line."""
        width = self.word * 2
        for symbol, offset, line in self.symbols:
            inside = f"+{offset}" if offset else ""
            module = f" [{visible(symbol.module)}]" if symbol.module else ""
            letter = visible(symbol.letter)
            source = "" if line is None else f" {line}"
            address = f"{symbol.address + offset:0{width}x}"
            yield f"{address} ({letter}) {visible(symbol.name)}{inside}{module}{source}"

    def json(self) -> JSON:
        """The same."""
        return {"symbols": map(_json, self.symbols)}


def _json(found: Found) -> SymbolJson:
    symbol, offset, line = found
    shown: SymbolJson = {
        "name": symbol.name,
        "address": hex(symbol.address),
        "offset": offset,
        "size": symbol.size,
        "module": symbol.module,
        "type": symbol.letter,
    }
    if line is not None:
        shown["file"], shown["line"] = line
    return shown
