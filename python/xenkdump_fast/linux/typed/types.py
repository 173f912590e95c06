"""Types of the kernel's graph, and pointers and arrays that are derived from them."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ... import parsing
from ..._native import AbsentError, Type, TypeGraph, TypeMember
from ...budget import Budget, BudgetExceededError
from ...limits import MAX_ANONYMOUS_DEPTH, MAX_CACHED_TYPES, MAX_PRINTED_PARTS
from ...suggestions import UnknownNameError
from ..kernel import Kernel


class Derived(NamedTuple):
    """A pointer to a type, or an array of it, which the graph need not have."""

    #: None is ``void``.
    target: "CType | None"
    #: Elements of an array, 0 if their number is not known; None for a pointer.
    length: int | None = None

    def __str__(self) -> str:
        text = "void" if self.target is None else str(self.target)
        if self.length is None:
            return f"{text}*" if text.endswith("*") else f"{text} *"
        return f"{text} [{self.length or ''}]"


CType = Type | Derived


class Parts(Budget):
    """The parts of types that one question may visit.

    A type may contain itself, and so have any number of parts in a few bytes.
    """

    __slots__ = ()

    #: Characters of a name that are charged as one more part.
    _CHARACTERS = 64

    def __init__(self) -> None:
        super().__init__("parts of types", MAX_PRINTED_PARTS)

    @property
    def reason(self) -> str:
        """That there are too many parts."""
        return f"there are more than {MAX_PRINTED_PARTS} members and elements"

    def members(self, struct: Type) -> "Iterator[TypeMember]":
        """The members of a struct or union, each charged."""
        for one in members(struct):
            self.spend(1 + len(one.name) // self._CHARACTERS)
            yield one

    def enumerators(self, enum: Type) -> "list[tuple[str, int]]":
        """The enumerators of an enum, which are charged together."""
        found = enum.enumerators
        self.spend(sum(1 + len(name) // self._CHARACTERS for name, _ in found))
        return found


#: What changes neither the value nor the layout of a type.
_TRANSPARENT = ("typedef", "const", "volatile", "restrict", "atomic", "type_tag")
_WORDS = re.compile(r"\s*(?:(\w+)|(\*)|\[\s*(0[xX][0-9a-fA-F]+|[0-9]*)\s*\])", re.ASCII)
_QUALIFIERS = ("const", "volatile", "restrict", "__percpu", "__user", "__rcu", "__iomem")


#: Printing a struct asks for the same types many times.
cached = lru_cache(maxsize=MAX_CACHED_TYPES)


@cached
def members(of: Type) -> "list[TypeMember]":
    """The members of a struct or union."""
    return of.members


@cached
def stripped(of: CType | None) -> CType | None:
    """The type without typedefs and qualifiers, and the definition of what is only declared."""
    if of is None or isinstance(of, Derived):
        return of
    found = of.stripped()
    return found if found is None else found.completed()


@cached
def kind(of: CType | None) -> str:
    """The kind without typedefs and qualifiers: ``void``, ``int``, ``ptr``, ``struct``, ..."""
    found = stripped(of)
    if found is None:
        return "void"
    if isinstance(found, Derived):
        return "ptr" if found.length is None else "array"
    return "enum" if found.kind == "enum64" else found.kind


def length(of: CType | None) -> int:
    """The number of elements of an array; 0 if it is not known."""
    found = stripped(of)
    if found is None:
        return 0
    return (found.length if isinstance(found, Derived) else found.count) or 0


@cached
def target(of: CType | None) -> CType | None:
    """What a pointer points to, the element of an array; None is ``void``."""
    found = stripped(of)
    return None if found is None else found.target


@cached
def sizeof(of: CType | None, word: int) -> int:
    """The size in bytes. Raises AbsentError for a type without a size."""
    size: int | None
    if isinstance(of, Derived):
        size = word if of.length is None else of.length * sizeof(of.target, word)
    else:
        size = None if of is None else word if kind(of) == "ptr" else of.completed().sizeof()
    if size is None:
        raise AbsentError(f"{'void' if of is None else of}: a type without a size")
    if size >> 8 * word:
        raise AbsentError(f"{of}: a type larger than the address space")
    return size


class Place(NamedTuple):
    """A member of a struct, also of an anonymous one in it."""

    type: Type
    #: Bits from the start of the struct.
    bits: int
    #: Width of a bit-field in bits; else None.
    width: int | None


def member(of: CType | None, name: str) -> Place:
    """The member of that name of a struct or union, also of its anonymous members; AbsentError."""
    found = _member(of, name, MAX_ANONYMOUS_DEPTH, Parts())
    if found is None:
        what = "void" if of is None else str(of)
        raise UnknownNameError(f"{what} has no member {name}", name, lambda: names(of))
    return found


def names(of: CType | None) -> Iterator[str]:
    """The names of the members of a struct or union."""
    struct = stripped(of)
    if isinstance(struct, Type):
        yield from (name for one in Parts().members(struct) if (name := one.name))


def named(graph: TypeGraph, name: str) -> Type:
    """A struct, union, typedef or other type by name, with or without its keyword; AbsentError."""
    try:
        return graph.find(name)
    except AbsentError as error:
        if name in graph:
            raise
        *_, last = name.split() or [""]
        raise UnknownNameError(str(error), last, lambda: (one.name for one in graph)) from None


def _member(of: CType | None, name: str, depth: int, parts: Parts) -> Place | None:
    struct = stripped(of)
    if struct is None or isinstance(struct, Derived) or struct.kind not in ("struct", "union"):
        what = "void" if of is None else str(of)
        raise AbsentError(f"{what} is not a struct: it has no member {name}")
    anonymous = []
    for one in parts.members(struct):
        if one.name == name:
            return Place(one.type, one.bit_offset, one.bit_size)
        if not one.name:
            anonymous.append(one)
    for one in anonymous if depth else ():
        try:
            inner = _member(one.type, name, depth - 1, parts)
        except BudgetExceededError:
            raise
        except AbsentError:
            continue
        if inner is not None:
            return Place(inner.type, one.bit_offset + inner.bits, inner.width)
    return None


def places(struct: Type) -> Iterator[tuple[str, Place]]:
    """Every named member of a struct with its place, those of anonymous members among them."""
    yield from _places(struct, 0, MAX_ANONYMOUS_DEPTH, Parts())


def _places(struct: Type, bits: int, depth: int, parts: Parts) -> Iterator[tuple[str, Place]]:
    for one in parts.members(struct):
        at = bits + one.bit_offset
        if one.name:
            yield one.name, Place(one.type, at, one.bit_size)
        elif depth:
            inner = stripped(one.type)
            if isinstance(inner, Type):
                yield from _places(inner, at, depth - 1, parts)


def parse(kernel: Kernel, text: str) -> CType | None:
    """The type that C writes so: ``struct file *``, ``u32``, ``char [16]``. None is ``void``.

    Raises AbsentError if it is not a type of the kernel.
    """
    names: list[str] = []
    derived: list[int | None] = []
    for word, star, count in _tokens(text):
        if word and not derived:
            if word not in _QUALIFIERS:
                names.append(word)
        elif word:
            if word not in _QUALIFIERS:
                raise AbsentError(f"{text!r} is not a type")
        else:
            elements = parsing.number(count, 0) if count else 0
            if elements is None:
                raise AbsentError(f"{text!r} is not a type: too many elements")
            derived.append(None if star else elements)
    name = " ".join(names)
    found: CType | None = None if name == "void" else named(kernel.types.graph, name)
    for length in derived:
        if length is None:
            found = Derived(found)
    for length in reversed(derived):
        if length is not None:
            found = Derived(found, length)
    return found


def _tokens(text: str) -> Iterator[tuple[str, str, str]]:
    at = 0
    while at < len(text.rstrip()):
        match = _WORDS.match(text, at)
        if match is None:
            raise AbsentError(f"{text!r} is not a type")
        yield match[1] or "", match[2] or "", match[3] or ""
        at = match.end()
