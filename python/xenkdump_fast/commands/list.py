"""``list``: the entries of a linked list."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_FOLLOWED_ENTRIES
from ..linux.kernel import Kernel
from ..session import Domain
from . import addresses, entries
from .contract import Operands, UsageError
from .entries import Entries, Entry, Shown

if TYPE_CHECKING:
    from .._native import ListLinks

OPERANDS = Operands(
    "[OFFSET|STRUCT.MEMBER] START",
    "the place of the pointer to the next entry in a struct, the same as --offset, and the first "
    "struct, as an address in hex or a symbol and an offset; with -H the list_head",
    "+",
)


class Options(NamedTuple):
    """The list."""

    operands: Sequence[str] = ()
    #: Where the link is in the struct.
    offset: str | None = None
    #: The start is a list_head that is in no struct of the list.
    head: bool = False
    #: The start is a struct of a list of list_heads.
    embedded: bool = False
    #: The start is an hlist_head.
    hlist: bool = False
    reverse: bool = False
    end: str | None = None
    struct: str | None = None
    inside: str | None = None
    hex: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``list``."""
    place = "OFFSET|STRUCT.MEMBER"
    parser.add_argument(
        "-o", "--offset", metavar=place, help="where the link is in the struct; the default is 0"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "-H", "--head", action="store_true", help="START is a list_head outside the structs"
    )
    start.add_argument(
        "-E",
        "--embedded",
        action="store_true",
        help="START is a struct whose link is a list_head; as in crash, -h before other words is "
        "the same",
    )
    start.add_argument("--hlist", action="store_true", help="START is an hlist_head")
    parser.add_argument("-r", "--reverse", action="store_true", help="follow prev, of a list_head")
    parser.add_argument("-e", "--end", metavar="ADDRESS", help="stop before this entry")
    entries.add_struct_options(parser)
    parser.add_argument(
        "-l",
        "--inside",
        metavar=place,
        help="the addresses are those of this member of the struct of --struct",
    )


def from_crash(words: Sequence[str]) -> list[str]:
    """Takes ``-h`` for crash's, which is ``-E``; the help only if it is the last word."""
    *before, last = words or [""]
    return [*("-E" if word == "-h" else word for word in before), *([last] if words else [])]


class JSON(entries.EntriesJson):
    """What ``list --json`` prints."""


def run(target: Domain, options: Options = Options()) -> Entries:
    """Follows the list as far as it is intact; MemoryFault if its start cannot be read."""
    kernel = target.kernel
    (*before, start_text) = options.operands
    if len(before) > 1 or (before and options.offset is not None):
        raise UsageError("one START is needed, and at most one OFFSET before it")
    if options.reverse and not (options.head or options.embedded):
        raise UsageError("argument -r/--reverse: needs -H/--head or -E/--embedded")
    text = before[0] if before else options.offset
    at = entries.offset(target, text, "argument -o/--offset")
    inside = entries.offset(target, options.inside, "argument -l/--inside")
    if options.inside is not None and options.struct is None:
        raise UsageError("argument -l/--inside: needs -s/--struct")
    shown = Shown.of(target, options.struct, inside, hex=options.hex)
    known = addresses.program(target)
    start = known.address(start_text)
    end = None if options.end is None else known.address(options.end)
    walk = _linked if options.head or options.embedded or options.hlist else _followed
    found, failure = entries.collect(_until(walk(kernel, start, at, options), end))
    return Entries(kernel, found, shown, failure)


def _until(found: Iterator[int], end: int | None) -> Iterator[Entry]:
    for address in found:
        if address == end:
            return
        yield Entry(address)


def _followed(kernel: Kernel, start: int, at: int, options: Options) -> Iterator[int]:
    """Structs that point to the start of the next one, up to NULL or the first one."""
    budget = kernel.object_budget("list entries", kernel.word, MAX_FOLLOWED_ENTRIES)
    seen: set[int] = set()
    address = start
    while address and (address != start or not seen):
        if address in seen:
            raise AbsentError(f"the list loops back to {address:#x}")
        following = kernel.pointer(address + at)
        budget.spend(1)
        seen.add(address)
        yield address
        address = following


def _linked(kernel: Kernel, start: int, at: int, options: Options) -> Iterator[int]:
    """Structs linked by a list_head or an hlist_node."""
    links: ListLinks = "circular"
    if options.hlist:
        links = "null-terminated"
    elif options.reverse:
        links = "backward"
    head = (start + at) & kernel.last if options.embedded else start
    kernel.pointer(head)
    (found,) = kernel.lists([head], MAX_FOLLOWED_ENTRIES, links)
    if options.embedded:
        yield start
    for node in found.entries:
        yield kernel.containing(node, at)
    if found.problem is not None:
        raise AbsentError(found.problem)
