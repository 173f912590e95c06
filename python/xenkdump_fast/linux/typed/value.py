"""A value: its type, and the memory that it is in, or its number."""

from typing import NamedTuple

from ..._native import AbsentError
from ...limits import MAX_READ_AHEAD
from ..kernel import Kernel
from . import shapes, types
from .shapes import NO_BITS, Bits, Shape
from .types import CType, Derived


class Value(NamedTuple):
    """A value of a type: an object in memory, or a number that is in none."""

    kernel: Kernel
    #: None is ``void``.
    type: CType | None
    #: The address of an object; None for a number.
    address: int | None
    #: The number, unless it is in memory.
    immediate: int = 0
    #: From ``address``.
    bits: Bits = NO_BITS
    #: Memory that was read already, and its address.
    known: tuple[int, bytes] = (0, b"")

    @property
    def shape(self) -> Shape:
        """What its type says about its bytes."""
        return shapes.of(self.type, self.kernel.word)

    @property
    def kind(self) -> str:
        """The kind of its type, without typedefs and qualifiers."""
        return types.kind(self.type)

    @property
    def size(self) -> int:
        """Size in bytes. Raises AbsentError for a type without a size."""
        return types.sizeof(self.type, self.kernel.word)

    def _struct(self) -> "Value":
        return self.dereferenced() if self.kind == "ptr" else self

    def member(self, name: str) -> "Value":
        """A member of a struct, or of the struct that a pointer points to; AbsentError."""
        struct = self._struct()
        if struct.address is None:
            raise AbsentError(f"{self.type} is not in memory: it has no member {name}")
        place = types.member(struct.type, name)
        return struct.part(place.type, place.bits, place.width)

    def part(self, of: CType | None, bits: int, width: int | None = None) -> "Value":
        """What is that many bits after the start of the object."""
        assert self.address is not None
        shape = shapes.of(of, self.kernel.word)
        start, within = shapes.place(shape, bits, width)
        address = self.address + start & self.kernel.last
        return Value(self.kernel, of, address, bits=within, known=self.known)

    def element(self, index: int) -> "Value":
        """An element of an array, or of what a pointer points to as an array; AbsentError."""
        known = self.known
        if self.kind == "ptr":
            start, of, known = self.integer(), types.target(self.type), (0, b"")
        elif self.kind == "array" and self.address is not None:
            start, of = self.address, types.target(self.type)
        else:
            raise AbsentError(f"{self.type} is neither an array nor a pointer")
        step = types.sizeof(of, self.kernel.word)
        return Value(self.kernel, of, start + index * step & self.kernel.last, known=known)

    def dereferenced(self) -> "Value":
        """What a pointer points to; AbsentError if it is not a pointer."""
        if self.kind == "array":
            return self.element(0)
        if self.kind != "ptr":
            raise AbsentError(f"{self.type} is not a pointer")
        return Value(self.kernel, types.target(self.type), self.integer())

    def reference(self) -> "Value":
        """A pointer to the object; AbsentError if it is not in memory."""
        if self.address is None or self.bits[1] is not None:
            raise AbsentError(f"{self.type} has no address")
        return Value(self.kernel, Derived(self.type), None, self.address)

    def cast(self, to: CType | None) -> "Value":
        """The same number with another type; the address of an array."""
        if types.kind(to) in ("struct", "union", "array"):
            raise AbsentError(f"{to}: no number can be cast to this type")
        number = self.address if self.kind == "array" else self.integer()
        assert number is not None
        return Value(self.kernel, to, None, number)

    def integer(self) -> int:
        """The number of an int, a pointer, an enum or a bit-field; AbsentError for other kinds.

        Raises MemoryFault if it cannot be read.
        """
        shape = self.shape
        size = shape.span(self.bits)
        if self.address is not None:
            return shape.decode(self.data(size), self.bits)
        width = self.bits[1]
        bits = size * 8 if width is None else width
        number = self.immediate & (1 << bits) - 1
        return number - (1 << bits) if shape.signed and number >> bits - 1 else number

    def data(self, size: int) -> bytes:
        """The first bytes of the object. Raises MemoryFault, or AbsentError for a number."""
        if self.address is None:
            raise AbsentError(f"{self.type} is not in memory")
        start, data = self.known
        at = self.address - start
        if at >= 0 and at + size <= len(data):
            return data[at : at + size]
        return self.kernel.data(self.address, size)

    def read_ahead(self) -> "Value":
        """The same, with its memory read at once if that is possible."""
        if self.address is None or self.known[1] or self.size > MAX_READ_AHEAD:
            return self
        try:
            return self._replace(known=(self.address, self.kernel.data(self.address, self.size)))
        except AbsentError:
            return self
