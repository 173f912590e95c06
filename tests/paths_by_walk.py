"""``AddressSpace.paths``, by single reads: what tests compare it with, and what a fake uses."""

from collections.abc import Sequence
from typing import Protocol

from xenkdump_fast._native import MemoryFault

_MAX_NAME = 255


class Readable(Protocol):
    """What has bytes at addresses."""

    def read(self, address: int, size: int) -> bytes:
        """The bytes; MemoryFault if one cannot be read."""
        ...


def paths(
    space: Readable,
    nodes: Sequence[int],
    trees: Sequence[int | None],
    word: int,
    node: tuple[int, int, int, int],
    tree: tuple[int, int, int, int],
    depth: int,
) -> list[tuple[str, tuple[str, int] | None]]:
    """The path of each node, and what it lacks first; without the limits of number and size."""
    inside, *members = tree

    def number(at: int, size: int = word) -> int:
        return int.from_bytes(space.read(at, size), "little")

    def struct(at: int) -> tuple[int, int, int] | None:
        if not at:
            return None
        try:
            parent, name, length, size = node
            return number(at + parent), number(at + name), number(at + length, size)
        except MemoryFault:
            return None

    def mount(at: int) -> tuple[int, int, int] | None:
        start = (at - inside) % (1 << 8 * word)
        if not at or not start:
            return None
        try:
            above, point, root = (number(start + member) for member in members)
        except MemoryFault:
            return None
        return (above + inside) % (1 << 8 * word), point, root

    def name(found: tuple[int, int, int]) -> tuple[str, tuple[str, int] | None]:
        _, at, length = found
        if length > _MAX_NAME:
            return "?", ("name", at)
        try:
            data = space.read(at, length)
        except MemoryFault:
            return "?", ("name", at)
        return data.decode("utf-8", "backslashreplace"), None

    def one(at: int, within: int | None) -> tuple[str, tuple[str, int] | None]:
        if within is None:
            found = struct(at)
            return ("?", ("node", at)) if found is None else name(found)
        parts: list[str] = []
        lost: list[tuple[str, int]] = []
        for _ in range(depth):
            found, place = struct(at), mount(within)
            if found is None:
                lost.append(("node", at))
                break
            if (place is not None and place[2] == at) or found[0] == at:
                if place is None:
                    lost.append(("tree", within))
                    break
                if place[0] == within:
                    return "/" + "/".join(reversed(parts)), lost[0] if lost else None
                within, at = place[:2]
                continue
            text, problem = name(found)
            parts.append(text)
            if problem is not None:
                lost.append(problem)
            at = found[0]
        else:
            lost.append(("depth", 0))
        return "/" + "/".join(["?", *reversed(parts)]), lost[0]

    return [one(at, within) for at, within in zip(nodes, trees, strict=True)]
