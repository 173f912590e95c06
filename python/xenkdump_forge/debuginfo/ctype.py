"""C types, and their layout in the two System V ABIs of x86.

The kernels' structs are declared in C (see ``cparse``). The same types are laid out in memory and
written as BTF or DWARF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Abi:
    """Word size, and the alignment of 8-byte integers (4 in an i386 struct)."""

    word: int
    align8: int


I386 = Abi(word=4, align8=4)
X86_64 = Abi(word=8, align8=8)


@dataclass(eq=False)
class Void:
    """``void``, the target of ``void *``."""

    size: int = 1
    align: int = 1


VOID = Void()


@dataclass(eq=False)
class Int:
    """An integer type: ``unsigned long``, ``char``, ``_Bool``."""

    name: str
    size: int
    align: int
    signed: bool
    encoding: str = "int"


@dataclass(eq=False)
class Pointer:
    """A pointer; ``target`` may be a struct that is only declared."""

    target: Type
    size: int
    align: int


@dataclass(eq=False)
class Function:
    """A function type, without its parameters; used for pointers only."""

    size: int = 1
    align: int = 1


@dataclass(eq=False)
class Array:
    """``count`` elements; a flexible array has none."""

    element: Type
    count: int

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.element.size * self.count

    @property
    def align(self) -> int:
        """Alignment in bytes."""
        return self.element.align


@dataclass(eq=False)
class Enum:
    """An enumeration: a 4-byte unsigned integer with names."""

    name: str | None
    values: dict[str, int]
    size: int = 4
    align: int = 4


@dataclass(eq=False)
class Typedef:
    """Another name of a type."""

    name: str
    target: Type

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.target.size

    @property
    def align(self) -> int:
        """Alignment in bytes."""
        return self.target.align


@dataclass(eq=False)
class Member:
    """A member of a struct; ``bits`` is the width of a bit field, counted from ``bit_offset``."""

    name: str | None
    type: Type
    bit_offset: int
    bits: int | None = None

    @property
    def offset(self) -> int:
        """Offset in bytes from the start of the struct."""
        return self.bit_offset // 8


@dataclass(eq=False)
class Struct:
    """A struct or union; ``members`` is None while it is only declared."""

    kind: str
    name: str | None
    members: list[Member] | None = None
    size: int = 0
    align: int = 1
    by_name: dict[str, tuple[int, Member]] = field(default_factory=dict)

    def lay_out(
        self, members: list[tuple[str | None, Type, int | None]], packed: bool, align: int
    ) -> None:
        """Assigns offsets to the members as gcc does, including bit fields."""
        bit = 0
        top = 0
        self.members = []
        self.align = max(1, align)
        for name, type_, bits in members:
            boundary = 1 if packed else type_.align
            if self.kind == "union":
                bit = 0
            if bits is None:
                bit = -(-bit // (8 * boundary)) * 8 * boundary
            elif not packed and bit // (8 * type_.size) != (bit + bits - 1) // (8 * type_.size):
                # A bit field does not cross a boundary of its type.
                bit = -(-bit // (8 * boundary)) * 8 * boundary
            self.members.append(Member(name, type_, bit, bits))
            bit += type_.size * 8 if bits is None else bits
            top = max(top, bit)
            self.align = max(self.align, boundary)
        size = -(-top // 8)
        self.size = -(-size // self.align) * self.align
        for offset, member in self.flattened():
            assert member.name is not None
            self.by_name.setdefault(member.name, (offset, member))

    def flattened(self, base: int = 0) -> Iterator[tuple[int, Member]]:
        """The named members, including those of anonymous structs and unions."""
        for member in self.members or ():
            inner = strip(member.type)
            if member.name is None and isinstance(inner, Struct):
                yield from inner.flattened(base + member.offset)
            elif member.name is not None:
                yield base + member.offset, member


Type = Void | Int | Pointer | Function | Array | Enum | Typedef | Struct


def strip(type_: Type) -> Type:
    """The type with typedefs removed."""
    while isinstance(type_, Typedef):
        type_ = type_.target
    return type_


_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]")


def locate(type_: Type, path: str) -> tuple[int, Type, Member | None]:
    """Offset and type of ``a.b[2].c`` in a type, and the member if the path ends in one."""
    offset = 0
    member: Member | None = None
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise KeyError(f"{path}: not a path")
        at = step.end()
        inner = strip(type_)
        if step[1] is not None:
            if not isinstance(inner, Struct) or step[1] not in inner.by_name:
                raise KeyError(f"{path}: no member {step[1]}")
            add, member = inner.by_name[step[1]]
            offset += add
            type_ = member.type
        else:
            if not isinstance(inner, Array):
                raise KeyError(f"{path}: not an array")
            offset += int(step[2]) * inner.element.size
            type_, member = inner.element, None
    return offset, type_, member
