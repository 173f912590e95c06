"""xarrays, and radix trees before 4.20."""

from collections.abc import Iterator

from ..._native import AbsentError
from ...limits import MAX_RADIX_LEVELS, MAX_RADIX_SLOTS, MAX_TREE_NODES
from ..kernel import Kernel
from . import Entry

#: Internal entries below this refer to other slots, or are marks without a value (xarray.h).
_MIN_POINTER = 4096
#: Bits of a word at most.
_MAX_SHIFT = 60
#: Levels of a tree with indices of 64 bits: 11 with 64 slots, 16 with 16.
_LEVELS = 2 * MAX_RADIX_LEVELS


def walk(kernel: Kernel, start: int, is_node: bool) -> Iterator[Entry]:
    """The entries of the ``xarray`` or ``radix_tree_root`` at ``start``, by index."""
    if kernel.has("xarray.xa_head"):
        mark, root, struct = 2, "xarray.xa_head", "xa_node"
    else:
        mark, root, struct = 1, "radix_tree_root.rnode", "radix_tree_node"
    slots = kernel.member(f"{struct}.slots")
    count = min(slots.count or 1, MAX_RADIX_SLOTS)
    bits = (count - 1).bit_length()
    shift_at = kernel.offset(f"{struct}.shift")
    nodes = kernel.object_budget("nodes of the tree", count * kernel.word, MAX_TREE_NODES)
    seen: set[int] = set()
    head = start | mark if is_node else kernel.read(start, root)
    #: Slots to visit: the first index of each, what is in it, and its shift. Of the head the shift
    #: is not known.
    stack: list[Iterator[tuple[int, int, int | None]]] = [iter([(0, head, None)])]
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            continue
        index, entry, shift = following
        if not entry:
            continue
        if entry & 3 != mark:
            last = index if not shift else index + (1 << shift) - 1
            yield Entry(entry, index & kernel.last, last & kernel.last)
            continue
        node = entry - mark
        if node < _MIN_POINTER:
            continue
        if node in seen:
            raise AbsentError(f"the tree has the node {node:#x} twice")
        if len(stack) > _LEVELS:
            raise AbsentError(f"the tree is deeper than {_LEVELS} at {node:#x}")
        nodes.spend(1)
        seen.add(node)
        below = kernel.number(node + shift_at, 1)
        if below > _MAX_SHIFT or (shift is not None and below + bits != shift):
            raise AbsentError(f"the node {node:#x} has the shift {below}")
        data = kernel.data(node + slots.offset, count * kernel.word)
        stack.append(_slots(data, kernel.word, index, below))


def _slots(data: bytes, word: int, index: int, shift: int) -> Iterator[tuple[int, int, int | None]]:
    for i in range(len(data) // word):
        value = int.from_bytes(data[i * word : (i + 1) * word], "little")
        yield index + (i << shift), value, shift
