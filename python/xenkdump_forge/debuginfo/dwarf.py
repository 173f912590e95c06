"""DWARF: types and variables, in version 2 (gcc of 2006) and version 4."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ..code.text import Text
from ..elf.format import SHT_PROGBITS, Section, Strings
from .cparse import Types
from .ctype import VOID, Array, Enum, Function, Int, Member, Pointer, Struct, Type, Typedef, Void

_ARRAY, _ENUMERATION, _MEMBER, _POINTER, _UNIT, _STRUCT = 0x01, 0x04, 0x0D, 0x0F, 0x11, 0x13
_SUBROUTINE, _TYPEDEF, _UNION, _SUBRANGE, _BASE, _ENUMERATOR = 0x15, 0x16, 0x17, 0x21, 0x24, 0x28
_SUBPROGRAM, _VARIABLE = 0x2E, 0x34

_LOCATION, _NAME, _BYTE_SIZE, _BIT_OFFSET, _BIT_SIZE = 0x02, 0x03, 0x0B, 0x0C, 0x0D
_LOW_PC, _HIGH_PC, _LANGUAGE, _CONST_VALUE, _PRODUCER = 0x11, 0x12, 0x13, 0x1C, 0x25
_PROTOTYPED, _UPPER_BOUND, _MEMBER_LOCATION, _DECLARATION = 0x27, 0x2F, 0x38, 0x3C
_ENCODING, _EXTERNAL, _TYPE = 0x3E, 0x3F, 0x49

_F_ADDR, _F_DATA2, _F_DATA4, _F_BLOCK1, _F_DATA1, _F_FLAG, _F_STRP = 1, 5, 6, 10, 11, 12, 14
_F_UDATA, _F_REF4, _F_EXPRLOC = 15, 19, 24

_OP_ADDR, _OP_PLUS_UCONST = 0x03, 0x23
_LANG_C89 = 1
_ENCODINGS = {("int", True): 5, ("int", False): 7, ("char", True): 6, ("char", False): 8}

Attribute = tuple[int, int, int | bytes]


def uleb(value: int) -> bytes:
    """An unsigned LEB128."""
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


@dataclass
class _Die:
    """A DIE: its tag, attributes, children, and offset."""

    tag: int
    attributes: list[Attribute]
    children: list[_Die] = field(default_factory=list)
    offset: int = 0


class _Writer:
    def __init__(self, types: Types, version: int) -> None:
        self.types = types
        self.version = version
        self.word = types.abi.word
        self.strings = Strings()
        self.abbrevs: dict[tuple[int, bool, tuple[tuple[int, int], ...]], int] = {}
        self.dies: dict[int, _Die] = {}
        self.order: list[_Die] = []
        self.pending: list[Type] = []

    def name(self, text: str) -> Attribute:
        return _NAME, _F_STRP, self.strings.add(text)

    def ref(self, type_: Type) -> list[Attribute]:
        """DW_AT_type of a type; nothing for void."""
        if isinstance(type_, Void):
            return []
        if id(type_) not in self.dies:
            self.dies[id(type_)] = _Die(0, [])
            self.pending.append(type_)
        return [(_TYPE, _F_REF4, id(type_))]

    def define(self, type_: Type) -> None:
        """The DIE of a type."""
        self.ref(type_)
        die = self.dies[id(type_)]
        if die.tag:
            return
        self._fill(die, type_)
        self.order.append(die)

    def _fill(self, die: _Die, t: Type) -> None:
        if isinstance(t, Int):
            encoding = 2 if t.encoding == "bool" else _ENCODINGS[t.encoding, t.signed]
            die.tag = _BASE
            die.attributes = [self.name(t.name), self._size(t.size)]
            die.attributes.append((_ENCODING, _F_DATA1, encoding))
        elif isinstance(t, Pointer):
            die.tag = _POINTER
            die.attributes = [self._size(t.size), *self.ref(t.target)]
        elif isinstance(t, Array):
            die.tag = _ARRAY
            die.attributes = self.ref(t.element)
            index = self.ref(self.types.integer(["unsigned", "int"]))
            bound: list[Attribute] = [(_UPPER_BOUND, _F_UDATA, t.count - 1)] if t.count else []
            die.children = [_Die(_SUBRANGE, [*index, *bound])]
        elif isinstance(t, Enum):
            die.tag = _ENUMERATION
            die.attributes = [self.name(t.name)] if t.name else []
            die.attributes.append(self._size(4))
            die.children = [
                _Die(_ENUMERATOR, [self.name(key), (_CONST_VALUE, _F_UDATA, value)])
                for key, value in t.values.items()
            ]
        elif isinstance(t, Typedef):
            die.tag = _TYPEDEF
            die.attributes = [self.name(t.name), *self.ref(t.target)]
        elif isinstance(t, Function):
            die.tag = _SUBROUTINE
            die.attributes = [(_PROTOTYPED, _F_FLAG, 1)]
        else:
            assert isinstance(t, Struct)
            self._struct(die, t)

    def _struct(self, die: _Die, t: Struct) -> None:
        die.tag = _STRUCT if t.kind == "struct" else _UNION
        die.attributes = [self.name(t.name)] if t.name else []
        if t.members is None:
            die.attributes.append((_DECLARATION, _F_FLAG, 1))
            return
        die.attributes.append(self._size(t.size))
        die.children = [self._member(t, m) for m in t.members]

    def _member(self, owner: Struct, m: Member) -> _Die:
        attributes = [self.name(m.name)] if m.name else []
        attributes += self.ref(m.type)
        offset = m.offset
        if m.bits is not None:
            # DWARF 2 counts bits from the most significant one of a unit of the declared type.
            unit = m.type.size
            offset = m.bit_offset // (8 * unit) * unit
            top = 8 * unit - (m.bit_offset - 8 * offset) - m.bits
            attributes += [
                self._size(unit),
                (_BIT_SIZE, _F_DATA1, m.bits),
                (_BIT_OFFSET, _F_DATA1, top),
            ]
        if owner.kind == "struct":
            if self.version == 2:
                block = bytes([_OP_PLUS_UCONST]) + uleb(offset)
                attributes.append((_MEMBER_LOCATION, _F_BLOCK1, block))
            else:
                attributes.append((_MEMBER_LOCATION, _F_UDATA, offset))
        return _Die(_MEMBER, attributes)

    def _size(self, size: int) -> Attribute:
        return (_BYTE_SIZE, _F_DATA1 if size < 256 else _F_DATA4, size)

    def variable(self, name: str, type_: Type, address: int) -> None:
        location = bytes([_OP_ADDR]) + address.to_bytes(self.word, "little")
        form = _F_BLOCK1 if self.version == 2 else _F_EXPRLOC
        self.order.append(
            _Die(
                _VARIABLE,
                [
                    self.name(name),
                    *self.ref(type_),
                    (_EXTERNAL, _F_FLAG, 1),
                    (_LOCATION, form, location),
                ],
            )
        )

    def function(self, name: str, low: int, high: int) -> None:
        attributes: list[Attribute] = [self.name(name), (_EXTERNAL, _F_FLAG, 1)]
        attributes += [(_LOW_PC, _F_ADDR, low), (_HIGH_PC, _F_ADDR, high)]
        self.order.append(_Die(_SUBPROGRAM, attributes))

    def abbrev(self, die: _Die) -> int:
        key = (die.tag, bool(die.children), tuple((a, f) for a, f, _ in die.attributes))
        return self.abbrevs.setdefault(key, len(self.abbrevs) + 1)

    def value(self, form: int, value: int | bytes) -> bytes:
        if isinstance(value, bytes):
            length = uleb(len(value)) if form == _F_EXPRLOC else bytes([len(value)])
            return length + value
        if form == _F_UDATA:
            return uleb(value)
        if form == _F_REF4:
            return self.dies[value].offset.to_bytes(4, "little")
        size = {_F_ADDR: self.word, _F_DATA1: 1, _F_FLAG: 1, _F_DATA2: 2}.get(form, 4)
        return value.to_bytes(size, "little")

    def encode(self, die: _Die, at: int) -> bytes:
        die.offset = at
        out = uleb(self.abbrev(die))
        for _, form, value in die.attributes:
            out += self.value(form, value)
        for child in die.children:
            out += self.encode(child, at + len(out))
        return out + b"\0" if die.children else out

    def abbrev_section(self) -> bytes:
        out = bytearray()
        for (tag, children, attributes), code in self.abbrevs.items():
            out += uleb(code) + uleb(tag) + bytes([int(children)])
            for attribute, form in attributes:
                out += uleb(attribute) + uleb(form)
            out += b"\0\0"
        return bytes(out + b"\0")


def sections(types: Types, text: Text, addresses: dict[str, int], version: int) -> list[Section]:
    """``.debug_info``, ``.debug_abbrev``, ``.debug_str``, with a single compile unit."""
    writer = _Writer(types, version)
    roots: list[Type] = [VOID, *types.ints.values(), *types.enums.values()]
    roots += [*types.typedefs.values(), *types.structs.values()]
    for type_ in roots[1:]:
        writer.define(type_)
    for variable in types.variables:
        if variable.name in addresses:
            writer.variable(variable.name, variable.type, addresses[variable.name])
    while writer.pending:
        writer.define(writer.pending.pop())
    for function in text.functions.values():
        writer.function(function.name, function.address, function.address + function.size)
    unit = _Die(
        _UNIT,
        [
            (_PRODUCER, _F_STRP, writer.strings.add("GNU C 4.1.0")),
            (_LANGUAGE, _F_DATA1, _LANG_C89),
            writer.name("init/main.c"),
            (_LOW_PC, _F_ADDR, text.base),
            (_HIGH_PC, _F_ADDR, text.base + len(text.code)),
        ],
        writer.order,
    )
    # References always have 4 bytes, so a first pass determines all offsets.
    writer.encode(unit, 11)
    body = writer.encode(unit, 11)
    head = struct.pack("<IHIB", len(body) + 7, version, 0, writer.word)
    return [
        Section(".debug_abbrev", SHT_PROGBITS, data=writer.abbrev_section()),
        Section(".debug_info", SHT_PROGBITS, data=head + body),
        Section(".debug_str", SHT_PROGBITS, data=bytes(writer.strings.data)),
    ]
