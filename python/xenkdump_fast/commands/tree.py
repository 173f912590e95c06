"""``tree``: the entries of a red-black tree, an xarray, a radix tree or a maple tree."""

import argparse
from collections.abc import Iterator, Sequence

from .._typing import NamedTuple
from ..linux import trees
from ..linux.kernel import Kernel
from ..session import Domain
from . import addresses, entries
from .contract import Operands, UsageError
from .entries import Entries, Entry, Shown

OPERANDS = Operands(f"{addresses.ADDRESS}", f"the root: {addresses.ADDRESS_HELP}", "1")
#: Bits that mark an entry that is no pointer.
_MARK = 3


class Options(NamedTuple):
    """The tree."""

    operands: Sequence[str] = ()
    #: One of ``trees.KINDS``.
    type: str = trees.KINDS[0]
    #: The operand is a node, not the root.
    node: bool = False
    #: Where the node of a red-black tree is in its struct.
    offset: str | None = None
    indices: bool = False
    struct: str | None = None
    hex: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``tree``."""
    parser.add_argument(
        "-t",
        "--type",
        choices=trees.KINDS,
        default=trees.KINDS[0],
        help=f"the kind of tree; the default is {trees.KINDS[0]}",
    )
    parser.add_argument(
        "-N", "--node", action="store_true", help="the address is that of a node, not of the root"
    )
    parser.add_argument(
        "-o",
        "--offset",
        metavar="OFFSET|STRUCT.MEMBER",
        help="where the rb_node is in the struct, of an rbtree; the default is 0",
    )
    parser.add_argument(
        "-i", "--indices", action="store_true", help="with the indices of each entry"
    )
    entries.add_struct_options(parser)


class JSON(entries.EntriesJson):
    """What ``tree --json`` prints."""


def run(target: Domain, options: Options = Options()) -> Entries:
    """Walks the tree as far as it is intact; MemoryFault if its root cannot be read."""
    kernel = target.kernel
    is_rbtree = options.type == "rbtree"
    if options.offset is not None and not is_rbtree:
        raise UsageError("argument -o/--offset: only with the type rbtree")
    if options.indices and is_rbtree:
        raise UsageError("argument -i/--indices: not with the type rbtree")
    at = entries.offset(target, options.offset, "argument -o/--offset")
    shown = Shown.of(target, options.struct, 0, hex=options.hex)
    start = addresses.program(target).address(options.operands[0])
    found, failure = entries.collect(_entries(kernel, options, start, at))
    return Entries(kernel, found, shown, failure, options.indices)


def _entries(kernel: Kernel, options: Options, start: int, at: int) -> Iterator[Entry]:
    for entry in trees.walk(kernel, options.type, start, is_node=options.node):
        if entry.first is None or entry.last is None:
            yield Entry(kernel.containing(entry.value, at))
        else:
            yield Entry(entry.value, (entry.first, entry.last), not entry.value & _MARK)
