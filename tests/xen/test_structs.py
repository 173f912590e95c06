"""Members, masks and lists of Xen, also damaged ones."""

from itertools import pairwise

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.budget import BudgetExceededError
from xenkdump_fast.xen import structs as module
from xenkdump_fast.xen.structs import CpuMask, Field

from .fake_structs import PAGE, START, FakeMember, FakeMemory, structs

LIST = {
    "list_head.next": FakeMember(0, 8, "ptr"),
    "list_head.prev": FakeMember(8, 8, "ptr"),
    "item.link": FakeMember(16, 16, "struct"),
}


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "none"),
        (1, "0"),
        (0b1011, "0-1,3"),
        (1 << 63, "63"),
        ((1 << 64) - 1, "all"),
        ((1 << 64) - 2, "1-63"),
        (0xF0F0, "4-7,12-15"),
    ],
)
def test_cpu_masks(bits: int, text: str) -> None:
    assert str(CpuMask(bits, 64)) == text


def test_fields() -> None:
    assert Field(1, 2).of(b"\xff\x34\x12") == 0x1234
    assert Field(0, 4, signed=True).of(b"\xfe\xff\xff\xff") == -2
    assert Field(0, 4, bits=(15, 3)).of((5 << 15 | 0x7FFF).to_bytes(4, "little")) == 5
    assert Field(8, 4).of(b"1234") == 0


def test_members_and_pointers() -> None:
    memory = FakeMemory()
    found = structs(
        memory,
        {
            "s.pointer": FakeMember(8, 8, "ptr"),
            "s.mask": FakeMember(16, 8, "ptr"),
            "s.inline": FakeMember(24, 8, "array"),
            "s.flag": FakeMember(32, 4, bit_offset=3, bit_size=2),
        },
        {"cpumask_t": 8},
    )
    at, mask = memory.new(), memory.new()
    memory.put(at + 8, mask)
    memory.put(at + 16, mask)
    memory.put(at + 24, 6)
    memory.put(at + 32, 0b10111, 4)
    memory.put(mask, 5)
    assert found.pointer("s.pointer", at) == mask
    assert found.number("s.flag", at) == 2
    assert found.number("s.missing", at) is None
    assert str(found.mask("s.mask", at)) == "0,2"
    assert str(found.mask("s.inline", at)) == "1-2"
    memory.put(at + 8, 0x1234)
    memory.put(at + 16, 0x1234)
    assert found.pointer("s.pointer", at) is None
    assert found.mask("s.mask", at) is None
    assert found.number("s.pointer", START - PAGE) is None
    with pytest.raises(AbsentError, match=r"s\.missing"):
        found.member("s.missing")


def chain(memory: FakeMemory, count: int) -> tuple[int, list[int]]:
    """A head and items with the head's list."""
    head = memory.new()
    items = [memory.new() for _ in range(count)]
    links = [head, *(item + 16 for item in items), head]
    for before, after in pairwise(links):
        memory.put(before, after)
        memory.put(after + 8, before)
    return head, items


def test_lists() -> None:
    memory = FakeMemory()
    found = structs(memory, LIST)
    for count in (0, 1, 5):
        head, items = chain(memory, count)
        assert list(found.list(head, "item.link")) == items


@pytest.mark.parametrize(
    ("target", "message"),
    [(0, "damaged at"), (START + 1, "damaged at"), (1 << 63, "damaged at"), (-1, "lead back")],
)
def test_damaged_lists(target: int, message: str) -> None:
    memory = FakeMemory()
    found = structs(memory, LIST)
    head, items = chain(memory, 4)
    # A pointer to no list, or to one of another head.
    other, _ = chain(memory, 1)
    memory.put(items[2] + 16, other if target < 0 else target)
    with pytest.raises(AbsentError, match=message):
        list(found.list(head, "item.link"))


def test_loops() -> None:
    memory = FakeMemory()
    found = structs(memory, LIST)
    head, items = chain(memory, 4)
    memory.put(items[2] + 16, items[0] + 16)
    with pytest.raises(AbsentError, match="is damaged at"):
        list(found.list(head, "item.link"))


def test_long_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_XEN_LIST", 3)
    memory = FakeMemory()
    found = structs(memory, LIST)
    head, _ = chain(memory, 4)
    with pytest.raises(AbsentError, match="more than 3 entries"):
        list(found.list(head, "item.link"))
    with memory.budget("lists", 1024), pytest.raises(BudgetExceededError):
        list(found.list(head, "item.link"))
