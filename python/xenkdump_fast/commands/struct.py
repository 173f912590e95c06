"""``struct``: the layout of a struct, union or typedef, and instances of it in memory."""

import argparse
import re
from collections.abc import Iterator, Sequence

from .. import parsing
from .._native import AbsentError, Type
from .._typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict
from ..linux import percpu
from ..linux.typed import printing, types
from ..linux.typed.value import Value
from ..output.escape import printable
from ..output.json_types import Count, Hex
from ..session import Domain
from . import addresses
from .contract import Operands, UsageError

if TYPE_CHECKING:
    from ..linux.typed.types import CType

OPERANDS = Operands(
    "STRUCT[.MEMBER,...] [ADDRESS|SYMBOL[+OFFSET]|VARIABLE:CPU [COUNT]]",
    "a struct, union or typedef, with members to select (se.vruntime, comm[3]); then where it is "
    "in memory, and how many there are one after another",
    "+",
)
#: The most instances at once.
MAX_COUNT = 4096
#: An element may be this far behind the start of an array.
_MAX_OFFSET_BITS = 32
#: A member, and elements of an array in it.
_PART = re.compile(r"([A-Za-z_]\w*)((?:\[\w+\])*)", re.ASCII)


class Options(NamedTuple):
    """What to print."""

    #: The type, an address, a count.
    operands: Sequence[str] = ()
    #: Offsets of the members, in a layout.
    offsets: bool = False
    #: Numbers in hex.
    hex: bool = False
    #: The address is that of this member: an offset, or STRUCT.MEMBER.
    inside: str | None = None
    #: A type of this module.
    module: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``struct``."""
    parser.add_argument(
        "-o",
        "--offsets",
        action="store_true",
        help="with offsets of the members; with an address, their addresses",
    )
    parser.add_argument("-x", "--hex", action="store_true", help="numbers in hex")
    parser.add_argument(
        "-l",
        "--inside",
        metavar="OFFSET|STRUCT.MEMBER",
        help="the address is that of this member, such as a list_head",
    )
    parser.add_argument("-M", "--module", metavar="MODULE", help="a type of this module")


def run(target: Domain, options: Options = Options()) -> "Layout | Instances":
    """The layout of a type, or instances of it; AbsentError if the type is not known.

    Parts of an instance that cannot be read are marked; if none can be, MemoryFault is raised.
    """
    kernel = target.kernel
    name, *rest = options.operands
    name, _, text = name.partition(".")
    members = [member for member in text.split(",") if member]
    of = named(target, name, options.module)
    if not rest:
        if options.inside is not None:
            raise UsageError("argument -l/--inside: needs an address")
        for member in members:
            place(of, member)
        offsets = printing.Offsets() if options.offsets else None
        return Layout(of, kernel.word, offsets, members)
    address = _address(target, rest[0])
    count = addresses.count(rest[1:], 1)
    if count > MAX_COUNT:
        raise UsageError(f"{count} instances are too many at once: at most {MAX_COUNT}")
    if options.inside is not None:
        address -= offset(target, options.inside, "argument -l/--inside")
    address &= kernel.last
    if options.offsets:
        if count > 1:
            raise UsageError("argument -o/--offsets: not allowed with a count")
        return Layout(of, kernel.word, printing.Offsets(address, kernel.last), members)
    size = types.sizeof(of, kernel.word)
    values = []
    for index in range(count):
        value = Value(kernel, of, address + index * size & kernel.last)
        if size:
            value.data(1)
        values.append(value)
    return Instances(values, members, options.hex)


def _address(domain: Domain, text: str) -> int:
    """An address, or a symbol; for a per-CPU variable, with its CPU."""
    kernel = domain.kernel
    name, colon, number = text.partition(":")
    cpu = parsing.number(number) if colon else None
    address = kernel.symbols.get(name)
    if cpu is not None and address is not None:
        return percpu.instance(kernel, name, address, cpu)
    address = addresses.program(domain).address(text)
    if text in kernel.symbols:
        percpu.reject_per_cpu(kernel, text, address)
    return address


def named(domain: Domain, name: str, module: str | None) -> Type:
    """A struct, union, typedef or other type by name, with or without its keyword."""
    kernel = domain.kernel
    found = kernel.types if module is None else kernel.module_types(module)
    return types.named(found.graph, name)


def offset(domain: Domain, text: str, option: str) -> int:
    """An offset: a number, or the place of STRUCT.MEMBER. Raises UsageError."""
    found = parsing.number(text, 0)
    if found is not None:
        return found
    name, dot, path = text.partition(".")
    if not dot:
        raise UsageError(f"{option}: {text!r} is neither an offset nor STRUCT.MEMBER")
    return place(named(domain, name, None), path).bits // 8


def place(of: "CType", path: str) -> types.Place:
    """A member or an element by its path, as ``se.exec_start`` or ``comm[3]``. AbsentError."""
    bits, width = 0, None
    current: CType = of
    for step in _steps(path):
        if isinstance(step, int):
            bits, width = bits + 8 * step * _element_size(current, step), None
            element = types.target(current)
            assert element is not None
            current = element
        else:
            found = types.member(current, step)
            bits, width, current = bits + found.bits, found.width, found.type
    assert isinstance(current, Type)
    return types.Place(current, bits, width)


def _steps(path: str) -> Iterator[str | int]:
    """The names of members and the numbers of elements in a path; AbsentError."""
    from ..parsing import number

    for part in path.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            raise AbsentError(f"{path}: {part!r} is not a member, such as name or name[3]")
        yield match[1]
        for text in re.findall(r"\w+", match[2]):
            index = number(text, 0)
            if index is None:
                raise AbsentError(f"{path}: {text} is not the number of an element")
            yield index


def _element_size(of: "CType | None", index: int) -> int:
    """The size of an array's elements; AbsentError if it does not have one of this number."""
    if types.kind(of) != "array":
        what = "void" if of is None else of
        raise AbsentError(f"{what} is not an array: it has no element {index}")
    element = types.target(of)
    size = element.completed().sizeof() if isinstance(element, Type) else None
    if size is None:
        raise AbsentError(f"{of}: its elements have no size")
    # The size of the array at the end of a struct is not known.
    if index >= types.length(of) > 0 or index * size >> _MAX_OFFSET_BITS:
        raise AbsentError(f"{of} has no element {index}")
    return size


