"""Many structs and linked lists in one call."""

import random
from collections.abc import Callable

import pytest

from xenkdump_fast._native import Dump, MemoryFault

from .conftest import Guest
from .machine import PAGE, VIRTUAL, Machine


def test_members_agree_with_single_reads(guest: Guest) -> None:
    rng = random.Random(3)
    members = [(0, 8), (5, 1), (4090, 8), (6, 2), (4, 4), (0, 0), (12, 16), (100, 5000)]
    pfns = [rng.randrange(8, 890) for _ in range(300)]
    for space, base in ((guest.dump.machine, None), (guest.physical, 0), (guest.virtual, VIRTUAL)):
        structs = [guest.entries[pfn] * PAGE if base is None else base + pfn * PAGE for pfn in pfns]
        columns = space.read_members(structs, members)
        for (offset, size), column in zip(members, columns, strict=True):
            for struct, value in zip(structs[::20], column[::20], strict=True):
                try:
                    data = space.read(struct + offset, size)
                except MemoryFault:
                    assert value is None
                    continue
                number = int.from_bytes(data, "little")
                assert value == (number if size in (1, 2, 4, 8) else data)


def test_unreadable_members_are_none(guest: Guest) -> None:
    last = 2**64 - 1
    structs = [8 * PAGE, 5 * PAGE, 900 * PAGE, 899 * PAGE, last, 2**64, -1]
    one, across, byte = guest.physical.read_members(structs, [(0, 4), (4092, 8), (0, 1)])
    assert one == [8, None, None, 899, None, None, None]
    assert across == [9 << 32 | 8] + [None] * 6
    assert byte == [8, None, None, 899 & 0xFF, None, None, None]
    assert guest.physical.read_members([], [(0, 8)]) == [[]]
    assert guest.physical.read_members([8 * PAGE], []) == []
    with pytest.raises(MemoryError):
        guest.physical.read_members([0] * 4, [(0, 1 << 60)])
    with pytest.raises(OverflowError):
        guest.physical.read_members([0] * 4, [(0, 1 << 63)])


def test_each(guest: Guest) -> None:
    pfns, sizes = [8, 9, 5, 8, 12, 889], [16, 0, 0, 5000, 4096, 1]
    for space, base in ((guest.physical, 0), (guest.virtual, VIRTUAL)):
        structs = [base + pfn * PAGE for pfn in pfns]
        found = space.read_each([*structs, 2**64, 2**64 - 1], [*sizes, 1, 2])
        assert found[-2:] == [None, None]
        for at, size, data in zip(structs, sizes, found, strict=False):
            try:
                assert data == space.read(at, size)
            except MemoryFault:
                assert data is None
    assert guest.physical.read_each([], []) == []
    with pytest.raises(ValueError, match="2 addresses, but 1 sizes"):
        guest.physical.read_each([0, 0], [1])
    with pytest.raises(MemoryError):
        guest.physical.read_each([0], [1 << 60])


def test_pointers(saved: Callable[[Machine], Dump]) -> None:
    memory = linked({0x1010: 0x77, 0x1FF8: 0x88, 0x2000: 0x99, 0x3FFC: 1 << 32, 0x5FF0: 5})
    space = saved(memory).machine
    found = space.pointers([0x1000, 0x1FF0, 0x3FFC, 0x5FE8], [4, 3, 1, 4], 8)
    assert found == ([1, 2, 1, None], [2, 1, 2, 0], [0x77, 0x88, 0x99, 1 << 32])
    found = space.pointers([0x1000, 0x5FF0, 2**64, 0], [1000, 0, 1, 1 << 62], 4)
    # 1024 words of 4 bytes are a page.
    assert found == ([1, 0, None, None], [4], [0x77])
    found = space.pointers([0x1000], [2048 + 8], 4)
    assert found == ([3], [4, 1022, 1024], [0x77, 0x88, 0x99])
    found = space.pointers([0x1000], [1024], 8, flags=0x71)
    assert found == ([3], [2, 511, 512], [0x6, 0x88, 0x88])
    # What was read of an array before its end is missing is left out.
    found = space.pointers([0x1000, 0x5FF0, 0x1000], [4, 1024, 4], 8)
    assert found == ([1, None, 1], [2, 2], [0x77, 0x77])
    assert space.pointers([], [], 8) == ([], [], [])
    with pytest.raises(ValueError, match="4 or 8"):
        space.pointers([0], [1], 2)  # type: ignore[arg-type]


def linked(links: dict[int, int], size: int = 8) -> Machine:
    memory = Machine()
    for at, to in links.items():
        memory.write(at, to.to_bytes(size, "little"))
    return memory


def test_lists(saved: Callable[[Machine], Dump]) -> None:
    links = {0x1000: 0x1100, 0x1100: 0x1200, 0x1200: 0x1000}
    back = {0x1008: 0x1200, 0x1208: 0x1100, 0x1108: 0x1000}
    # A loop, a list that joins the first one, and a list that leaves memory.
    broken = {0x1300: 0x1308, 0x1308: 0x1310, 0x1310: 0x1308, 0x1400: 0x1200, 0x1500: 0xDEAD000}
    space = saved(linked(links | back | broken)).machine
    assert space.lists([0x1000], 8, limit=2) == [([0x1100, 0x1200], "complete", None)]
    assert space.lists([0x1000], 8, limit=1) == [([0x1100], "limit", 0x1200)]
    assert space.lists([0x1000], 8, links="backward", limit=9) == [
        ([0x1200, 0x1100], "complete", None)
    ]
    assert space.lists([0x1000, 0x1300, 0x1400, 0x1500, 0x9000], 8, limit=9) == [
        ([0x1100, 0x1200], "complete", None),
        ([0x1308, 0x1310], "loop", 0x1308),
        ([], "shared", 0x1200),
        ([0xDEAD000], "unreadable", 0xDEAD000),
        ([], "unreadable", 0x9000),
    ]


def test_lists_that_end_with_null(saved: Callable[[Machine], Dump]) -> None:
    space = saved(linked({0x1000: 0x1100, 0x1100: 0x1104, 0x1104: 0, 0x1004: 0}, 4)).machine
    assert space.lists([0x1000, 0x1004], 4, links="null-terminated", limit=9) == [
        ([0x1100, 0x1104], "complete", None),
        ([], "complete", None),
    ]
    with pytest.raises(ValueError, match="4 or 8"):
        space.lists([0x1000], 3, limit=9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown links"):
        space.lists([0x1000], 4, links="sideways", limit=9)  # type: ignore[arg-type]
