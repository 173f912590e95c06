"""``whatis``: the definition of a type, the declaration of a variable."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict
from ..linux.system import Linux
from ..linux.typed import expression, printing, types
from ..output.json_types import Count
from ..session import Domain
from ..suggestions import UnknownNameError
from .contract import Operands
from .selection import for_each

OPERANDS = Operands("TYPE|VARIABLE", "the name of a type or of a global variable", "+")


class Options(NamedTuple):
    """What is asked for."""

    operands: Sequence[str] = ()


class Known(NamedTuple):
    """One name."""

    name: str
    #: ``type`` or ``variable``.
    kind: str
    definition: Sequence[str]
    size: int | None


def run(target: Domain, options: Options = Options()) -> "Definitions":
    """Looks up every name, as a variable first; AbsentError if none of them is known."""
    found: list[Known] = []
    failure = for_each(options.operands, lambda name: found.append(_find(target, name)))
    return Definitions(found, failure)


def _find(domain: Domain, name: str) -> Known:
    kernel = domain.kernel
    word = kernel.word
    is_symbol = name in kernel.symbols
    if is_symbol:
        with suppress(AbsentError):
            spelled = _with_length(kernel, name, kernel.variable_type(name))
            size: int | None = None
            with suppress(AbsentError):
                size = types.sizeof(types.parse(kernel, spelled), word) or None
            return Known(name, "variable", [_declared(spelled, name)], size)
    if name not in kernel.types.graph:
        why = "a symbol without a type" if is_symbol else "neither a variable nor a type"
        text = f"{kernel.image.path}: {name} is {why}"
        raise UnknownNameError(text, name, partial(_names, kernel))
    of = kernel.types.graph.find(name)
    *definition, _ = printing.layout(of, word)
    return Known(name, "type", definition, types.sizeof(of, word))


def _names(kernel: Linux) -> Iterator[str]:
    """The names of variables and types."""
    yield from kernel.symbols.table().names
    for one in kernel.types.graph:
        yield one.name


def _with_length(kernel: Linux, name: str, spelled: str) -> str:
    """The type of a variable; that of an array with its length, by the size of the symbol."""
    # Sizes of kallsyms extend to the next symbol.
    if spelled.endswith("[]") and kernel.image.symbol_source == "symtab":
        with suppress(AbsentError):
            length = types.length(expression.variable(kernel, name).type)
            return f"{spelled[:-2]}[{length or ''}]"
    return spelled


def _declared(spelled: str, name: str) -> str:
    base, bracket, rest = spelled.partition("[")
    base = base.rstrip()
    gap = "" if base.endswith("*") else " "
    return f"{base}{gap}{name}{bracket}{rest};"


class KnownJson(TypedDict):
    """A type or a variable; ``size`` only if it is known."""

    name: str
    kind: str
    definition: str
    size: NotRequired[Count]


class JSON(TypedDict):
    """What ``whatis --json`` prints."""

    names: list[KnownJson]


class Definitions(NamedTuple):
    """Definitions of types and declarations of variables."""

    found: Sequence[Known]
    failure: str | None

    def text(self) -> Iterator[str]:
        """As C, and the size."""
        for one in self.found:
            yield from one.definition
            if one.size is not None and one.kind == "type":
                yield f"SIZE: {one.size}"

    def json(self) -> JSON:
        """The same."""
        return {"names": [_json(one) for one in self.found]}


def _json(one: Known) -> KnownJson:
    found: KnownJson = {
        "name": one.name,
        "kind": one.kind,
        "definition": "\n".join(one.definition),
    }
    if one.size is not None:
        found["size"] = one.size
    return found
