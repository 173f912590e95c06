"""Types of drgn from the kernel's BTF.

The members of a struct are made when drgn first uses them: a kernel has 130,000 types, of which a
session uses few.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from drgn import (
    Object,
    Program,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeKindSet,
    TypeMember,
    TypeParameter,
)

from ..._native import AbsentError
from ...limits import MAX_DRGN_TYPE_DEPTH

if TYPE_CHECKING:
    from ..._native import Type as OwnType
    from ..._native import TypeGraph
    from ..._native import TypeMember as OwnMember

_QUALIFIERS = {
    "const": Qualifiers.CONST,
    "volatile": Qualifiers.VOLATILE,
    "restrict": Qualifiers.RESTRICT,
    "atomic": Qualifiers.ATOMIC,
}
#: Kinds that are replaced by the type that they refer to.
_TRANSPARENT = frozenset(("func", "var", "type_tag"))
#: Kinds of drgn, and how the graph spells a type of that kind.
_SPELLINGS = (
    (TypeKind.STRUCT, "struct "),
    (TypeKind.UNION, "union "),
    (TypeKind.ENUM, "enum "),
    (TypeKind.TYPEDEF, ""),
    (TypeKind.INT, ""),
    (TypeKind.BOOL, ""),
    (TypeKind.FLOAT, ""),
)
#: Names of C for the integers that hold the values of an enum.
_INTEGERS = {1: "char", 2: "short", 4: "int", 8: "long"}


class Types:
    """Creates drgn's types from the types of a graph, each once."""

    def __init__(self, program: Program, graph: "TypeGraph") -> None:
        self.graph = graph
        self._program = program
        self._made: dict[int, Type] = {}

    def find(
        self, _program: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        """The type finder of drgn."""
        if filename:
            return None  # BTF does not say where a type is declared
        for kind, keyword in _SPELLINGS:
            if kind in kinds:
                with suppress(AbsentError):
                    found = self.type(self.graph.find(keyword + name))
                    if found.kind == kind:
                        return found
        return None

    def type(self, own: "OwnType | None", depth: int = 0) -> Type:
        """One of the types; None is ``void``.

        Raises AbsentError if it contradicts itself.
        """
        if own is None:
            return self._program.void_type()
        found = self._made.get(own.number)
        if found is None:
            if depth > MAX_DRGN_TYPE_DEPTH:
                raise AbsentError(f"type {own.number} refers to itself")
            found = self._made[own.number] = self._make(own, depth + 1)
        return found

    def _make(self, own: "OwnType", depth: int) -> Type:
        program, kind, size = self._program, own.kind, own.size or 0
        if kind == "ptr":
            return program.pointer_type(self.type(own.target, depth))
        if kind in _QUALIFIERS:
            target = self.type(own.target, depth)
            return target.qualified(target.qualifiers | _QUALIFIERS[kind])
        if kind == "typedef":
            return program.typedef_type(own.name, self.type(own.target, depth))
        if kind == "array":
            # BTF has 0 for an array without a length, as the last member of a struct may be.
            return program.array_type(self.type(own.target, depth), own.count or None)
        if kind == "struct":
            return program.struct_type(own.name or None, size, self._members(own))
        if kind == "union":
            return program.union_type(own.name or None, size, self._members(own))
        if kind == "int" and own.encoding == "bool":
            return program.bool_type(own.name, size)
        if kind == "int":
            return program.int_type(own.name, size, own.signed)
        if kind == "float":
            return program.float_type(own.name, size)
        if kind in ("enum", "enum64"):
            return self._enum(own, size)
        if kind == "fwd":
            make = program.union_type if own.keyword == "union" else program.struct_type
            return make(own.name)
        if kind == "func_proto":
            return self._function(own, depth)
        if kind in _TRANSPARENT:
            return self.type(own.target, depth)
        if kind == "void":
            return program.void_type()
        raise AbsentError(f"type {own.number} is {kind}, which is not a type of C")

    def _members(self, own: "OwnType") -> list[TypeMember]:
        return [
            TypeMember(self._member(member), member.name or None, member.bit_offset)
            for member in own.members
        ]

    def _member(self, member: "OwnMember") -> Callable[[], Type | Object]:
        number, width = member.type_number, member.bit_size

        def make() -> Type | Object:
            found = self.type(self.graph[number])
            return found if width is None else Object(self._program, found, bit_field_size=width)

        return make

    def _enum(self, own: "OwnType", size: int) -> Type:
        program, tag = self._program, own.name or None
        listed = [TypeEnumerator(name, value) for name, value in own.enumerators]
        if not listed:
            return program.enum_type(tag)
        if size not in _INTEGERS:
            raise AbsentError(f"enum {own.name} has {size} bytes")
        name = _INTEGERS[size]
        if not own.signed:
            name = f"unsigned {name}"
        elif size == 1:
            name = "signed char"
        return program.enum_type(tag, program.int_type(name, size, own.signed), listed)

    def _function(self, own: "OwnType", depth: int) -> Type:
        parameters = [
            TypeParameter(self.type(kind, depth), name or None) for name, kind in own.parameters
        ]
        return self._program.function_type(self.type(own.target, depth), parameters, own.variadic)
