"""Trees: random ones, and damage in each kind."""

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Literal

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, words
from xenkdump_fast import AbsentError
from xenkdump_fast.linux import trees

ROOT = 0xFFFF888000000000
RB = {
    "rb_root.rb_node": FakeMember(0, 8),
    "rb_node.__rb_parent_color": FakeMember(0, 8),
    "rb_node.rb_right": FakeMember(8, 8),
    "rb_node.rb_left": FakeMember(16, 8),
}


def values(kernel: FakeKernel, kind: str) -> list[int]:
    return [entry.value for entry in trees.walk(kernel, kind, ROOT)]


class RedBlack:
    """A balanced tree of nodes at shuffled addresses."""

    def __init__(self, size: int) -> None:
        self.kernel = FakeKernel({}, RB)
        self.nodes = [ROOT + 0x1000 + 64 * i for i in range(size)]
        random.Random(size).shuffle(self.nodes)
        self.kernel.memory.write(ROOT, words(8, self._write(0, size, 0)))

    def _write(self, low: int, high: int, parent: int) -> int:
        if low == high:
            return 0
        middle = (low + high) // 2
        node = self.nodes[middle]
        left, right = self._write(low, middle, node), self._write(middle + 1, high, node)
        self.kernel.memory.write(node, words(8, parent | middle & 1, right, left))
        return node


class TestRedBlack:
    @pytest.mark.parametrize("size", [0, 1, 2, 7, 1000])
    def test_in_order(self, size: int) -> None:
        tree = RedBlack(size)
        assert values(tree.kernel, "rbtree") == tree.nodes

    def test_below_a_node(self) -> None:
        tree = RedBlack(7)
        (*_, last) = (
            e.value for e in trees.walk(tree.kernel, "rbtree", tree.nodes[5], is_node=True)
        )
        assert last == tree.nodes[6]

    @pytest.mark.parametrize(
        ("child", "problem"),
        [(3, "twice"), (0, "parent of the node"), (None, "not mapped")],
    )
    def test_damage(self, child: int | None, problem: str) -> None:
        tree = RedBlack(7)
        at = 0xFFFF888000F00000 if child is None else tree.nodes[child]
        # The right child of the last node.
        tree.kernel.memory.write(tree.nodes[6] + 8, words(8, at))
        if child == 0:
            tree.kernel.memory.write(tree.nodes[6] + 8, words(8, ROOT + 0x20000))
            tree.kernel.memory.write(ROOT + 0x20000, words(8, tree.nodes[0], 0, 0))
        walk = trees.walk(tree.kernel, "rbtree", ROOT)
        assert [entry.value for entry in islice(walk, 7)] == tree.nodes
        with pytest.raises(AbsentError, match=problem):
            next(walk)

    def test_a_chain_is_too_deep(self) -> None:
        kernel = FakeKernel({}, RB)
        nodes = [ROOT + 0x1000 + 64 * i for i in range(100)]
        kernel.memory.write(ROOT, words(8, nodes[0]))
        for parent, node, child in zip([0, *nodes], nodes, [*nodes[1:], 0], strict=False):
            kernel.memory.write(node, words(8, parent, 0, child))
        with pytest.raises(AbsentError, match="deeper"):
            values(kernel, "rbtree")


class Indexed:
    """An xarray, or a radix tree of 4.19, with given entries."""

    def __init__(
        self,
        entries: dict[int, int],
        *,
        slots: int = 64,
        word: Literal[4, 8] = 8,
        old: bool = False,
    ) -> None:
        self.root = ROOT if word == 8 else 0xC0000000
        self.word, self.slots, self.mark = word, slots, 1 if old else 2
        root, struct = (
            ("radix_tree_root.rnode", "radix_tree_node")
            if old
            else (
                "xarray.xa_head",
                "xa_node",
            )
        )
        self.kernel = FakeKernel(
            {},
            {
                root: FakeMember(8, word),
                f"{struct}.shift": FakeMember(0, 1),
                f"{struct}.slots": FakeMember(40, word * slots, count=slots),
            },
            word,
        )
        self._free: Iterator[int] = count(self.root + 0x1000, 0x1000)
        self.nodes: list[int] = []
        bits, shift = slots.bit_length() - 1, 0
        while entries and max(entries) >> shift >= slots:
            shift += bits
        head = self._node(entries, 0, shift) if entries else 0
        self.kernel.memory.write(self.root + 8, words(word, head))

    def _node(self, entries: dict[int, int], first: int, shift: int) -> int:
        at = next(self._free)
        self.nodes.append(at)
        content = []
        for i in range(self.slots):
            low = first + (i << shift)
            inside = {k: v for k, v in entries.items() if low <= k < low + (1 << shift)}
            if not inside:
                content.append(0)
            elif shift:
                content.append(self._node(inside, low, shift - self.slots.bit_length() + 1))
            else:
                content.append(inside[low])
        self.kernel.memory.write(at, bytes([shift]))
        self.kernel.memory.write(at + 40, words(self.word, *content))
        return at | self.mark

    def found(self) -> list[tuple[int | None, int]]:
        return [(e.first, e.value) for e in trees.walk(self.kernel, "xarray", self.root)]


