"""A fake kernel: memory as a dictionary of pages, with given layouts and symbols."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from xenkdump_fast import AbsentError, MemoryFault
from xenkdump_fast.diagnostics import Warnings
from xenkdump_fast.linux.boot.locate import Location
from xenkdump_fast.linux.kernel import Kernel

from .. import paths_by_walk

PAGE = 4096


class Memory:
    """Virtual memory; a page exists once something is written to it."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        #: The number of reads.
        self.reads = 0
        #: The number of nodes that walks of lists returned.
        self.walked = 0

    def write(self, address: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            number, at = divmod(address + done, PAGE)
            step = min(PAGE - at, len(data) - done)
            page = self.pages.setdefault(number, bytearray(PAGE))
            page[at : at + step] = data[done : done + step]
            done += step

    def number(self, address: int, value: int, size: int) -> None:
        self.write(address, value.to_bytes(size, "little"))

    def drop(self, address: int) -> None:
        """Removes the page at ``address`` from memory."""
        del self.pages[address // PAGE]

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        data = bytearray()
        while len(data) < size:
            page = self.pages.get((address + len(data)) // PAGE)
            if page is None:
                raise MemoryFault(f"{address + len(data):#x} is not mapped")
            at = (address + len(data)) % PAGE
            data += page[at : at + size - len(data)]
        return bytes(data)

    def word(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def read_members(
        self, structs: Sequence[int], members: Sequence[tuple[int, int]]
    ) -> list[list[int | bytes | None]]:
        def value(address: int, size: int) -> int | bytes | None:
            try:
                data = self.read(address, size)
            except MemoryFault:
                return None
            return int.from_bytes(data, "little") if size in (1, 2, 4, 8) else data

        return [[value(at + offset, size) for at in structs] for offset, size in members]

    def read_each(self, addresses: Sequence[int], sizes: Sequence[int]) -> list[bytes | None]:
        def one(address: int, size: int) -> bytes | None:
            try:
                return self.read(address, size)
            except MemoryFault:
                return None

        return [one(at, size) for at, size in zip(addresses, sizes, strict=True)]

    def pointers(
        self, addresses: Sequence[int], counts: Sequence[int], word: int, *, flags: int = 0
    ) -> tuple[list[int | None], list[int], list[int]]:
        found: list[int | None] = []
        indices: list[int] = []
        pointers: list[int] = []
        for address, count in zip(addresses, counts, strict=True):
            try:
                values = [self.word(address + i * word, word) for i in range(count)]
            except MemoryFault:
                found.append(None)
                continue
            used = [i for i, value in enumerate(values) if value]
            found.append(len(used))
            indices += used
            pointers += [values[i] & ~flags for i in used]
        return found, indices, pointers

    def paths(
        self,
        nodes: Sequence[int],
        trees: Sequence[int | None],
        word: int,
        node: tuple[int, int, int, int],
        tree: tuple[int, int, int, int],
        limits: tuple[int, int, int, int],
    ) -> tuple[list[str], list[tuple[str, int]], int, int, int]:
        found = paths_by_walk.paths(self, nodes, trees, word, node, tree, limits[0])
        return [text for text, _ in found], [lost for _, lost in found if lost], 0, 0, 0

    def lists(
        self, heads: Sequence[int], word: int, *, links: str = "circular", limit: int
    ) -> list[tuple[list[int], str, int | None]]:
        link = word if links == "backward" else 0
        owners: dict[int, int] = {}

        def walk(number: int, head: int) -> tuple[list[int], str, int | None]:
            nodes: list[int] = []
            at = head
            while True:
                try:
                    next_node = self.word(at + link, word)
                except MemoryFault:
                    return nodes, "unreadable", at
                if next_node == (0 if links == "null-terminated" else head):
                    return nodes, "complete", None
                if next_node in owners:
                    end = "loop" if owners[next_node] == number else "shared"
                    return nodes, end, next_node
                if len(owners) >= limit:
                    return nodes, "limit", next_node
                owners[next_node] = number
                self.walked += 1
                nodes.append(next_node)
                at = next_node

        return [walk(number, head) for number, head in enumerate(heads)]

    def read_many(self, addresses: Any, size: int, *, status: Any) -> Any:
        rows = np.zeros((len(addresses), size), np.uint8)
        for i, address in enumerate(addresses.tolist()):
            try:
                rows[i] = np.frombuffer(self.read(address, size), np.uint8)
            except MemoryFault:
                status[i] = 1
        return rows

    def u32(self, address: int) -> int:
        return self.word(address, 4)

    def cstring(self, address: int, limit: int = 4096) -> bytes:
        data = bytearray()
        while len(data) < limit and (byte := self.read(address + len(data), 1)) != b"\0":
            data += byte
        return bytes(data)


@dataclass
class FakeMember:
    offset: int
    size: int = 4
    bit_offset: int | None = None
    bit_size: int | None = None
    count: int | None = None
    signed: bool = False


class FakeTypes:
    """Layouts: ``struct.member`` to a member or its offset, ``struct`` to its size."""

    source = "by hand"

    def __init__(self, layouts: Mapping[str, int | FakeMember]) -> None:
        self.layouts = layouts

    @property
    def native(self) -> "FakeTypes":
        return self

    def __contains__(self, struct: str) -> bool:
        return struct in self.layouts

    def _find(self, path: str) -> int | FakeMember:
        try:
            return self.layouts[path]
        except KeyError:
            raise AbsentError(f"no {path}") from None

    def sizeof(self, struct: str) -> int:
        size = self._find(struct)
        assert isinstance(size, int)
        return size

    def member(self, path: str) -> FakeMember:
        found = self._find(path)
        return FakeMember(found) if isinstance(found, int) else found

    def offset(self, path: str) -> int:
        return self.member(path).offset

    def enumerator(self, name: str) -> int:
        raise AbsentError(f"no enumerator {name}")

    def members(self, struct: str) -> dict[str, FakeMember]:
        prefix = f"{struct}."
        return {
            path.removeprefix(prefix): self.member(path)
            for path in self.layouts
            if path.startswith(prefix)
        }


class FakeSymbols(dict[str, int]):
    """Symbols without sizes."""

    def all(self, name: str) -> list[Any]:
        return []

    def lookup(self, address: int) -> Any:
        return None


class FakeKernel(Kernel):
    """A Kernel with fake memory, symbols and layouts."""

    def __init__(
        self,
        symbols: Mapping[str, int],
        layouts: Mapping[str, int | FakeMember] | None = None,
        word: Literal[4, 8] = 8,
    ) -> None:
        self.memory = Memory()
        made: dict[str, Any] = {
            "symbols": FakeSymbols(symbols),
            "types": FakeTypes(layouts or {}),
            "virtual": self.memory,
            "image": SimpleNamespace(path="vmlinux", is_memory=False, symbol_source="symtab"),
            "location": Location(0, "x86_64", 0, "made by hand", {}),
        }
        self.__dict__.update(made)
        self.memory_held = 1 << 30
        self.word = word
        self._warnings = Warnings()
        self._members = {}
        self._numbers = {}
        self._missing = set()


def words(size: int, *values: int) -> bytes:
    """Consecutive words of 4 or 8 bytes."""
    return struct.pack(f"<{len(values)}{'Q' if size == 8 else 'I'}", *values)