class MemberJson(TypedDict):
    """A member. ``bit_size`` only of a bit-field; ``size`` is null for a type without one.

    ``address`` only with an address and ``--offsets``.
    """

    name: str
    type: str
    offset: Count
    size: Count | None
    bit_offset: NotRequired[Count]
    bit_size: NotRequired[Count]
    address: NotRequired[Hex]


class InstanceJson(TypedDict):
    """An instance: an object with a member for each one of the struct."""

    address: Hex
    value: Any


class JSON(TypedDict):
    """What ``struct --json`` prints: ``members`` of a layout, or ``instances``."""

    type: str
    size: Count
    members: NotRequired[list[MemberJson]]
    instances: NotRequired[list[InstanceJson]]


class Layout(NamedTuple):
    """The layout of a type."""

    type: Type
    word: int
    #: None for a layout without places.
    offsets: printing.Offsets | None
    #: Only these; all if empty.
    members: Sequence[str]

    def text(self) -> Iterator[str]:
        """The definition in C, and the size."""
        if not self.members:
            yield from printing.layout(self.type, self.word, offsets=self.offsets)
            return
        yield f"{self.type} {{"
        for path in self.members:
            at = place(self.type, path)
            offsets = self.offsets or printing.Offsets()
            offset = f"{offsets.place(at.bits // 8)}{offsets.indent}"
            yield f"{offset}{printing.declaration(at.type, path.split('.')[-1])};"
        yield "}"
        yield f"SIZE: {types.sizeof(self.type, self.word)}"

    def json(self) -> JSON:
        """The members with their offsets, those of anonymous structs beside the others."""
        return {
            "type": str(self.type),
            "size": types.sizeof(self.type, self.word),
            "members": list(self._members()),
        }

    def _members(self) -> Iterator[MemberJson]:
        if self.members:
            for path in self.members:
                yield self._json(path, place(self.type, path))
            return
        struct = types.stripped(self.type)
        if isinstance(struct, Type):
            for name, at in types.places(struct):
                yield self._json(name, at)

    def _json(self, name: str, at: types.Place) -> MemberJson:
        size: int | None
        try:
            size = types.sizeof(at.type, self.word)
        except AbsentError:
            size = None
        found: MemberJson = {
            "name": name,
            "type": str(at.type),
            "offset": at.bits // 8,
            "size": size,
        }
        if at.width is not None:
            found["bit_offset"], found["bit_size"] = at.bits % 8, at.width
        if self.offsets is not None and self.offsets.start is not None:
            found["address"] = hex(self.offsets.start + at.bits // 8 & self.offsets.last)
        return found


class Instances(NamedTuple):
    """Instances of a type."""

    values: Sequence[Value]
    #: Only these; all if empty.
    members: Sequence[str]
    hex: bool

    def text(self) -> Iterator[str]:
        """Each value, or each selected member, as crash prints it."""
        style = printing.Style(16 if self.hex else 10)
        parts = types.Parts()
        for i, value in enumerate(self.values):
            if i:
                yield ""
            yield from shown(value, self.members, style, parts)

    def json(self) -> JSON:
        """Each value; with selected members, those only."""
        parts = types.Parts()
        return {
            "type": str(self.values[0].type),
            "size": self.values[0].size,
            "instances": [self._json(value, parts) for value in self.values],
        }

    def _json(self, value: Value, parts: types.Parts) -> InstanceJson:
        assert value.address is not None
        return {"address": hex(value.address), "value": plain(value, self.members, parts)}


def shown(
    value: Value, members: Sequence[str], style: printing.Style, parts: types.Parts | None = None
) -> Iterator[str]:
    """A value, or each of these members, as crash prints it; ``parts`` as of ``printing.text``."""
    parts = parts or types.Parts()
    if not members:
        yield from _lines(f"{value.type} ", printing.text(value, style, parts))
    for path in members:
        part = _member(value, path)
        yield from _lines(f"  {path} = ", printing.text(part, style, parts), indent="  ")


def plain(value: Value, members: Sequence[str], parts: types.Parts | None = None) -> object:
    """A value for JSON; of these members an object."""
    parts = parts or types.Parts()
    if members:
        return {path: printing.plain(_member(value, path), parts) for path in members}
    return printing.plain(value.read_ahead(), parts)


def _member(value: Value, path: str) -> Value:
    for step in _steps(path):
        if isinstance(step, int):
            _ = _element_size(value.type, step)
            value = value.element(step)
        else:
            value = value.member(step)
    return value


def _lines(start: str, text: str, indent: str = "") -> Iterator[str]:
    first, *rest = text.split("\n")
    yield printable(start + first)
    for line in rest:
        yield printable(indent + line)
