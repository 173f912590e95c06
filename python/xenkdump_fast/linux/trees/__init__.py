"""Trees of the kernel, one file each: ``walk(kernel, root)`` yields the entries in their order.

A walk that meets damage raises AbsentError (MemoryFault, BudgetExceededError) after the entries
before it.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

from ..kernel import Kernel

#: The kinds, with the module of each. xarrays replaced radix trees in 4.20 (f8d5d0cc145c).
_MODULES = {"rbtree": "rbtree", "xarray": "xarray", "radix": "xarray", "maple": "maple"}
KINDS = tuple(_MODULES)


class Entry(NamedTuple):
    """An entry of a tree."""

    #: The address of a node of an rbtree; what is stored in a slot of the other trees.
    value: int
    #: The indices at which it is stored: the first and the last; None in an rbtree.
    first: int | None = None
    last: int | None = None


Walk = Callable[[Kernel, int, bool], Iterator[Entry]]


def walk(kernel: Kernel, kind: str, start: int, *, is_node: bool = False) -> Iterator[Entry]:
    """The entries of the tree with its root at ``start``, or with ``is_node`` below that node."""
    module = import_module(f".{_MODULES[kind]}", __package__)
    found: Iterator[Entry] = module.walk(kernel, start, is_node)
    return found
