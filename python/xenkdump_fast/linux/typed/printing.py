"""Values and layouts of types as text, as gdb and crash print them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ..._native import AbsentError, MemoryFault, Type, TypeMember
from ...budget import BudgetExceededError
from ...limits import MAX_PRINTED_CHARACTERS, MAX_PRINTED_ELEMENTS, MAX_STRUCT_DEPTH
from . import types
from .types import CType, Parts
from .value import Value

#: Characters of a declaration that count as one part.
_CHARACTERS = 64
#: Equal elements of an array from which they are counted.
_REPEATS = 10
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
    return _Printer(style, parts or Parts()).value(value, 0)


class _Printer:
    def __init__(self, style: Style, parts: Parts) -> None:
        self._style = style
        self._parts = parts
        #: Structs and arrays around the current part.
        self._nesting = 0

    def value(self, value: Value, depth: int) -> str:
        self._parts.spend(1)
        if self._nesting >= MAX_STRUCT_DEPTH:
            return "{...}"
        self._nesting += 1
        try:
            return self._value(value, depth)
        except MemoryFault:
            return _UNREADABLE
        except BudgetExceededError:
            raise
        except AbsentError:
            return "<incomplete type>"
        finally:
            self._nesting -= 1

    def _value(self, value: Value, depth: int) -> str:
        kind = value.kind
        if kind in ("struct", "union"):
            return self._struct(value, depth)
        if kind == "array":
            return self._array(value, depth)
        if kind == "ptr":
            return _pointer(value)
        if kind == "enum":
            return _enumerator(value, self._parts)
        if kind == "int":
            return self._int(value)
        if kind == "float":
            return f"{value.size}-byte float"
        if kind in {"func_proto", "func"}:
            return "{function}"
        return "<incomplete type>"

    def _number(self, number: int) -> str:
        return str(number) if self._style.radix == 10 else hex(number)

    def _int(self, value: Value) -> str:
        number = value.integer()
        found = types.stripped(value.type)
        assert isinstance(found, Type)
        if found.encoding == "bool" and number in (0, 1):
            return ("false", "true")[number]
        if _is_char(found):
            shown = self._number(number)
            return f"{shown} '{_character(number & 0xFF, quote=chr(39))}'"
        return self._number(number)

    def _struct(self, value: Value, depth: int) -> str:
        struct = types.stripped(value.type)
        assert isinstance(struct, Type)
        indent = "  " * (depth + 1)
        members = [
            f"{indent}{one.name} = {self._member(value, one, depth + 1)}"
            if one.name
            else f"{indent}{self._member(value, one, depth + 1)}"
            for one in self._parts.members(struct)
        ]
        if not members:
            return "{<No data fields>}"
        return "{\n" + ",\n".join(members) + f"\n{'  ' * depth}}}"

    def _member(self, value: Value, one: TypeMember, depth: int) -> str:
        return self.value(value.part(one.type, one.bit_offset, one.bit_size), depth)

    def _array(self, value: Value, depth: int) -> str:
        of = types.target(value.type)
        found = types.stripped(value.type)
        count = types.length(found)
        assert value.address is not None
        element = types.stripped(of)
        if isinstance(element, Type) and _is_char(element):
            return _string(value.data(min(count, MAX_PRINTED_CHARACTERS)), count)
        shown = min(count, MAX_PRINTED_ELEMENTS)
        parts: list[tuple[str, int]] = []
        for index in range(shown):
            one = self.value(value.element(index), depth)
            if parts and parts[-1][0] == one:
                parts[-1] = (one, parts[-1][1] + 1)
            else:
                parts.append((one, 1))
        texts: list[str] = []
        for one, times in parts:
            if times >= _REPEATS:
                texts.append(f"{one} <repeats {times} times>")
            else:
                texts += [one] * times
        more = "..." if count > shown else ""
        return "{" + ", ".join(texts) + more + "}"


def _is_char(found: Type) -> bool:
    """BTF does not mark ``char``; compilers name it so."""
    return found.encoding == "char" or (
        found.kind == "int" and found.name in ("char", "signed char", "unsigned char")
    )


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


def _pointer(value: Value) -> str:
    """A pointer with the symbol that it points to; of a char, with the string."""
    kernel, number = value.kernel, value.integer()
    shown = hex(number)
    symbol = kernel.code.lookup(number) if number else None
    if symbol is not None and (not symbol.size or number - symbol.address < symbol.size):
        offset = number - symbol.address
        shown += f" <{symbol.name}+{offset}>" if offset else f" <{symbol.name}>"
    of = types.stripped(types.target(value.type))
    if number and isinstance(of, Type) and _is_char(of) and of.signed | (of.name == "char"):
        try:
            data = kernel.cstring(number, MAX_PRINTED_ELEMENTS)
        except MemoryFault:
            return shown
        return f"{shown} {_string(data)}"
    return shown


def _enumerator(value: Value, parts: Parts) -> str:
    number = value.integer()
    found = types.stripped(value.type)
    assert isinstance(found, Type)
    enumerators = parts.enumerators(found)
    for name, known in enumerators:
        if known == number:
            return name
    left, names = number, []
    for name, known in enumerators:
        if known > 0 and known & (known - 1) == 0 and left & known:
            names.append(name)
            left &= ~known
    if names:
        rest = [f"unknown: {left:#x}"] if left else []
        return f"({' | '.join(names + rest)})"
    return str(number)


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
    return _plain(value, parts or Parts(), 0)


def _plain(value: Value, parts: Parts, depth: int) -> object:
    parts.spend(1)
    if depth >= MAX_STRUCT_DEPTH:
        raise BudgetExceededError(f"{value.type}: more than {MAX_STRUCT_DEPTH} within each other")
    try:
        return _plain_parts(value, parts, depth)
    except BudgetExceededError:
        raise
    except AbsentError:
        return None


def _plain_parts(value: Value, parts: Parts, depth: int) -> object:
    kind = value.kind
    found = types.stripped(value.type)
    if kind in ("struct", "union") and isinstance(found, Type):
        members: dict[str, object] = {}
        for one in parts.members(found):
            part = value.part(one.type, one.bit_offset, one.bit_size)
            inner = _plain(part, parts, depth + 1)
            if one.name:
                members[one.name] = inner
            elif isinstance(inner, dict):
                members.update(inner)
        return members
    if kind == "array":
        count = types.length(found)
        element = types.stripped(types.target(value.type))
        if isinstance(element, Type) and _is_char(element):
            if count > MAX_PRINTED_CHARACTERS:
                raise BudgetExceededError(f"{value.type}: too many characters")
            parts.spend(count // _CHARACTERS)
            return value.data(count).rstrip(b"\0").decode("utf-8", "backslashreplace")
        shown = min(count, MAX_PRINTED_ELEMENTS)
        return [_plain(value.element(index), parts, depth + 1) for index in range(shown)]
    if kind == "ptr":
        return hex(value.integer())
    if kind == "enum":
        return _enumerator(value, parts)
    if kind == "int":
        number = value.integer()
        is_bool = isinstance(found, Type) and found.encoding == "bool"
        return bool(number) if is_bool and number in (0, 1) else number
    return None
