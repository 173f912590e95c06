"""``AddressSpace.paths`` against a walk by single reads, in graphs of any shape."""

import random
from collections.abc import Callable
from typing import Literal

import pytest

from xenkdump_fast._native import Dump

from .. import paths_by_walk
from .machine import PAGE, Machine

#: Where structs have their members, with pointers of 8 bytes; those of 4 are at the same places.
NODE = 0, 8, 16, 4
TREE = 0x20, 0, 8, 0x28
DEPTH = 20
STEPS = 1 << 20
LIMITS = DEPTH, 10_000, 1 << 20, STEPS


def graph(rng: random.Random, word: int) -> tuple[Machine, list[int], list[int | None]]:
    """Nodes and trees that lead anywhere: to others, to themselves, to nothing, out of memory."""
    memory = Machine()
    nodes = [0x1000 + 0x60 * i for i in range(100)]
    trees = [0x8000 + 0x70 * i for i in range(30)]
    # Structs are across pages, some of which are missing.
    missing = {0x2000, 0x9000} if rng.random() < 0.5 else set[int]()

    def put(at: int, value: int, size: int) -> None:
        data = value.to_bytes(8, "little")[:size]
        for i, byte in enumerate(data):
            if (at + i) // PAGE * PAGE not in missing:
                memory.write(at + i, bytes([byte]))

    for i, at in enumerate(nodes):
        # Mostly a tree, whose parents are before their children.
        parent = rng.choice([*nodes[: i + 1], *nodes[: i + 1], *rng.sample(nodes, 2), 0, 0xF0000])
        name = at + 0x20 if rng.random() < 0.9 else rng.choice([0, 0xF0000, 0x1FF8])
        length = rng.choice([0, 1, 5, 5, 5, 300, 0xFFFFFFFF] if rng.random() < 0.1 else [1, 5])
        put(at, parent, word)
        put(at + 8, name, word)
        put(at + 16, length, 4)
        for k, byte in enumerate(rng.choice([b"/var", b"n\xc3\xa9\xff", b"run\xe2\x82"])):
            put(at + 0x20 + k, byte, 1)
    for i, at in enumerate(trees):
        above = rng.choice([*trees[: i + 1], *rng.sample(trees, 1), 0, 0xF0000])
        put(at, above, word)
        put(at + 8, rng.choice([*nodes, 0]), word)
        put(at + 0x28, rng.choice(nodes), word)
    inside = [None, 0, 0x20, 0xF0000, *(at + 0x20 for at in trees)]
    places = [(rng.choice([*nodes, 0, 0xF0000]), rng.choice(inside)) for _ in range(300)]
    return memory, [node for node, _ in places], [tree for _, tree in places]


def test_paths_of_any_graph(saved: Callable[[Machine], Dump]) -> None:
    reasons: set[str] = set()
    for seed in range(20):
        word: Literal[4, 8] = 8 if seed % 2 else 4
        memory, nodes, trees = graph(random.Random(seed), word)
        space = saved(memory).machine
        texts, lost, structs, _, _ = space.paths(nodes, trees, word, NODE, TREE, LIMITS)
        expected = paths_by_walk.paths(space, nodes, trees, word, NODE, TREE, DEPTH)
        assert texts == [text for text, _ in expected]
        assert set(lost) == {reason for _, reason in expected if reason is not None}
        assert 30 < structs < 140
        reasons.update(what for what, _ in lost)
    assert reasons == {"node", "name", "tree", "depth"}


def test_limits(saved: Callable[[Machine], Dump]) -> None:
    memory, nodes, trees = graph(random.Random(1), 8)
    space = saved(memory).machine
    few = DEPTH, 12, 1 << 20, STEPS
    texts, lost, structs, _, _ = space.paths(nodes, trees, 8, NODE, TREE, few)
    assert len(texts) == len(nodes)
    assert structs == 12
    assert ("structs", 0) in lost
    texts, lost, _, _, _ = space.paths(nodes, trees, 8, NODE, TREE, (DEPTH, 10_000, 100, STEPS))
    assert ("size", 0) in lost
    assert "?" in texts
    # "/?" may be added to each text. A byte that is not UTF-8 has four characters.
    differing = set(texts)
    assert sum(len(text) for text in differing) <= 4 * 100 + 2 * len(differing)
    texts, _, _, _, _ = space.paths(nodes, trees, 8, NODE, TREE, (0, 10_000, 1 << 20, STEPS))
    assert {text for text, tree in zip(texts, trees, strict=True) if tree is not None} == {"/?"}
    every, _, _, _, steps = space.paths(nodes, trees, 8, NODE, TREE, LIMITS)
    texts, lost, _, _, used = space.paths(nodes, trees, 8, NODE, TREE, (*LIMITS[:3], steps // 2))
    assert (used, ("steps", 0) in lost) == (steps // 2, True)
    assert texts[:20] == every[:20]
    assert texts[-20:] != every[-20:]


def test_arguments(saved: Callable[[Machine], Dump]) -> None:
    memory, _, _ = graph(random.Random(1), 8)
    space = saved(memory).machine
    assert space.paths([], [], 8, NODE, TREE, LIMITS) == ([], [], 0, 0, 0)
    texts, lost, _, _, _ = space.paths([2**64, -1], [2**64, None], 8, NODE, TREE, LIMITS)
    assert texts == ["/?", "?"]
    assert lost == [("node", 2**64 - 1)] * 2
    far = 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**63
    texts, _, _, _, _ = space.paths([0x1000], [0x8020], 8, far, far, LIMITS)
    assert texts == ["/?"]
    with pytest.raises(ValueError, match="1 nodes, but 2 trees"):
        space.paths([1], [1, 2], 8, NODE, TREE, LIMITS)
    with pytest.raises(ValueError, match="4 or 8"):
        space.paths([1], [1], 2, NODE, TREE, LIMITS)  # type: ignore[arg-type]
