"""Red-black trees."""

from collections.abc import Iterator

from ..._native import AbsentError
from ...limits import MAX_TREE_DEPTH, MAX_TREE_NODES
from ..kernel import Kernel
from ..linked_structs import Places
from . import Entry

#: The low bits of __rb_parent_color, which have the color.
_COLOR = 3


def walk(kernel: Kernel, start: int, is_node: bool) -> Iterator[Entry]:
    """The nodes of the ``rb_root`` (or ``rb_root_cached``) at ``start``, in order."""
    word = kernel.word
    node = start if is_node else kernel.pointer(start + kernel.offset("rb_root.rb_node"))
    left, right = kernel.offset("rb_node.rb_left"), kernel.offset("rb_node.rb_right")
    # 3.7 (bf7ad8eeab99) renamed rb_parent_color.
    new = kernel.has("rb_node.__rb_parent_color")
    parent = kernel.offset("rb_node.__rb_parent_color" if new else "rb_node.rb_parent_color")
    size = max(left, right, parent) + word
    nodes = kernel.object_budget("nodes of the tree", size, MAX_TREE_NODES)
    seen = Places(size)
    #: Nodes whose left side is being visited: the address, and the right child.
    path: list[tuple[int, int]] = []
    above = None
    while node or path:
        while node:
            if node in seen:
                raise AbsentError(f"the tree has the node {node:#x} twice")
            if len(path) >= MAX_TREE_DEPTH:
                raise AbsentError(f"the tree is deeper than {MAX_TREE_DEPTH} at {node:#x}")
            nodes.spend(1)
            other = seen.add(node)
            if other is not None:
                raise AbsentError(f"the node {node:#x} of the tree overlaps that at {other:#x}")
            data = kernel.data(node, size)
            recorded = int.from_bytes(data[parent : parent + word], "little") & ~_COLOR
            if recorded != (above or 0) and not (is_node and above is None):
                raise AbsentError(f"the parent of the node {node:#x} is {recorded:#x}")
            path.append((node, int.from_bytes(data[right : right + word], "little")))
            above, node = node, int.from_bytes(data[left : left + word], "little")
        above, node = path.pop()
        yield Entry(above)
