"""BTF: the kernel's description of its types."""

from __future__ import annotations

import struct

from ..elf.format import Strings
from .cparse import Types
from .ctype import VOID, Array, Enum, Function, Int, Pointer, Struct, Type, Typedef, Void

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _FUNC_PROTO = (
    *(1, 2, 3, 4, 5, 6, 7, 8),
    13,
)
_ENCODING = {"int": 0, "char": 0, "bool": 4}


class _Writer:
    def __init__(self, types: Types) -> None:
        self.types = types
        self.strings = Strings()
        self.ids: dict[int, int] = {}
        self.order: list[Type] = []

    def add(self, type_: Type) -> int:
        """The id of a type; 0 is void."""
        if isinstance(type_, Void):
            return 0
        if id(type_) not in self.ids:
            self.order.append(type_)
            self.ids[id(type_)] = len(self.order)
        return self.ids[id(type_)]

    def head(
        self, name: str | None, kind: int, vlen: int, size_or_type: int, kflag: bool = False
    ) -> bytes:
        info = vlen | kind << 24 | int(kflag) << 31
        return struct.pack("<III", self.strings.add(name or ""), info, size_or_type)

    def encode(self, t: Type) -> bytes:
        if isinstance(t, Int):
            signed = 1 if t.signed and t.encoding == "int" else 0
            encoding = _ENCODING[t.encoding] | signed
            return self.head(t.name, _INT, 0, t.size) + struct.pack(
                "<I", encoding << 24 | t.size * 8
            )
        if isinstance(t, Pointer):
            return self.head(None, _PTR, 0, self.add(t.target))
        if isinstance(t, Array):
            index = self.add(self.types.integer(["unsigned", "int"]))
            return self.head(None, _ARRAY, 0, 0) + struct.pack(
                "<III", self.add(t.element), index, t.count
            )
        if isinstance(t, Enum):
            out = self.head(t.name, _ENUM, len(t.values), 4)
            for key, value in t.values.items():
                out += struct.pack("<Ii", self.strings.add(key), value)
            return out
        if isinstance(t, Typedef):
            return self.head(t.name, _TYPEDEF, 0, self.add(t.target))
        if isinstance(t, Function):
            return self.head(None, _FUNC_PROTO, 0, 0)
        assert isinstance(t, Struct)
        if t.members is None:
            return self.head(t.name, _FWD, 0, 0, t.kind == "union")
        bitfields = any(m.bits is not None for m in t.members)
        kind = _STRUCT if t.kind == "struct" else _UNION
        out = self.head(t.name, kind, len(t.members), t.size, bitfields)
        for m in t.members:
            offset = m.bit_offset | (m.bits or 0) << 24 if bitfields else m.bit_offset
            out += struct.pack("<III", self.strings.add(m.name or ""), self.add(m.type), offset)
        return out


def section(types: Types) -> bytes:
    """The content of ``.BTF``."""
    writer = _Writer(types)
    roots: list[Type] = [VOID, *types.ints.values(), *types.enums.values()]
    roots += [*types.typedefs.values(), *types.structs.values()]
    for type_ in roots:
        writer.add(type_)
    out = bytearray()
    done = 0
    while done < len(writer.order):
        out += writer.encode(writer.order[done])
        done += 1
    strings = bytes(writer.strings.data)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(out), len(out), len(strings))
    return head + bytes(out) + strings
