"""Types of a kernel as volatility3's symbol format has them.

The format has neither typedefs nor qualifiers, and types are known by name. Anonymous ones get the
name of their typedef, or one with their number; of several types of one name in BTF, those after
the first get one with their number too.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...budget import Budget
from ...limits import MAX_ISF_DEPTH, MAX_ISF_PARTS

if TYPE_CHECKING:
    from ..._native import Type, TypeGraph, TypeMember

#: A description of a type, in JSON.
Descriptor = dict[str, Any]

VOID: Descriptor = {"kind": "base", "name": "void"}
FUNCTION: Descriptor = {"kind": "function"}
_AGGREGATES = ("struct", "union")
_ENUMS = ("enum", "enum64")
#: Kinds that are replaced by the type that they refer to.
_TRANSPARENT = (
    *("typedef", "volatile", "const", "restrict", "atomic", "type_tag", "decl_tag", "var"),
)
#: The other spellings of integers, which volatility3's plugins use.
_SPELLINGS = {
    "long unsigned int": "unsigned long",
    "long int": "long",
    "long long unsigned int": "unsigned long long",
    "long long int": "long long",
    "short unsigned int": "unsigned short",
    "short int": "short",
}
_CHARACTERS = ("char", "signed char", "unsigned char")


class IsfTypes:
    """The sections of types of a symbol file.

    Raises BudgetExceededError, an AbsentError, if the types have more parts than those of any
    kernel.
    """

    def __init__(self, graph: "TypeGraph", word: int, *, numbered: bool) -> None:
        """``numbered`` says that a type has one number, as in BTF."""
        self._graph = graph
        self._numbered = numbered
        self._budget = Budget("parts of types", MAX_ISF_PARTS)
        self.base_types: dict[str, Any] = {
            "void": _base(0, "void", signed=False),
            "pointer": _base(word, "int", signed=False),
        }
        self.user_types: dict[str, Any] = {}
        self.enums: dict[str, Any] = {}
        self._descriptors: dict[int, Descriptor] = {}
        #: Names of types that are not known by their own.
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._queue: list[Type] = []
        self._emitted: set[int] = set()
        self._variables: dict[str, int] = {}
        self._collect()
        self._write()

    def _collect(self) -> None:
        """Finds names, and what to write."""
        typedefs: dict[int, str] = {}
        for found in self._budget.take(self._graph):
            kind = found.kind
            if kind in _AGGREGATES or kind in _ENUMS:
                self._queue.append(found)
                if found.name:
                    self._name(found)
            elif kind == "typedef" and found.target_number is not None:
                typedefs.setdefault(found.target_number, found.name)
            elif kind == "var":
                self._variables.setdefault(found.name, found.number)
            elif kind in ("int", "float"):
                self._add_base(found)
        for number, name in typedefs.items():
            if number not in self._names and name not in self._taken:
                self._names[number] = name
                self._taken.add(name)

    def _name(self, found: "Type") -> None:
        name = found.name
        if name in self._taken:
            name = f"{name}__{found.number:x}"
        self._taken.add(name)
        self._names[found.number] = name

    def _name_of(self, found: "Type") -> str:
        """The name of a struct, union or enum."""
        if found.name and not self._numbered:
            # DWARF has a definition in each unit: they are one type.
            return found.name
        name = self._names.get(found.number)
        if name is None:
            name = self._names[found.number] = found.name or f"unnamed_{found.number:x}"
        return name

    def _write(self) -> None:
        while self._queue:
            found = self._queue.pop()
            if found.number in self._emitted:
                continue
            self._emitted.add(found.number)
            name = self._name_of(found)
            if found.kind in _AGGREGATES:
                self.user_types[name] = self._aggregate(found)
            elif found.size:
                self.enums[name] = self._enum(found)

    def _aggregate(self, found: "Type") -> dict[str, Any]:
        fields: dict[str, Any] = {}
        size = found.size or 0
        for member in self._budget.take(found.members):
            for name, field in self._field(member, size):
                fields[_free(name, fields)] = field
        return {"kind": found.kind, "size": size, "fields": fields}

    def _field(self, member: "TypeMember", size: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The field of a member; none for padding."""
        if member.bit_size is not None:
            if member.name:
                yield member.name, self._bit_field(member, member.bit_size, size)
            return
        described = self.describe(member.type)
        field = {"type": described, "offset": member.offset}
        if member.name:
            yield member.name, field
        elif described["kind"] in _AGGREGATES:
            yield f"unnamed_field_{member.offset:x}", {**field, "anonymous": True}

    def _bit_field(self, member: "TypeMember", width: int, size: int) -> dict[str, Any]:
        """A bit-field in the unit of its type, or in a larger integer if it crosses units."""
        described = self.describe(member.type)
        unit = member.type.sizeof() or 1
        start = member.bit_offset // 8 // unit * unit
        last = member.bit_offset + width
        if described["kind"] not in ("base", "enum") or start * 8 + unit * 8 < last:
            start = member.offset
            fits = (count for count in (1, 2, 4, 8) if (start + count) * 8 >= last)
            unit = next(fits, 8)
            described = {"kind": "base", "name": self._integer(unit, signed=False)}
        position = member.bit_offset - start * 8
        field = {"kind": "bitfield", "bit_position": position, "bit_length": width}
        return {"type": {**field, "type": described}, "offset": start}

    def _enum(self, found: "Type") -> dict[str, Any]:
        size = found.size or 4
        constants = dict(self._budget.take(found.enumerators))
        return {
            "size": size,
            "base": self._integer(size, signed=found.signed),
            "constants": constants,
        }

    def _integer(self, size: int, *, signed: bool) -> str:
        """The name of an integer type of that size."""
        for name, base in self.base_types.items():
            fits = base["size"] == size and base["signed"] == signed
            if fits and base["kind"] in ("int", "char") and name != "pointer":
                return name
        name = f"{'s' if signed else 'u'}{8 * size}"
        self.base_types[name] = _base(size, "int", signed=signed)
        return name

    def _add_base(self, found: "Type") -> None:
        if found.name in self.base_types:
            return
        kind = {"bool": "bool", "float": "float", "complex": "float"}.get(
            found.encoding or "", "int"
        )
        if kind == "int" and (found.encoding == "char" or found.name in _CHARACTERS):
            kind = "char"
        base = _base(found.size or 0, kind, signed=found.signed)
        self.base_types[found.name] = base
        if found.name in _SPELLINGS:
            self.base_types.setdefault(_SPELLINGS[found.name], base)

    def describe(self, found: "Type | None", depth: int = 0) -> Descriptor:
        """The descriptor of a type; None is ``void``."""
        if found is None:
            return VOID
        known = self._descriptors.get(found.number)
        if known is None:
            if depth > MAX_ISF_DEPTH:
                return VOID
            self._budget.spend(1)
            known = self._describe(found, depth + 1)
            self._descriptors[found.number] = known
        return known

    def _describe(self, found: "Type", depth: int) -> Descriptor:
        kind = found.kind
        if kind in _TRANSPARENT:
            return self.describe(found.target, depth)
        if kind == "ptr":
            return {"kind": "pointer", "subtype": self.describe(found.target, depth)}
        if kind == "array":
            subtype = self.describe(found.target, depth)
            return {"kind": "array", "count": found.count or 0, "subtype": subtype}
        if kind in ("int", "float"):
            self._add_base(found)
            return {"kind": "base", "name": found.name}
        if kind in _AGGREGATES or kind in _ENUMS:
            return self._reference(found)
        if kind == "fwd":
            return {"kind": found.keyword, "name": found.name}
        if kind in ("func_proto", "func"):
            return FUNCTION
        return VOID

    def _reference(self, found: "Type") -> Descriptor:
        if not found.name and found.number not in self._emitted:
            # DWARF does not list it.
            self._queue.append(found)
        if found.kind in _AGGREGATES:
            return {"kind": found.kind, "name": self._name_of(found)}
        if not found.size:
            return {"kind": "base", "name": self._integer(4, signed=False)}
        return {"kind": "enum", "name": self._name_of(found)}

    def variable(self, name: str) -> "Type | None":
        """The type of a variable that BTF describes."""
        number = self._variables.get(name)
        return None if number is None else self._graph[number]

    def finish(self) -> None:
        """Writes what was described since, and is not listed."""
        self._write()


def _free(name: str, fields: dict[str, Any]) -> str:
    """The name, or one that no field has."""
    if name not in fields:
        return name
    return f"{name}_{len(fields):x}"


def _base(size: int, kind: str, *, signed: bool) -> dict[str, Any]:
    return {"size": size, "signed": signed, "kind": kind, "endian": "little"}
