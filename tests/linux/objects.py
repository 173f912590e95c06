"""Objects of a fake kernel, by their structs."""

from collections.abc import Sequence
from typing import Literal

from .fakes import FakeKernel, FakeMember, FakeSymbols

START = 0xFFFF888000100000
#: An address that is not mapped.
NOWHERE = 0xFFFFC90000000000
#: The nodes of ``overlapping``, and where they are.
OVERLAPPING, _NODES = 1000, 0xFFFF888040000000


def structs(text: str, word: int = 8) -> dict[str, int | FakeMember]:
    """Layouts by lines such as ``mount: mnt:0 mnt.mnt_sb mnt_id:4 name:16*``.

    Members follow each other. Each has a word, or as many bytes as are given; those with a star are
    an array of characters, those with a minus sign are signed.
    """
    found: dict[str, int | FakeMember] = {}
    for line in text.strip().splitlines():
        struct, _, members = line.partition(":")
        at = 0
        for member in members.split():
            name, _, given = member.partition(":")
            size = int(given.strip("*-")) if given else word
            count = size if given.endswith("*") else None
            found[f"{struct.strip()}.{name}"] = FakeMember(
                at, size, count=count, signed=given.endswith("-")
            )
            at += size
        found[struct.strip()] = at
    return found


def overlapping(kernel: FakeKernel, head: int) -> None:
    """Links the pointer at ``head`` with nodes in consecutive words, the last one with ``head``."""
    word = kernel.word
    kernel.memory.number(head, _NODES, word)
    kernel.memory.write(_NODES - 0x1000, bytes(0x1000 + 2 * OVERLAPPING * word))
    for i in range(1, OVERLAPPING + 1):
        following = _NODES + i * word if i < OVERLAPPING else head
        kernel.memory.number(_NODES + (i - 1) * word, following, word)


class Objects:
    """A fake kernel in which objects are made one after the other."""

    def __init__(self, layouts: str, word: Literal[4, 8] = 8) -> None:
        self.kernel = FakeKernel({}, structs(layouts, word), word)
        self._next = START

    def reserve(self, size: int) -> int:
        """The address of so many bytes of zeros."""
        at = self._next
        self._next += (size + 15) // 16 * 16
        self.kernel.memory.write(at, bytes(size))
        return at

    def string(self, text: str) -> int:
        """The address of a string."""
        data = text.encode() + b"\0"
        at = self.reserve(len(data))
        self.kernel.memory.write(at, data)
        return at

    def make(self, struct: str, /, **values: int | str) -> int:
        """The address of a new struct with these members; ``__`` within a name is a dot."""
        at = self.reserve(self.kernel.types.sizeof(struct))
        self.set(at, struct, **values)
        return at

    def set(self, at: int, struct: str, /, **values: int | str) -> None:
        """Sets members. A string is stored in an array, or a pointer to it."""
        for name, value in values.items():
            path = name[:2] + name[2:].replace("__", ".")
            member = self.kernel.member(f"{struct}.{path}")
            if isinstance(value, int):
                size = member.size
                self.kernel.memory.number(at + member.offset, value & (1 << 8 * size) - 1, size)
            elif member.count is not None:
                self.kernel.memory.write(at + member.offset, value.encode() + b"\0")
            else:
                self.kernel.memory.number(at + member.offset, self.string(value), self.kernel.word)

    def symbols(self, **symbols: int) -> None:
        """Defines symbols."""
        assert isinstance(self.kernel.symbols, FakeSymbols)
        self.kernel.symbols.update(symbols)

    def link(self, head: int, nodes: Sequence[int]) -> None:
        """Links a list_head with its nodes."""
        word = self.kernel.word
        ring = [head, *nodes]
        for one, following in zip(ring, [*nodes, head], strict=True):
            self.kernel.memory.number(one, following, word)
            self.kernel.memory.number(following + word, one, word)
