"""Maple trees (6.1, 54a611b60590)."""

from collections.abc import Iterator
from typing import NamedTuple

from ..._native import AbsentError
from ...limits import MAX_MAPLE_DEPTH, MAX_TREE_NODES
from ..kernel import Kernel
from . import Entry

#: include/linux/maple_tree.h: nodes are aligned to 256 bytes, and the type is in bits 3 to 6.
_NODE_MASK, _TYPE_SHIFT, _TYPE_MASK = 0xFF, 3, 0xF
_LEAF, _RANGE, _ARANGE = 1, 2, 3
#: Internal entries below this are marks: as in an xarray.
_INTERNAL, _MIN_POINTER = 2, 4096


class _Layout(NamedTuple):
    """Where a kind of node has its pivots and slots."""

    pivots: int
    pivot_count: int
    slots: int
    slot_count: int


def _layout(kernel: Kernel, struct: str) -> _Layout:
    pivots, slots = kernel.member(f"{struct}.pivot"), kernel.member(f"{struct}.slot")
    found = _Layout(pivots.offset, pivots.count or 0, slots.offset, slots.count or 0)
    if max(found.pivot_count, found.slot_count) > _NODE_MASK:
        raise AbsentError(f"the type of {struct} is not that of a node of a maple tree")
    return found


def _is_node(entry: int) -> bool:
    return entry & 3 == _INTERNAL and entry > _MIN_POINTER


def walk(kernel: Kernel, start: int, is_node: bool) -> Iterator[Entry]:
    """The entries of the ``maple_tree`` at ``start``, by their ranges.

    With ``is_node`` it is an encoded node, as in ``ma_root``.
    """
    root = start if is_node else kernel.read(start, "maple_tree.ma_root")
    if not is_node and not _is_node(root):
        if root:
            yield Entry(root, 0, 0)
        return
    layouts = {
        _RANGE: _layout(kernel, "maple_range_64"),
        _ARANGE: _layout(kernel, "maple_arange_64"),
    }
    layouts[_LEAF] = layouts[_RANGE]
    nodes = kernel.object_budget("nodes of the tree", _NODE_MASK + 1, MAX_TREE_NODES)
    seen: set[int] = set()
    #: Nodes to visit, with their ranges, the next one last.
    stack: list[Iterator[tuple[int, int, int]]] = [iter([(root, 0, kernel.last)])]
    leaf = [False]
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            leaf.pop()
            continue
        entry, first, last = following
        if leaf[-1]:
            if entry and not (entry & 3 == _INTERNAL and entry < _MIN_POINTER):
                yield Entry(entry, first, last)
            continue
        if not entry:
            continue
        node, kind = entry & ~_NODE_MASK, entry >> _TYPE_SHIFT & _TYPE_MASK
        if kind not in layouts:
            raise AbsentError(f"the node {node:#x} has the type {kind}, which is not known")
        if node in seen:
            raise AbsentError(f"the tree has the node {node:#x} twice")
        if len(stack) > MAX_MAPLE_DEPTH:
            raise AbsentError(f"the tree is deeper than {MAX_MAPLE_DEPTH} at {node:#x}")
        nodes.spend(1)
        seen.add(node)
        data = kernel.data(node, _NODE_MASK + 1)
        stack.append(_slots(data, kernel.word, layouts[kind], first, last))
        leaf.append(kind == _LEAF)


def _slots(
    data: bytes, word: int, layout: _Layout, first: int, last: int
) -> Iterator[tuple[int, int, int]]:
    """The slots in use with their ranges; a pivot of 0 after the first one ends them."""
    for i in range(layout.slot_count):
        upper = last
        if i < layout.pivot_count:
            at = layout.pivots + i * word
            pivot = int.from_bytes(data[at : at + word], "little")
            if pivot or not i:
                upper = min(pivot, last)
        at = layout.slots + i * word
        if upper < first:
            raise AbsentError(f"a node of the tree ends at {upper:#x} before it begins")
        yield int.from_bytes(data[at : at + word], "little"), first, upper
        if upper >= last:
            return
        first = upper + 1
