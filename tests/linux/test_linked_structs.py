"""Lists of structs that overlap, or that are more than may be read."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import linked_structs, trees
from xenkdump_fast.linux.chains import chain
from xenkdump_fast.linux.linked_structs import LinkedStructs, Places

from .objects import OVERLAPPING, Objects, overlapping

LAYOUTS = """
item: number node:16 next last
head: list:16
rb_root: rb_node
rb_node: __rb_parent_color rb_right rb_left
"""


class Lists:
    """Lists of items."""

    def __init__(self) -> None:
        self.objects = Objects(LAYOUTS)
        self.kernel = self.objects.kernel
        self.node = self.kernel.offset("item.node")

    def make(self, count: int) -> tuple[int, list[int]]:
        head = self.objects.make("head")
        items = [self.objects.make("item") for _ in range(count)]
        self.objects.link(head, [item + self.node for item in items])
        return head, items


@pytest.mark.parametrize(
    ("address", "other"),
    [(100, None), (140, None), (60, None), (101, 100), (139, 100), (61, 100), (99, 100)],
)
def test_places(address: int, other: int | None) -> None:
    places = Places(40)
    assert places.add(100) is None
    assert places.add(address) == other
    assert 100 in places
    assert (address in places) == (other is None)


def test_the_structs_of_a_list() -> None:
    made = Lists()
    head, items = made.make(3)
    structs = LinkedStructs(made.kernel, "item.node")
    assert structs.list(head) == items
    assert structs.list(head) == items
    assert not made.kernel.warnings


def test_a_long_list_is_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked_structs, "MAX_FIRST_WALK", 4)
    made = Lists()
    head, items = made.make(20)
    assert LinkedStructs(made.kernel, "item.node").list(head) == items
    assert made.kernel.memory.walked == 24
    assert not made.kernel.warnings


def test_only_lists_without_overlaps_are_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked_structs, "MAX_FIRST_WALK", 25)
    made = Lists()
    head, items = made.make(20)
    bad = made.objects.make("head")
    overlapping(made.kernel, bad)
    good, broken = LinkedStructs(made.kernel, "item.node").lists([head, bad])
    assert (good.entries, good.problem) == (items, None)
    assert len(broken.entries) == 1
    assert broken.problem is not None
    assert "breaks off after 1 entries: the struct item at" in broken.problem
    # The other way round, the list that follows is read in full.
    made.kernel.memory.walked = 0
    broken, good = LinkedStructs(made.kernel, "item.node").lists([bad, head])
    assert (good.entries, good.problem) == (items, None)
    assert (len(broken.entries), broken.end) == (1, "overlap")
    assert made.kernel.memory.walked == 25 + 20 < OVERLAPPING


def test_lists_share_a_limit() -> None:
    made = Lists()
    made.kernel.memory_held = 5 * made.kernel.types.sizeof("item")
    structs = LinkedStructs(made.kernel, "item.node")
    (first, items), (second, others) = made.make(3), made.make(3)
    assert structs.list(first) == items
    assert structs.list(second) == others[:2]
    assert structs.list(first) == []
    assert [text.partition("breaks off ")[2] for text in made.kernel.warnings] == [
        "after 2 entries: at most 5 structs item are read",
        "after 0 entries: at most 5 structs item are read",
    ]


def test_an_overlap_with_another_list() -> None:
    made = Lists()
    structs = LinkedStructs(made.kernel, "item.node")
    first, (item,) = made.make(1)
    second, _ = made.make(0)
    made.objects.link(second, [item + made.node + 8])
    assert (structs.list(first), structs.list(second)) == ([item], [])
    text = f"the struct item at {item + 8:#x} overlaps that at {item:#x}"
    assert any(text in warning for warning in made.kernel.warnings)


def test_an_overlapping_chain() -> None:
    made = Lists()
    pointer = made.objects.reserve(8)
    overlapping(made.kernel, pointer)
    following = made.kernel.offset("item.next")
    first = made.kernel.pointer(pointer) - following
    made.kernel.memory.reads = 0
    with pytest.raises(AbsentError, match="overlaps"):
        list(chain(made.kernel, first, "item.next"))
    assert made.kernel.memory.reads <= 10


def test_an_overlapping_tree() -> None:
    made = Lists()
    root, at = made.objects.make("rb_root"), made.objects.reserve(64)
    made.objects.set(root, "rb_root", rb_node=at)
    # The child's parent is the root's right child, and its color.
    made.objects.set(at, "rb_node", __rb_parent_color=0, rb_right=at, rb_left=at + 8)
    with pytest.raises(AbsentError, match="of the tree overlaps that at"):
        list(trees.walk(made.kernel, "rbtree", root))
