"""What a kernel is asked, whatever its image's types say."""

import pytest

from xenkdump_fast import AbsentError

from .fakes import FakeKernel, FakeMember


@pytest.mark.parametrize("size", [0, 3, 5, 16, 2**64 - 1])
def test_a_member_that_is_no_number_is_absent(size: int) -> None:
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
