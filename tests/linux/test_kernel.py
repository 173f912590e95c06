"""Reads of a kernel: members, and budgets."""

from typing import Literal

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.budget import BudgetExceededError

from .fakes import FakeKernel, FakeMember, words


@pytest.mark.parametrize("size", [0, 3, 5, 16, 2**64 - 1])
def test_a_member_that_is_not_a_number_is_absent(size: int) -> None:
    fields = {"task_struct.pid": FakeMember(8, size), "task_struct.bits": FakeMember(8, size, 0, 9)}
    kernel = FakeKernel({}, fields)
    kernel.memory.number(0x1008, 7, 8)
    for member in fields:
        with pytest.raises(AbsentError, match=f"is not a number: it has {size} bytes"):
            kernel.read(0x1000, member)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_member_that_is_a_number_is_read(size: int) -> None:
    kernel = FakeKernel({}, {"task_struct.pid": FakeMember(8, size)})
    kernel.memory.number(0x1008, 7, 8)
    assert kernel.read(0x1000, "task_struct.pid") == 7


def test_reads_are_charged_to_the_innermost_budget() -> None:
    kernel = FakeKernel({})
    head = 0x10000
    kernel.memory.write(head, words(8, *(head + 16 * (i // 2 + 1) % 4096 for i in range(512))))
    with kernel.budget("pages", 3 * 4096) as outer:
        kernel.data(head, 4096)
        with kernel.budget("words", 1024) as inner:
            assert kernel.pointer(head) == head + 16
            assert kernel.number(head, 4) == head + 16
            assert kernel.cstring(head + 2, 8) == b"\1"
            assert not inner.exhausted
        assert list(kernel.list(head)) == [head + 16 * i for i in range(1, 256)]
        assert outer.remaining == 2 * 4096 - 3 * 256 - 255 * 16
        with pytest.raises(BudgetExceededError, match="the pages are more than the dump can hold"):
            kernel.data(head, 4096)
        assert outer.exhausted
        with pytest.raises(BudgetExceededError):
            kernel.pointer(head)
    assert len(kernel.data(head, 4096)) == 4096


@pytest.mark.parametrize("word", [4, 8])
def test_addresses_in_messages_are_in_the_address_space(word: Literal[4, 8]) -> None:
    """An address below an offset was shown as ``-0xa68``."""
    kernel = FakeKernel({}, word=word)
    last = (1 << (8 * word)) - 1
    assert kernel.containing(0, 0xA68) == last - 0xA67
    assert list(kernel.list(-0xA68)) == []
    assert list(kernel.list(last + 0xA69)) == []
    assert [text.partition(" breaks off")[0] for text in kernel.warnings] == [
        f"the list at {last - 0xA67:#x}",
        "the list at 0xa68",
    ]