class TestIndexed:
    @pytest.mark.parametrize(("slots", "word"), [(64, 8), (16, 8), (64, 4)])
    @pytest.mark.parametrize("old", [False, True])
    def test_by_index(self, slots: int, word: Literal[4, 8], old: bool) -> None:
        rng = random.Random(slots)
        entries = {rng.randrange(1 << 30): 0x1000 + 8 * i for i in range(50)}
        tree = Indexed(entries, slots=slots, word=word, old=old)
        assert tree.found() == sorted(entries.items())

    def test_empty_and_single(self) -> None:
        tree = Indexed({})
        assert tree.found() == []
        tree.kernel.memory.write(ROOT + 8, words(8, 0x1235))
        assert tree.found() == [(0, 0x1235)]

    def test_siblings_and_values(self) -> None:
        # A page of 4 slots at index 4: three slots refer to the first; a number at 9.
        entries = {4: ROOT, 5: 4 << 2 | 2, 6: 4 << 2 | 2, 7: 4 << 2 | 2, 9: 77 << 1 | 1}
        assert Indexed(entries).found() == [(4, ROOT), (9, 155)]

    def test_an_entry_in_an_upper_slot_has_a_range(self) -> None:
        tree = Indexed({0: ROOT, 1000: ROOT + 8})
        tree.kernel.memory.write(tree.nodes[0] + 40 + 8, words(8, ROOT + 16))
        (_, upper, _) = trees.walk(tree.kernel, "xarray", ROOT)
        assert upper == (ROOT + 16, 64, 127)

    @pytest.mark.parametrize(
        ("at", "data", "problem"),
        [
            (0, b"\x3f", "has the shift 63"),
            (1, b"\x06", "has the shift 6"),
            (1, None, "not mapped"),
        ],
    )
    def test_damage(self, at: int, data: bytes | None, problem: str) -> None:
        tree = Indexed({0: ROOT, 1000: ROOT + 8})
        if data is None:
            tree.kernel.memory.drop(tree.nodes[at])
        else:
            tree.kernel.memory.write(tree.nodes[at], data)
        with pytest.raises(AbsentError, match=problem):
            tree.found()

    def test_a_node_twice(self) -> None:
        tree = Indexed({0: ROOT, 1000: ROOT + 8})
        tree.kernel.memory.write(tree.nodes[0] + 40 + 8, words(8, tree.nodes[1] | 2))
        with pytest.raises(AbsentError, match="twice"):
            tree.found()


MAPLE = {
    "maple_tree.ma_root": FakeMember(8, 8),
    "maple_range_64.pivot": FakeMember(8, 120, count=15),
    "maple_range_64.slot": FakeMember(128, 128, count=16),
    "maple_arange_64.pivot": FakeMember(8, 72, count=9),
    "maple_arange_64.slot": FakeMember(80, 80, count=10),
}
LEAF, RANGE, ARANGE = 1, 2, 3
LAST = (1 << 64) - 1


class Maple:
    """A maple tree of two levels."""

    def __init__(self, ranges: Sequence[tuple[int, int]], kind: int = ARANGE) -> None:
        """``ranges`` are the ends and the entries (0 for a gap), up to ``LAST``."""
        self.kernel = FakeKernel({}, MAPLE)
        self.nodes: list[int] = []
        leaves = [ranges[i : i + 5] for i in range(0, len(ranges), 5)]
        upper = [(leaf[-1][0], self._node(LEAF, leaf)) for leaf in leaves]
        # A tree of one leaf has no other node.
        self.top = self._node(kind, upper) if len(upper) > 1 else self.nodes[0] | LEAF << 3
        self.kernel.memory.write(ROOT + 8, words(8, self.top | 2))

    def _node(self, kind: int, content: Sequence[tuple[int, int]]) -> int:
        at = ROOT + 0x1000 + 0x100 * len(self.nodes)
        self.nodes.append(at)
        slots = 80 if kind == ARANGE else 128
        self.kernel.memory.write(at, bytes(256))
        # The last pivot may be left out, and is 0 then.
        self.kernel.memory.write(at + 8, words(8, *(end for end, _ in content if end != LAST)))
        self.kernel.memory.write(at + slots, words(8, *(entry for _, entry in content)))
        # Of a leaf with unused slots the last word has its number of entries.
        if kind != ARANGE:
            self.kernel.memory.write(at + 248, words(8, len(content) - 1))
        return at | kind << 3 | 4

    def found(self) -> list[tuple[int, int | None, int | None]]:
        return [(e.value, e.first, e.last) for e in trees.walk(self.kernel, "maple", ROOT)]


