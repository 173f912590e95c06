"""Variables, functions and constants, for drgn."""

import re
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from drgn import (
    FindObjectFlags,
    Object,
    Program,
    Qualifiers,
    Type,
    TypeKind,
    TypeMember,
    alignof,
    sizeof,
)

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_CONSTANT_TABLE
from ...linux import variables
from ...linux.kernel import Kernel
from .types import Types

if TYPE_CHECKING:
    from ..._native import Type as OwnType

#: A struct without a name in the table of variables: its members, each ended by a semicolon.
_ANONYMOUS = re.compile(r"struct \{ (.*); \}")


class Finder:
    """The object finder: by the symbols, with types from BTF or from the table of variables."""

    def __init__(self, types: Types, kernel: Kernel) -> None:
        self._types = types
        self._kernel = kernel
        self._symbols = kernel.symbols

    def __call__(
        self, program: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        """The object of that name; None if it is not known, or if its type is not."""
        if filename:
            return None
        address = self._symbols.get(name)
        if address is not None and FindObjectFlags.VARIABLE in flags:
            found = self._variable(program, name)
            if found is not None:
                return Object(program, found, address=address)
        if address is not None and FindObjectFlags.FUNCTION in flags:
            function = self._functions.get(name)
            if function is not None:
                return Object(program, self._types.type(function), address=address)
        if FindObjectFlags.CONSTANT in flags and name in self._constants:
            enum, value = self._constants[name]
            return Object(program, self._types.type(enum), value=value)
        return None

    def _variable(self, program: Program, name: str) -> Type | None:
        """The type of a variable."""
        with suppress(AbsentError):
            return self._types.type(self._types.graph.variable(name))
        kernel = self._kernel
        declared = variables.type_of(name, kernel.version, kernel.word)
        if declared is None:
            return None
        try:
            found = parsed(program, declared)
        except LookupError:
            return None  # the kernel's BTF lacks the type
        if found.kind == TypeKind.ARRAY and found.length is None:
            return self._complete(program, name, found)
        return found

    def _complete(self, program: Program, name: str, array: Type) -> Type:
        """An array with the number of elements that fit into the size of the symbol."""
        known = self._symbols.all(name)
        if len(known) != 1 or not known[0].size:
            return array
        element = array.type
        length = known[0].size // sizeof(element)
        is_table = element.kind == TypeKind.POINTER and Qualifiers.CONST in element.qualifiers
        if is_table and self._kernel.image.symbol_source == "kallsyms":
            # The size of a symbol from kallsyms contains the padding behind the variable.
            length = self._without_nulls(known[0].address, length)
        return program.array_type(element, length) if length else array

    def _without_nulls(self, address: int, length: int) -> int:
        """The length of a constant table of pointers, without the NULLs at its end."""
        word = self._kernel.word
        length = min(length, MAX_CONSTANT_TABLE)
        try:
            while length and not self._kernel.pointer(address + (length - 1) * word):
                length -= 1
        except MemoryFault:
            return 0
        return length

    @cached_property
    def _functions(self) -> "dict[str, OwnType]":
        return {own.name: own for own in self._types.graph if own.kind == "func"}

    @cached_property
    def _constants(self) -> "dict[str, tuple[OwnType, int]]":
        """The enumerators of all enums; of several of one name, the first."""
        found: dict[str, tuple[OwnType, int]] = {}
        for own in self._types.graph:
            if own.kind in ("enum", "enum64"):
                for name, value in own.enumerators:
                    found.setdefault(name, (own, value))
        return found


def parsed(program: Program, declared: str) -> Type:
    """A type in C syntax. Raises LookupError if a type in it is not known."""
    members = _ANONYMOUS.fullmatch(declared)
    if members is None:
        return program.type(declared)
    made: list[TypeMember] = []
    end, alignment = 0, 1
    for member in members[1].split("; "):
        kind, _, name = member.rpartition(" ")
        found = program.type(kind)
        alignment = max(alignment, alignof(found))
        end = _aligned(end, alignof(found))
        made.append(TypeMember(found, name, 8 * end))
        end += sizeof(found)
    return program.struct_type(None, _aligned(end, alignment), made)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
