"""Values and layouts of types as text, as gdb and crash print them."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, product
from typing import Literal, NamedTuple

from ..._native import AbsentError, MemoryFault, Type
from ...budget import BudgetExceededError
from ...limits import MAX_PRINTED_CHARACTERS, MAX_PRINTED_ELEMENTS, MAX_STRUCT_DEPTH
from ..kernel import Kernel
from . import types
from .shapes import NO_BITS, Bits, Shape
from .types import CType, Parts
from .value import Value

#: Characters of a declaration that count as one part.
_CHARACTERS = 64
#: Equal elements of an array from which they are counted.
_REPEATS = 10
#: Formats of ints by their size and sign.
_CODES = dict(zip(product((1, 2, 4, 8), (False, True)), "BbHhIiQq", strict=True))
_UNREADABLE = "<not in the dump>"


class Style(NamedTuple):
    """How numbers are printed."""

    radix: Literal[10, 16] = 10


#: As gdb prints numbers by default.
DECIMAL = Style()


def text(value: Value, style: Style = DECIMAL, parts: Parts | None = None) -> str:
    """A value as gdb prints it, over several lines if it is a struct.

    A part that cannot be read is ``<not in the dump>``. BudgetExceededError if it has more parts
    than are left of ``parts``, which are those of several values.
    """
    if value.kind in ("struct", "union", "array"):
        value = value.read_ahead()
    return _Printer(value.kernel, value.known, style, parts or Parts()).whole(value)


class _Memory:
    """The memory of a value, part of which was read already."""

    def __init__(self, kernel: Kernel, known: tuple[int, bytes], parts: Parts) -> None:
        self._kernel = kernel
        self._last = kernel.last
        self._start, self._known = known
        self._parts = parts

    def _data(self, address: int, size: int) -> bytes:
        at = address - self._start
        if at >= 0 and at + size <= len(self._known):
            return self._known[at : at + size]
        return self._kernel.data(address, size)

    def _number(self, shape: Shape, address: int, bits: Bits) -> int:
        return shape.decode(self._data(address, shape.span(bits)), bits)

    def _numbers(self, element: Shape, address: int, count: int) -> Sequence[int] | None:
        """The elements of an array of ints; None if they are to be read one by one."""
        code = _CODES.get((element.width, element.signed))
        at, size = address - self._start, count * element.width
        if code is None or at < 0 or at + size > len(self._known):
            return None
        return struct.unpack_from(f"<{count}{code}", self._known, at)


class _Printer(_Memory):
    def __init__(
        self, kernel: Kernel, known: tuple[int, bytes], style: Style, parts: Parts
    ) -> None:
        super().__init__(kernel, known, parts)
        self._decimal = style.radix == 10
        #: Structs and arrays around the current part.
        self._nesting = 0

    def whole(self, value: Value) -> str:
        self._parts.spend(1)
        if value.address is not None:
            return self._part(value.shape, value.address, value.bits, 0)
        try:
            return self._immediate(value.shape, value)
        except BudgetExceededError:
            raise
        except AbsentError:
            return "<incomplete type>"

    def _immediate(self, shape: Shape, value: Value) -> str:
        if shape.kind in ("int", "ptr", "enum"):
            return self._shown(shape, value.integer())
        return self._other(shape)

    def _part(self, shape: Shape, address: int, bits: Bits, depth: int) -> str:
        """A part, which was charged."""
        if self._nesting >= MAX_STRUCT_DEPTH:
            return "{...}"
        width = shape.width
        if width and bits is NO_BITS:
            at = address - self._start
            if at >= 0 and at + width <= len(self._known):
                data = self._known[at : at + width]
                number = int.from_bytes(data, "little", signed=shape.signed)
                return str(number) if self._decimal else hex(number)
        self._nesting += 1
        try:
            if shape.kind in ("struct", "union"):
                return self._struct(shape, address, depth)
            if shape.kind == "array":
                return self._array(shape, address, depth)
            if shape.kind in ("int", "ptr", "enum"):
                return self._shown(shape, self._number(shape, address, bits))
            return self._other(shape)
        except MemoryFault:
            return _UNREADABLE
        except BudgetExceededError:
            raise
        except AbsentError:
            return "<incomplete type>"
        finally:
            self._nesting -= 1

    def _other(self, shape: Shape) -> str:
        if shape.kind == "float":
            return f"{shape.size}-byte float"
        if shape.kind in ("func_proto", "func"):
            return "{function}"
        return "<incomplete type>"

    def _shown(self, shape: Shape, number: int) -> str:
        """An int, a pointer or an enumerator."""
        if shape.kind == "ptr":
            return _pointer(self._kernel, shape, number)
        if shape.kind == "enum":
            self._parts.spend(shape.enumerators.cost)
            return shape.enumerators.text(number)
        if shape.is_bool and number in (0, 1):
            return ("false", "true")[number]
        shown = str(number) if self._decimal else hex(number)
        if shape.is_char:
            return f"{shown} '{_character(number & 0xFF, quote=chr(39))}'"
        return shown

    def _struct(self, shape: Shape, address: int, depth: int) -> str:
        self._parts.spend(shape.cost)
        indent = "  " * (depth + 1)
        members = []
        for name, inner, offset, bits in shape.fields:
            one = self._part(inner, address + offset & self._last, bits, depth + 1)
            members.append(f"{indent}{name} = {one}" if name else f"{indent}{one}")
        if not members:
            return "{<No data fields>}"
        return "{\n" + ",\n".join(members) + f"\n{'  ' * depth}}}"

    def _array(self, shape: Shape, address: int, depth: int) -> str:
        element, count = shape.target, shape.count
        if element.is_char:
            return _string(self._data(address, min(count, MAX_PRINTED_CHARACTERS)), count)
        shown = min(count, MAX_PRINTED_ELEMENTS)
        self._parts.spend(shown)
        numbers = None
        if self._nesting < MAX_STRUCT_DEPTH:
            numbers = self._numbers(element, address, shown)
        texts: Iterable[str]
        if numbers is not None:
            texts = map(str if self._decimal else hex, numbers)
        else:
            step = element.size if shown else 0
            places = (address + index * step & self._last for index in range(shown))
            texts = (self._part(element, place, NO_BITS, depth) for place in places)
        parts: list[str] = []
        for one, equal in groupby(texts):
            times = sum(1 for _ in equal)
            parts += [f"{one} <repeats {times} times>"] if times >= _REPEATS else [one] * times
        more = "..." if count > shown else ""
        return "{" + ", ".join(parts) + more + "}"


def _character(byte: int, *, quote: str) -> str:
    escapes = {0: "\\000", 7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}
    if byte in escapes:
        return escapes[byte]
    char = chr(byte)
    if char in (quote, "\\"):
        return f"\\{char}"
    return char if 0x20 <= byte < 0x7F else f"\\{byte:03o}"


def _string(data: bytes, count: int = 0) -> str:
    """The first of ``count`` characters of an array as a string; NULs at its end are left out."""
    shown = data.rstrip(b"\0")
    more = "..." if len(shown) > MAX_PRINTED_ELEMENTS or count > len(data) else ""
    characters = (_character(byte, quote='"') for byte in shown[:MAX_PRINTED_ELEMENTS])
    return f'"{"".join(characters)}"{more}'


def _pointer(kernel: Kernel, shape: Shape, number: int) -> str:
    """A pointer with the symbol that it points to; of a char, with the string."""
    shown = hex(number)
    symbol = kernel.code.lookup(number) if number else None
    if symbol is not None and (not symbol.size or number - symbol.address < symbol.size):
        offset = number - symbol.address
        shown += f" <{symbol.name}+{offset}>" if offset else f" <{symbol.name}>"
    if shape.target.is_text and number:
        try:
            data = kernel.cstring(number, MAX_PRINTED_ELEMENTS)
        except MemoryFault:
            return shown
        return f"{shown} {_string(data)}"
    return shown


# Layouts


class Offsets(NamedTuple):
    """What is before each member of a layout: the offset of its first byte, or its address."""

    #: The address of the instance; None for offsets.
    start: int | None = None
    #: The last address.
    last: int = 0

    def place(self, offset: int) -> str:
        """What is before a member, without the indent of its declaration."""
        if self.start is None:
            return f"{f'[{offset}]':>8} "
        return f"  [{self.start + offset & self.last:x}] "

    @property
    def indent(self) -> str:
        """The indent of the outermost members, as of crash."""
        return "    " if self.start is None else ""

    @property
    def blank(self) -> str:
        """The same width without a number."""
        return " " * len(self.place(0))


def layout(of: CType, word: int, *, offsets: Offsets | None = None) -> Iterator[str]:
    """The definition of a struct, union or enum, as crash's ``struct`` prints it, and its size.

    With ``offsets``, each member has its place before it. BudgetExceededError if there are too many
    parts.
    """
    parts = Parts()
    found = types.stripped(of)
    if isinstance(found, Type) and found.kind in ("enum", "enum64"):
        opening, closing = _around(of, found)
        yield f"{opening} {{"
        for name, number in parts.enumerators(found):
            yield f"    {name} = {number},"
        yield closing
    elif isinstance(found, Type) and found.kind in ("struct", "union"):
        opening, closing = _around(of, found)
        yield f"{opening} {{"
        count = 0
        for line in _members(found, 0, 0, offsets, parts):
            yield line
            count += 1
        if not count:
            yield "    <no data fields>"
        yield closing
    elif isinstance(found, Type) and str(found) != str(of):
        # gdb's notation, with the name of a pointer to a function at the end.
        yield f"typedef {declaration(found, '', parts).rstrip()} {of};"
    else:
        yield f"{of}"
    yield f"SIZE: {types.sizeof(of, word)}"


def _around(of: CType, found: Type) -> tuple[str, str]:
    """The start and the end of the definition of a struct, union or enum."""
    opening = f"{found.keyword} {found.name}".rstrip()
    if isinstance(of, Type) and of.kind == "typedef":
        return f"typedef {opening}", f"}} {of.name};"
    return opening, "}"


def _members(
    struct: Type, base: int, depth: int, offsets: Offsets | None, parts: Parts
) -> Iterator[str]:
    indent = "    " * depth + ("    " if offsets is None else offsets.indent)
    for one in parts.members(struct):
        at = base + one.bit_offset
        place = "" if offsets is None else offsets.place(at // 8)
        inner = types.stripped(one.type)
        is_nested = (
            isinstance(inner, Type)
            and inner.kind in ("struct", "union")
            and not inner.name
            and one.type.kind in ("struct", "union")
            and depth < MAX_STRUCT_DEPTH
        )
        if is_nested:
            assert isinstance(inner, Type)
            yield f"{place}{indent}{inner.keyword} {{"
            yield from _members(inner, at, depth + 1, offsets, parts)
            blank = "" if offsets is None else offsets.blank
            yield f"{blank}{indent}}} {one.name};".replace("} ;", "};")
        else:
            width = "" if one.bit_size is None else f" : {one.bit_size}"
            yield f"{place}{indent}{declaration(one.type, one.name, parts)}{width};"


def declaration(of: Type | None, name: str, parts: Parts | None = None) -> str:
    """How C declares a variable of a type: ``char comm[16]``, ``void (*func)(struct page *)``.

    BudgetExceededError if it has more parts than are left of ``parts``.
    """
    return _declaration(of, name, parts or Parts(), 0)


def _declaration(of: Type | None, name: str, parts: Parts, depth: int) -> str:
    text = name
    current = of
    for _ in range(MAX_STRUCT_DEPTH):
        # The text is copied in each step.
        parts.spend(1 + len(text) // _CHARACTERS)
        if current is None:
            return f"void {text}"
        if current.kind == "ptr":
            below = current.target
            text = f"*{text}"
            if below is not None and below.kind in ("array", "func_proto"):
                text = f"({text})"
            current = below
        elif current.kind == "array":
            text = f"{text}[{current.count or ''}]"
            current = current.target
        elif current.kind == "func_proto":
            if depth >= MAX_STRUCT_DEPTH:
                parameters = ["..."]
            else:
                parameters = [
                    _declaration(kind, name, parts, depth + 1).rstrip()
                    for name, kind in current.parameters
                ]
                if current.variadic:
                    parameters.append("...")
            text = f"{text}({', '.join(parameters) or 'void'})"
            current = current.target
        else:
            break
    spelled = str(current)
    return f"{spelled} {text}" if not text.startswith(" ") else f"{spelled}{text}"


# JSON


def plain(value: Value, parts: Parts | None = None) -> object:
    """A value for JSON: structs as objects, arrays as lists, pointers in hex, enums by name.

    What cannot be read is None. Members of anonymous structs are those of the struct around them.
    BudgetExceededError if it has more parts than are left of ``parts``.
    """
    return _Plain(value.kernel, value.known, parts or Parts()).whole(value)


class _Plain(_Memory):
    def whole(self, value: Value) -> object:
        self._parts.spend(1)
        if value.address is not None:
            return self._part(value.shape, value.address, value.bits, 0)
        try:
            return self._shown(value.shape, value.integer())
        except BudgetExceededError:
            raise
        except AbsentError:
            return None

    def _part(self, shape: Shape, address: int, bits: Bits, depth: int) -> object:
        """A part, which was charged."""
        if depth >= MAX_STRUCT_DEPTH:
            raise BudgetExceededError(
                f"{shape.type}: more than {MAX_STRUCT_DEPTH} within each other"
            )
        try:
            if shape.kind in ("struct", "union"):
                return self._struct(shape, address, depth)
            if shape.kind == "array":
                return self._array(shape, address, depth)
            return self._shown(shape, self._number(shape, address, bits))
        except BudgetExceededError:
            raise
        except AbsentError:
            return None

    def _struct(self, shape: Shape, address: int, depth: int) -> dict[str, object]:
        self._parts.spend(shape.cost)
        members: dict[str, object] = {}
        for name, inner, offset, bits in shape.fields:
            one = self._part(inner, address + offset & self._last, bits, depth + 1)
            if name:
                members[name] = one
            elif isinstance(one, dict):
                members.update(one)
        return members

    def _array(self, shape: Shape, address: int, depth: int) -> object:
        element, count = shape.target, shape.count
        if element.is_char:
            if count > MAX_PRINTED_CHARACTERS:
                raise BudgetExceededError(f"{shape.type}: too many characters")
            self._parts.spend(count // _CHARACTERS)
            return self._data(address, count).rstrip(b"\0").decode("utf-8", "backslashreplace")
        shown = min(count, MAX_PRINTED_ELEMENTS)
        self._parts.spend(shown)
        if depth + 1 < MAX_STRUCT_DEPTH:
            numbers = self._numbers(element, address, shown)
            if numbers is not None:
                return list(numbers)
        step = element.size if shown else 0
        places = (address + index * step & self._last for index in range(shown))
        return [self._part(element, place, NO_BITS, depth + 1) for place in places]

    def _shown(self, shape: Shape, number: int) -> object:
        if shape.kind == "ptr":
            return hex(number)
        if shape.kind == "enum":
            self._parts.spend(shape.enumerators.cost)
            return shape.enumerators.text(number)
        return bool(number) if shape.is_bool and number in (0, 1) else number
