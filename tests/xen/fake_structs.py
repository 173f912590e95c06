"""Structs of a hypervisor that no version of Xen has, in memory that tests can damage."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from xenkdump_fast._native import AbsentError, AddressSpace, Types
from xenkdump_fast.xen.memory import XenMemory
from xenkdump_fast.xen.structs import Structs

START = 0xFFFF_8300_0100_0000
PAGE = 4096


class FakeMember(NamedTuple):
    """Stands in for ``_native.Member``."""

    offset: int
    size: int
    kind: str = "int"
    count: int | None = None  # type: ignore[assignment]
    signed: bool = False
    bit_offset: int | None = None
    bit_size: int | None = None
    type_name: str = ""


class FakeTypes:
    """Stands in for ``_native.Types``."""

    def __init__(
        self,
        members: Mapping[str, FakeMember],
        sizes: Mapping[str, int],
        enumerators: Mapping[str, int],
    ) -> None:
        self._members = members
        self._sizes = sizes
        self._enumerators = enumerators

    def member(self, path: str) -> FakeMember:
        return cast(FakeMember, _found(self._members, path))

    def sizeof(self, name: str) -> int:
        return int(_found(self._sizes, name))

    def enumerator(self, name: str) -> int:
        return int(_found(self._enumerators, name))


def _found(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise AbsentError(f"no {name}")
    return known[name]


class FakeMemory(XenMemory):
    """Xen's memory as a run of bytes, allocated from its start."""

    def __init__(self, size: int = 256 * PAGE) -> None:
        self.word = 8
        self.probe = START
        self.content = bytearray(size)
        self.virtual = cast(AddressSpace, self)
        self._next = START

    def new(self, size: int = PAGE) -> int:
        """The address of some zeros, which start a page."""
        found = self._next
        self._next += -(-size // PAGE) * PAGE
        assert self._next - START <= len(self.content)
        return found

    def put(self, address: int, value: int, size: int = 8) -> None:
        """Writes a number."""
        at = address - START
        self.content[at : at + size] = value.to_bytes(size, "little", signed=value < 0)

    def cstring(self, address: int, limit: int = PAGE) -> bytes:
        """Stands in for that of ``virtual``."""
        return self.data(address, limit).partition(b"\0")[0]

    # The interface of XenMemory.

    def data(self, address: int, size: int) -> bytes:
        at = address - START
        assert 0 <= at <= len(self.content) - size
        return bytes(self.content[at : at + size])

    def read(self, address: int, size: int) -> bytes | None:
        self.charge(size)
        at = address - START
        return bytes(self.content[at : at + size]) if 0 <= at <= len(self.content) - size else None

    def number(self, address: int, size: int) -> int | None:
        data = self.read(address, size)
        return None if data is None else int.from_bytes(data, "little")

    def pointer(self, address: int) -> int | None:
        return self.number(address, self.word)

    def translate(self, address: int) -> int | None:
        return address - START if self.is_xen(address) else None

    def is_xen(self, address: int) -> bool:
        self.charge(1)
        return START <= address < START + len(self.content)


def structs(
    memory: FakeMemory,
    members: Mapping[str, FakeMember],
    sizes: Mapping[str, int] = {},
    enumerators: Mapping[str, int] = {},
) -> Structs:
    """The structs with these layouts."""
    return Structs(memory, cast(Types, FakeTypes(members, sizes, enumerators)))