class TestMaple:
    RANGES = (
        *((0xFFF, 0), (0x1FFF, ROOT + 8), (0x2FFF, ROOT + 16), (0x4FFF, 0), (0x5FFF, ROOT + 24)),
        *((0x6FFF, 0), (0x7FFF, ROOT + 32), (LAST, 0)),
    )

    @pytest.mark.parametrize("kind", [RANGE, ARANGE])
    def test_by_range(self, kind: int) -> None:
        assert Maple(self.RANGES, kind).found() == [
            (ROOT + 8, 0x1000, 0x1FFF),
            (ROOT + 16, 0x2000, 0x2FFF),
            (ROOT + 24, 0x5000, 0x5FFF),
            (ROOT + 32, 0x7000, 0x7FFF),
        ]

    def test_the_first_range_is_the_index_0(self) -> None:
        ranges = [(0, ROOT + 8), (5, ROOT + 16), (LAST, 0)]
        assert Maple(ranges).found() == [(ROOT + 8, 0, 0), (ROOT + 16, 1, 5)]

    def test_a_full_leaf(self) -> None:
        tree = Maple([(LAST, 0)])
        ends = [16 * i + 15 for i in range(15)]
        tree.kernel.memory.write(tree.nodes[0] + 8, words(8, *ends))
        tree.kernel.memory.write(tree.nodes[0] + 128, words(8, *range(ROOT, ROOT + 16 * 8, 8)))
        found = tree.found()
        assert [entry for entry, _, _ in found] == [*range(ROOT, ROOT + 16 * 8, 8)]
        assert [last for _, _, last in found] == [*ends, LAST]

    def test_empty_and_single(self) -> None:
        tree = Maple(self.RANGES)
        tree.kernel.memory.write(ROOT + 8, words(8, 0))
        assert tree.found() == []
        tree.kernel.memory.write(ROOT + 8, words(8, ROOT + 64))
        assert tree.found() == [(ROOT + 64, 0, 0)]

    def test_below_a_node(self) -> None:
        tree = Maple(self.RANGES)
        found = trees.walk(tree.kernel, "maple", tree.top, is_node=True)
        assert [tuple(entry) for entry in found] == tree.found()

    @pytest.mark.parametrize(
        ("node", "at", "value", "problem"),
        [
            (2, 88, ROOT + 0x1000 | LEAF << 3, "twice"),
            (2, 80, ROOT + 0x1000 | 9 << 3, "the type 9"),
            (0, 16, 1, "before it begins"),
            (2, 80, 0xFFFF888000F00000 | LEAF << 3, "not mapped"),
        ],
    )
    def test_damage(self, node: int, at: int, value: int, problem: str) -> None:
        tree = Maple(self.RANGES)
        tree.kernel.memory.write(tree.nodes[node] + at, words(8, value))
        with pytest.raises(AbsentError, match=problem):
            tree.found()


@pytest.mark.parametrize("kind", trees.KINDS)
def test_any_bytes_end(kind: str) -> None:
    """No tree in random memory takes more work than the memory that there is."""
    rng = random.Random(kind)
    layouts = {
        **RB,
        **MAPLE,
        "xarray.xa_head": FakeMember(8, 8),
        "xa_node.shift": FakeMember(0, 1),
        "xa_node.slots": FakeMember(40, 512, count=64),
    }
    for _ in range(20):
        kernel = FakeKernel({}, layouts)
        kernel.memory_held = 1 << 16
        places = [ROOT + 64 * i | rng.choice((0, 2, 12, 28)) for i in range(1024)]
        kernel.memory.write(ROOT, words(8, *(rng.choice((0, *places)) for _ in range(8192))))
        before = kernel.memory.reads
        try:
            found = len(values(kernel, kind))
        except AbsentError:
            found = 0
        assert found <= 1 << 16
        assert kernel.memory.reads - before < 10_000
