"""Entries of lists and trees: the structs that ``list`` and ``tree`` print."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError, Type
from .._typing import Any, NamedTuple, NotRequired, TypedDict
from ..linux.kernel import Kernel
from ..linux.typed import printing, types
from ..linux.typed.value import Value
from ..output.json_types import Count, Hex, Stream
from ..session import Domain
from . import struct
from .contract import UsageError


def add_struct_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``-s`` and ``-x``."""
    parser.add_argument(
        "-s",
        "--struct",
        metavar="STRUCT[.MEMBER,...]",
        help="print this struct, or these members of it, of each entry",
    )
    parser.add_argument("-x", "--hex", action="store_true", help="numbers in hex")


def offset(domain: Domain, text: str | None, option: str) -> int:
    """As ``struct.offset``, within the address space; 0 without one. Raises UsageError."""
    if text is None:
        return 0
    found = struct.offset(domain, text, option)
    if not 0 <= found <= domain.kernel.last:
        raise UsageError(f"{option}: {text!r} is no offset")
    return found


class Shown(NamedTuple):
    """What of an entry is printed."""

    type: Type | None
    #: Only these; all if empty.
    members: Sequence[str]
    #: Where in the struct the address of the entry is.
    inside: int
    style: printing.Style

    @classmethod
    def of(cls, domain: Domain, text: str | None, inside: int, *, hex: bool) -> "Shown":  # noqa: A002
        """By the option ``-s``. AbsentError if there is no such struct, or no such member."""
        style = printing.Style(16 if hex else 10)
        if text is None:
            return cls(None, (), inside, style)
        name, _, rest = text.partition(".")
        members = [member for member in rest.split(",") if member]
        found = struct.named(domain, name, None)
        for path in members:
            struct.place(found, path)
        types.sizeof(found, domain.kernel.word)
        return cls(found, members, inside, style)

    def value(self, kernel: Kernel, address: int) -> Value | None:
        """The struct of an entry; None if none is asked for."""
        if self.type is None:
            return None
        return Value(kernel, self.type, kernel.containing(address, self.inside))


class Entry(NamedTuple):
    """An entry of a list or a tree."""

    address: int
    #: The range of its indices in a tree.
    range: tuple[int, int] | None = None
    #: Whether the address is that of an object.
    is_object: bool = True


class EntryJson(TypedDict):
    """An entry. ``first`` and ``last`` only of trees with indices, ``value`` only with ``-s``."""

    address: Hex
    first: NotRequired[Hex]
    last: NotRequired[Hex]
    value: NotRequired[Any]


class EntriesJson(TypedDict):
    """Entries in order."""

    count: Count
    entries: Stream[EntryJson]


class Entries(NamedTuple):
    """Entries of a list or a tree."""

    kernel: Kernel
    found: Sequence[Entry]
    shown: Shown
    #: Why they are not all; None if they are.
    failure: str | None
    #: Whether the text has the indices.
    indices: bool = False

    def text(self) -> Iterator[str]:
        """The address of each entry, and what is asked for of its struct."""
        for entry in self.found:
            line = f"{entry.address:x}"
            if self.indices and entry.range is not None:
                first, last = entry.range
                indices = f"{first:x}" if first == last else f"{first:x}-{last:x}"
                line = f"{indices}: {line}"
            yield line
            value = self.shown.value(self.kernel, entry.address) if entry.is_object else None
            if value is not None:
                yield from struct.shown(value, self.shown.members, self.shown.style)

    def json(self) -> EntriesJson:
        """The same, with indices."""
        return {"count": len(self.found), "entries": map(self._json, self.found)}

    def _json(self, entry: Entry) -> EntryJson:
        found: EntryJson = {"address": hex(entry.address)}
        if entry.range is not None:
            found["first"], found["last"] = map(hex, entry.range)
        value = self.shown.value(self.kernel, entry.address) if entry.is_object else None
        if value is not None:
            found["value"] = struct.plain(value, self.shown.members)
        return found


def collect(entries: Iterator[Entry]) -> tuple[list[Entry], str | None]:
    """The entries up to damage, and what that is. AbsentError if there is no entry before it."""
    found: list[Entry] = []
    try:
        found.extend(entries)
    except AbsentError as error:
        if not found:
            raise
        return found, f"after {len(found)} entries: {error}"
    return found, None
