"""Writes structs to a guest's memory, by the names of their members."""

from __future__ import annotations

from dataclasses import dataclass

from ..debuginfo.ctype import Array, Int, Struct, Type, locate, strip
from ..memory.guest import Guest

Value = int | bytes | str | list[int]


@dataclass(frozen=True)
class View:
    """A variable or struct at a virtual address."""

    guest: Guest
    type: Type
    address: int

    def at(self, path: str) -> int:
        """The address of a member."""
        return self.address + locate(self.type, path)[0]

    def __setitem__(self, path: str, value: Value) -> None:
        offset, type_, member = locate(self.type, path)
        at = self.address + offset
        if member is not None and member.bits is not None:
            assert isinstance(value, int)
            shift = member.bit_offset % 8
            old = int.from_bytes(self.guest.read(at, 4), "little")
            mask = ((1 << member.bits) - 1) << shift
            self.guest.write(at, ((old & ~mask) | value << shift & mask).to_bytes(4, "little"))
            return
        self.guest.write(at, encode(type_, value))

    def put(self, **members: Value) -> None:
        """Writes numbers to those members that this version has; ``__`` means a dot."""
        for name, value in members.items():
            path = name.replace("__", ".")
            try:
                type_ = locate(self.type, path)[1]
            except KeyError:
                continue
            if not isinstance(strip(type_), Struct):
                self[path] = value

    def set(self, **members: Value) -> None:
        """Writes several members."""
        for name, value in members.items():
            self[name] = value


def encode(type_: Type, value: Value) -> bytes:
    """The bytes of a value of a type; numbers wrap as in C."""
    type_ = strip(type_)
    if isinstance(value, str):
        value = value.encode() + b"\0"
    if isinstance(value, bytes):
        if len(value) > type_.size:
            value = value[: type_.size - 1] + b"\0"
        return value.ljust(type_.size, b"\0") if isinstance(type_, Array) else value
    if isinstance(value, list):
        assert isinstance(type_, Array)
        return b"".join(encode(type_.element, v) for v in value)
    size = type_.size
    assert isinstance(type_, Int) or size in (1, 2, 4, 8)
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
