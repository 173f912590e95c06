"""Reading members together gives the same values and errors as reading them one by one."""

import pytest

from xenkdump_fast import AbsentError, MemoryFault
from xenkdump_fast.linux.layouts import Number
from xenkdump_fast.linux.structs import BATCH, Structs, batches

from .fakes import PAGE, FakeKernel, FakeMember

FIELDS = {
    "task.pid": FakeMember(8, 4, signed=True),
    "task.flags": FakeMember(12, 4, bit_offset=3, bit_size=2),
    "task.next": FakeMember(16, 8),
    "task.comm": FakeMember(24, 16),
}
KEYS = ("task.pid", "task.flags", "task.next", "task.comm", "task.absent")
STRUCTS = [0x1000, 0x3FF0, 0x9000]


@pytest.fixture
def kernel() -> FakeKernel:
    """The second struct continues in a page that is missing, the third is missing."""
    kernel = FakeKernel({}, FIELDS)
    for struct in STRUCTS[:2]:
        kernel.memory.number(struct + 8, 0xFFFF_FFFE, 4)
        kernel.memory.number(struct + 12, 0b11_0110, 4)
    kernel.memory.number(STRUCTS[0] + 16, STRUCTS[2], 8)
    kernel.memory.write(STRUCTS[0] + 24, b"swapper/0\0\xff")
    return kernel


def test_members(kernel: FakeKernel) -> None:
    structs = Structs(kernel, STRUCTS, [*KEYS, Number(8, 4)], [(24, 16)])
    kernel.memory.reads = 0
    for struct in STRUCTS[:2]:
        assert structs.read(struct, "task.pid") == -2
        assert structs.read(struct, "task.flags") == 2
        assert structs.read(struct, Number(8, 4)) == 0xFFFF_FFFE
    assert structs.read(STRUCTS[0], "task.next") == STRUCTS[2]
    assert structs.string(STRUCTS[0], 24, 16) == "swapper/0"
    assert structs.values("task.next") == [STRUCTS[2]]
    assert structs.values("task.pid") == [-2, -2]
    assert structs.values("task.absent") == []
    assert kernel.memory.reads == 0


def test_unreadable_members(kernel: FakeKernel) -> None:
    structs = Structs(kernel, STRUCTS, KEYS, [(24, 16)])
    for struct in STRUCTS[1:]:
        with pytest.raises(MemoryFault):
            structs.read(struct, "task.next")
        with pytest.raises(MemoryFault):
            structs.string(struct, 24, 16)
    with pytest.raises(AbsentError, match="no type information for"):
        structs.read(STRUCTS[0], "task.absent")
    with pytest.raises(AbsentError, match="is not a number"):
        structs.read(STRUCTS[0], "task.comm")


def test_members_outside_a_batch(kernel: FakeKernel) -> None:
    structs = Structs(kernel, STRUCTS[:1], ["task.pid"])
    assert structs.read(STRUCTS[1], "task.pid") == -2
    assert structs.read(STRUCTS[0], "task.next") == STRUCTS[2]
    assert structs.string(STRUCTS[0], 24, 16) == "swapper/0"
    # A name may end before a page that is missing.
    kernel.memory.write(4 * PAGE - 4, b"tr\0")
    assert structs.string(4 * PAGE - 4, 0, 16) == "tr"


def test_tables(kernel: FakeKernel) -> None:
    structs = Structs(kernel, STRUCTS, KEYS)
    whole, problems = structs.table("task.pid", "task.flags", "task.next")
    assert whole == {STRUCTS[0]: (-2, 2, STRUCTS[2])}
    assert list(problems) == STRUCTS[1:]
    # What can be read of a struct is not lost by the rest.
    assert structs.column("task.pid")[0] == dict.fromkeys(STRUCTS[:2], -2)
    assert structs.table("task.pid", "task.flags")[0] == dict.fromkeys(STRUCTS[:2], (-2, 2))
    none, problems = structs.column("task.absent")
    assert none == {}
    assert all("no type information" in str(error) for error in problems.values())
    assert len(problems) == len(STRUCTS)


def test_batches() -> None:
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert [len(batch) for batch in batches(range(BATCH + 1))] == [BATCH, 1]
    assert list(batches([])) == []
