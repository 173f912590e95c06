"""What reading and printing a value need of its type, derived from the type once."""

from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from ..._native import AbsentError, Type
from ...limits import MAX_NUMBER_BITS
from . import types
from .types import CType

#: Kinds whose values are numbers.
_NUMBERS = ("int", "ptr", "enum")
#: Characters of a name that count as one part.
_CHARACTERS = 64
#: Bits of a bit-field from the first byte that is read, and its width; (0, None) for other members.
Bits = tuple[int, int | None]
NO_BITS: Bits = (0, None)


class Field(NamedTuple):
    """A member of a struct or union."""

    #: Empty for an anonymous struct or union.
    name: str
    shape: "Shape"
    #: Bytes from the start of the struct.
    offset: int
    #: From ``offset``.
    bits: Bits


class Shape:
    """A type without typedefs and qualifiers. Shapes of members and elements are made when used."""

    def __init__(self, of: CType | None, word: int) -> None:
        self.type = of
        self._word = word
        self.stripped: CType | None = None
        #: Why nothing is known about a damaged type.
        self._problem: str | None = None
        try:
            self.stripped = types.stripped(of)
            self.kind = types.kind(of)
        except AbsentError as error:
            self.kind = "damaged"
            self._problem = str(error)
        found = self.stripped if isinstance(self.stripped, Type) else None
        self.signed = found is not None and self.kind != "ptr" and found.signed
        self.is_bool = found is not None and found.encoding == "bool"
        self.is_char = found is not None and _is_char(found)
        #: Bytes of an int that is printed as a number, not as a character or a bool; else 0.
        self.width = 0
        if self.kind == "int" and not self.is_bool and not self.is_char:
            size = self._size or 0
            self.width = size if size * 8 <= MAX_NUMBER_BITS else 0

    def check(self) -> None:
        """Raises AbsentError for a damaged type."""
        if self._problem is not None:
            raise AbsentError(self._problem)

    @cached_property
    def _size(self) -> int | None:
        try:
            return types.sizeof(self.type, self._word)
        except AbsentError:
            return None

    @property
    def size(self) -> int:
        """Size in bytes. Raises AbsentError for a type without a size."""
        return types.sizeof(self.type, self._word) if self._size is None else self._size

    @cached_property
    def count(self) -> int:
        """The number of elements of an array; 0 if it is not known."""
        return types.length(self.stripped)

    @cached_property
    def target(self) -> "Shape":
        """The shape of an element, or of what a pointer points to. Raises AbsentError."""
        found = of(types.target(self.type), self._word)
        found.check()
        return found

    @cached_property
    def is_text(self) -> bool:
        """Whether a pointer to this type is one to a string: ``char``, not ``unsigned char``."""
        found = self.stripped
        return self.is_char and isinstance(found, Type) and (self.signed or found.name == "char")

    @cached_property
    def fields(self) -> list[Field]:
        """The members of a struct or union."""
        assert isinstance(self.stripped, Type)
        found = []
        for one in types.members(self.stripped):
            shape = of(one.type, self._word)
            offset, bits = place(shape, one.bit_offset, one.bit_size)
            found.append(Field(one.name, shape, offset, bits))
        return found

    @cached_property
    def cost(self) -> int:
        """The parts that the members of a struct are charged as; one more for a long name."""
        return sum(2 + len(one.name) // _CHARACTERS for one in self.fields)

    @cached_property
    def enumerators(self) -> "Enumerators":
        """The enumerators of an enum."""
        assert isinstance(self.stripped, Type)
        return Enumerators(self.stripped.enumerators)

    def decode(self, data: bytes, bits: Bits = NO_BITS) -> int:
        """The number with these bytes, of which ``self.span(bits)`` are needed."""
        first, width = bits
        if width is None:
            return int.from_bytes(data, "little", signed=self.signed)
        number = int.from_bytes(data, "little") >> first & (1 << width) - 1
        return number - (1 << width) if self.signed and number >> width - 1 else number

    def span(self, bits: Bits = NO_BITS) -> int:
        """The bytes to read for a number. Raises AbsentError if the type is not one."""
        self.check()
        if self.kind not in _NUMBERS:
            raise AbsentError(f"{'void' if self.type is None else self.type} is not a number")
        size = self.size
        first, width = bits
        count = size * 8 if width is None else width
        if not 0 < count <= MAX_NUMBER_BITS:
            raise AbsentError(f"{self.type} with {count} bits is not a number")
        return size if width is None else (first + width + 7) // 8


class Enumerators:
    """The enumerators of an enum, for printing its values by name."""

    def __init__(self, named: "list[tuple[str, int]]") -> None:
        #: The parts that they are charged as; one more for a long name.
        self.cost = sum(1 + len(name) // _CHARACTERS for name, _ in named)
        self._named = named
        self._names: dict[int, str] = {}
        for name, number in named:
            self._names.setdefault(number, name)

    def text(self, number: int) -> str:
        """A value by its name, by the names of its bits, or as a number."""
        name = self._names.get(number)
        if name is not None:
            return name
        left, names = number, []
        for name, known in self._named:
            if known > 0 and known & (known - 1) == 0 and left & known:
                names.append(name)
                left &= ~known
        if names:
            rest = [f"unknown: {left:#x}"] if left else []
            return f"({' | '.join(names + rest)})"
        return str(number)


@types.cached
def of(found: CType | None, word: int) -> Shape:
    """The shape of a type."""
    return Shape(found, word)


def place(shape: Shape, at: int, width: int | None) -> tuple[int, Bits]:
    """The byte at which a member is that is ``at`` bits after the start, and the bits from there.

    ``width`` is that of a bit-field, else None.
    """
    if width is None:
        return at // 8, NO_BITS
    # The unit is that of the type, as compilers lay out bit-fields, unless it crosses its end.
    unit = 1
    with suppress(AbsentError):
        unit = shape.size or 1
    start = at // 8 // unit * unit
    if at + width > (start + unit) * 8:
        start = at // 8
    return start, (at - start * 8, width)


def _is_char(found: Type) -> bool:
    """BTF does not mark ``char``; compilers name it so."""
    return found.encoding == "char" or (
        found.kind == "int" and found.name in ("char", "signed char", "unsigned char")
    )
