"""``p``: evaluates an expression."""

import argparse
import re
from collections.abc import Iterator, Sequence

from .._typing import Any, NamedTuple, NotRequired, TypedDict
from ..linux import percpu
from ..linux.typed import expression, printing, types
from ..linux.typed.value import Value
from ..output.escape import printable
from ..output.json_types import Count, Hex
from ..session import Domain
from .contract import Operands

OPERANDS = Operands(
    "EXPRESSION",
    "an expression of C: a variable with members and elements, *, &, casts, sizeof, + and -; "
    "NAME:CPU is the instance of a per-CPU variable, NAME:a all of them",
    "+",
)
_EVERY_CPU = re.compile(r"(\w+):a\b(.*)", re.ASCII)


class Options(NamedTuple):
    """What to evaluate."""

    #: The words of the expression.
    operands: Sequence[str] = ()
    #: Numbers in hex.
    hex: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``p``."""
    parser.add_argument("-x", "--hex", action="store_true", help="numbers in hex")


def run(target: Domain, options: Options = Options()) -> "Values":
    """Evaluates the expression. AbsentError (MemoryFault) if it has no value."""
    kernel = target.kernel
    _ = kernel.unwinder  # loads the symbols of modules, which name addresses
    text = " ".join(options.operands)
    every = _EVERY_CPU.fullmatch(text.strip())
    if every is None:
        value = _known(expression.evaluate(kernel, text))
        return Values(text, [(None, value)], options.hex)
    found: list[tuple[int | None, Value]] = []
    for cpu in percpu.possible(kernel):
        value = expression.evaluate(kernel, f"{every[1]}:{cpu}{every[2]}")
        found.append((cpu, _known(value)))
    return Values(text, found, options.hex, (every[1], every[2]))


def _known(value: Value) -> Value:
    """Raises MemoryFault if the value is in memory that cannot be read."""
    if value.address is not None and value.size:
        value.data(1)
    return value


class ValueJson(TypedDict):
    """A value. ``cpu`` only of an instance of a per-CPU variable; ``address`` if it has one."""

    cpu: NotRequired[Count]
    type: str
    address: NotRequired[Hex]
    value: Any


class JSON(TypedDict):
    """What ``p --json`` prints."""

    expression: str
    values: list[ValueJson]


class Values(NamedTuple):
    """Values of an expression."""

    expression: str
    values: Sequence[tuple[int | None, Value]]
    hex: bool
    #: The per-CPU variable and what follows it, if they are of all CPUs.
    of_all: tuple[str, str] | None = None

    def text(self) -> Iterator[str]:
        """The expression and its value, as crash prints them."""
        style = printing.Style(16 if self.hex else 10)
        parts = types.Parts()
        for cpu, value in self.values:
            name = self.expression
            if self.of_all is not None:
                variable, rest = self.of_all
                name = f"per_cpu({variable}, {cpu}){rest}"
            lines = printing.text(value, style, parts).split("\n")
            yield printable(f"{name} = {'' if len(lines) > 1 else lines[0]}".rstrip())
            if len(lines) > 1:
                yield from map(printable, lines)

    def json(self) -> JSON:
        """The values with their types."""
        parts = types.Parts()
        return {
            "expression": self.expression,
            "values": [_json(*one, parts) for one in self.values],
        }


def _json(cpu: int | None, value: Value, parts: types.Parts) -> ValueJson:
    found: ValueJson = {
        "type": "void" if value.type is None else str(value.type),
        "value": printing.plain(value.read_ahead() if value.address is not None else value, parts),
    }
    if cpu is not None:
        found["cpu"] = cpu
    if value.address is not None:
        found["address"] = hex(value.address)
    return found
