"""Owners of what is no lock: RCU, semaphores, percpu-rwsems, I/O, event channels."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.linux.fakes import FakeMember, words
from tests.linux.test_waits import HEAP, LAYOUTS, OLD, WAKE_BIT, WAKE_OTHER, WAKE_PAGE, Machine
from xenkdump_fast._native import AbsentError
from xenkdump_fast.linux import percpu
from xenkdump_fast.linux.waits import graph, rcu

SEMAPHORE = ("schedule", "schedule_timeout", "__down", "down", "f")
RCU = ("schedule", "schedule_timeout", "wait_for_completion", "__wait_rcu_gp", "synchronize_rcu")
PERCPU = ("schedule", "percpu_rwsem_wait", "__percpu_down_read", "f")
WRITER = ("schedule", "percpu_down_write", "f")
STATE = HEAP + 0x4000


def pointer(offset: int) -> FakeMember:
    return FakeMember(offset, 8)


def with_semaphore(**more: FakeMember) -> Machine:
    """Two tasks that wait for a semaphore, and a third one."""
    layouts = {**OLD, **{f"semaphore.{name}": member for name, member in more.items()}}
    machine = Machine(layouts, SEMAPHORE, 3)
    waiters = [machine.local(i) for i in range(2)]
    machine.link(HEAP + 8, *waiters)
    for task, waiter in zip(machine.tasks, waiters, strict=False):
        machine.write(waiter + 16, task.address)
    return machine


def test_a_semaphore_has_no_owner_but_a_queue() -> None:
    machine = with_semaphore()
    first, second, third = machine.waiting()
    for waiting in (first, second):
        assert waiting.object == ("semaphore", HEAP, None, None, 2)
        assert waiting.about.queue == (first.task, second.task)
    assert third.about.queue == ()


def test_the_last_holder_of_a_semaphore() -> None:
    machine = with_semaphore(last_holder=pointer(32))
    machine.write(HEAP + 32, machine.tasks[2].address)
    owner = graph.owner_of(machine.waiting()[0])
    assert owner is not None
    assert (owner.task, owner.by) == (machine.tasks[2], "semaphore.last_holder")
    assert owner.doubt is not None
    # In doubt, so that no deadlock is made up.
    machine.write(HEAP + 32, machine.tasks[0].address)
    found = machine.waiting()
    assert graph.cycles(machine.waits.with_owners(found)) == []


PERCPU_LAYOUTS: dict[str, int | FakeMember] = {
    "percpu_rw_semaphore.read_count": pointer(0),
    "percpu_rw_semaphore.writer.task": pointer(8),
    "percpu_rw_semaphore.waiters.head": 24,
    "percpu_rw_semaphore.block.counter": FakeMember(40, 4),
}


def with_readers(writer: int, block: int = 1) -> Machine:
    machine = Machine(PERCPU_LAYOUTS, PERCPU)
    machine.kernel.code["percpu_rwsem_wake_function"] = WAKE_PAGE + 0x80  # type: ignore[index]
    entry = machine.local(0)
    machine.link(entry + 24, HEAP + 24)
    machine.write(entry + 8, machine.tasks[0].address, WAKE_PAGE + 0x80)
    machine.write(HEAP + 8, writer)
    machine.write(HEAP + 40, block)
    return machine


def test_a_reader_of_a_percpu_rwsem() -> None:
    machine = with_readers(0)
    machine.write(HEAP + 8, machine.tasks[1].address)
    one, _ = machine.waiting()
    owner = (machine.tasks[1], "percpu_rw_semaphore.writer", None)
    assert one.object == ("percpu_rw_semaphore", HEAP, None, owner, 1)
    (one, _) = with_readers(0).waiting()
    assert one.object is not None
    assert (one.object.owner, one.object.detail) == (
        None,
        "a writer holds it, which is not recorded",
    )
    # A writer that is no task.
    assert with_readers(HEAP).waiting()[0].object is None


def test_the_writer_of_a_percpu_rwsem(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(PERCPU_LAYOUTS, WRITER)
    monkeypatch.setattr(percpu, "areas", lambda _: [0, 1])
    monkeypatch.setattr(percpu, "shifted", lambda _, variable, cpu: variable + cpu * 0x100)
    counters = HEAP + 0x800
    machine.write(HEAP, counters, machine.tasks[0].address)
    # Three came on CPU 0, one of them has left on CPU 1.
    machine.write(counters, 3)
    machine.write(counters + 0x100, (1 << 32) - 1)
    machine.write(machine.local(0, 0x100), HEAP)
    one, other = machine.waiting()
    detail = "2 readers, which are not recorded"
    assert one.object == ("percpu_rw_semaphore", HEAP, detail, None, None)
    assert other.object is None
    # Two objects name the task: neither is certain.
    machine.write(HEAP + 0x200 + 8, machine.tasks[0].address)
    machine.write(machine.local(0, 0x108), HEAP + 0x200)
    assert machine.waiting()[0].object is None


NODE = 0x80
RCU_LAYOUTS: dict[str, int | FakeMember] = {
    "rcu_node": NODE,
    "rcu_state.gp_seq": pointer(0x400),
    "rcu_state.node": FakeMember(0, 3 * NODE),
    "rcu_node.qsmask": pointer(0),
    "rcu_node.expmask": pointer(8),
    "rcu_node.grplo": FakeMember(16, 4),
    "rcu_node.grphi": FakeMember(20, 4),
    "rcu_node.level": FakeMember(24, 1),
    "rcu_node.gp_tasks": pointer(32),
    "rcu_node.exp_tasks": pointer(40),
    "rcu_node.blkd_tasks": 48,
    "task_struct.rcu_node_entry": 0x300,
}


class Grace(Machine):
    """Three tasks; a root with two leaves of 16 CPUs."""

    def __init__(self, *functions: str) -> None:
        super().__init__(RCU_LAYOUTS, functions or RCU, 3)
        self.kernel.symbols["rcu_state"] = STATE  # type: ignore[index]
        self.kernel.memory.write(STATE, bytes(0x1000))
        self.write(STATE + 0x400, 0x1001)
        for index, (low, high, level) in enumerate(((0, 31, 0), (0, 15, 1), (16, 31, 1))):
            node = STATE + index * NODE
            self.kernel.memory.write(node + 16, words(4, low, high, level))
            self.link(node + 48)
        # The root's mask is of leaves.
        self.write(STATE, 3)

    def run(self, i: int, cpu: int, *, idle: bool = False) -> None:
        self.tasks[i] = self.tasks[i]._replace(cpu=cpu, active=True, idle=idle)

    def first(self) -> graph.Waiting:
        return self.waiting()[0]


def test_a_cpu_holds_the_grace_period() -> None:
    machine = Grace()
    machine.run(1, 19)
    machine.write(STATE + 2 * NODE, 1 << 3)
    found = machine.first()
    period = found.about.grace_period
    assert period is not None
    assert str(period) == "grace period 4097, held by CPU 19"
    assert (period.cpus, period.tasks, period.in_progress) == ([19], [], True)
    owner = graph.owner_of(found)
    assert owner is not None
    assert (owner.task.pid, owner.by) == (11, "rcu_node.qsmask")
    assert owner.doubt == "it runs on CPU 19, which has not passed a quiescent state"
    assert found.object is not None
    assert found.object.type == "rcu_state"
    # The idle task cannot hold it.
    machine.run(1, 19, idle=True)
    assert graph.owner_of(machine.first()) is None


def test_a_preempted_reader_holds_it() -> None:
    machine = Grace()
    node = STATE + NODE
    entries = [task.address + 0x300 for task in machine.tasks[1:]]
    # Newer readers are at the front of the list, and do not hold it.
    machine.link(node + 48, *entries)
    machine.write(node + 32, entries[1])
    found = machine.first()
    owner = (machine.tasks[2], "rcu_node.gp_tasks", None)
    assert graph.owner_of(found) == owner
    assert str(found.about.grace_period) == "grace period 4097, held by task 12"
    machine.write(node, 1 << 4 | 1 << 5)
    found = machine.first()
    text = "grace period 4097, held by CPUs 4, 5 and task 12"
    assert str(found.about.grace_period) == text
    assert graph.owner_of(found) == (*owner[:2], "one of 3 that hold the grace period")
    # The first reader is not in the list.
    machine.write(node + 32, HEAP)
    assert machine.first().about.grace_period is None
    assert "the list of blocked tasks" in " ".join(machine.kernel.warnings)


def test_a_reader_that_waits_for_its_own_grace_period() -> None:
    machine = Grace()
    node = STATE + NODE
    entry = machine.tasks[0].address + 0x300
    machine.link(node + 48, entry)
    machine.write(node + 32, entry)
    known = machine.waits.with_owners([found]) if (found := machine.first()) else {}
    assert [[one.task.pid for one in cycle] for cycle in graph.cycles(known)] == [[10]]


def test_an_expedited_grace_period() -> None:
    machine = Grace("schedule", "synchronize_rcu_expedited", "f")
    machine.run(2, 0)
    machine.write(STATE + NODE + 8, 1)
    found = machine.first()
    assert str(found.about.grace_period) == "expedited grace period, held by CPU 0"
    owner = graph.owner_of(found)
    assert owner is not None
    assert (owner.task.pid, owner.by) == (12, "rcu_node.expmask")


def test_between_grace_periods() -> None:
    machine = Grace()
    machine.write(STATE + 0x400, (1 << 64) - 300)
    period = machine.first().about.grace_period
    assert period is not None
    assert (period.sequence, period.in_progress) == (-300, False)
    assert str(period) == "no grace period in progress"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("synchronize_rcu", False),
        ("synchronize_rcu_expedited synchronize_net", True),
        ("__wait_rcu_gp synchronize_rcu_normal", False),
        ("__synchronize_srcu synchronize_srcu", None),
        ("__wait_rcu_gp synchronize_rcu_tasks", None),
        ("synchronize_rcu_tasks_generic", None),
        ("wait_for_completion", None),
    ],
)
def test_what_waits_for_rcu(names: str, expected: bool | None) -> None:
    frames: Any = [SimpleNamespace(symbol=name, user=False) for name in names.split()]
    assert rcu.waits(frames) is expected


def test_without_rcu_state() -> None:
    machine = Grace()
    del machine.kernel.symbols["rcu_state"]  # type: ignore[attr-defined]
    with pytest.raises(AbsentError):
        rcu.grace_period(machine.kernel, {}, expedited=False)
    assert machine.first().about.grace_period is None
    assert "who holds the grace period of RCU is not known" in " ".join(machine.kernel.warnings)


FOLIO, INODE, SUPER, TYPE, DISK, BDEV = (HEAP + 0x100 * i for i in range(1, 7))
IO_LAYOUTS: dict[str, int | FakeMember] = {
    "folio.mapping": pointer(24),
    "address_space.host": pointer(0),
    "inode.i_sb": pointer(40),
    "super_block.s_type": pointer(0),
    "super_block.s_bdev": pointer(8),
    "file_system_type.name": pointer(0),
    "bdev_inode.vfs_inode": 0x80,
    "block_device.bd_disk": pointer(0),
    "block_device.bd_partno": FakeMember(8, 1),
    "gendisk.disk_name": FakeMember(12, 32),
    "buffer_head.b_bdev": pointer(48),
    "buffer_head.b_blocknr": pointer(24),
    "bio.bi_bdev": pointer(8),
    "bio.bi_private": pointer(64),
    "bio.bi_end_io": pointer(56),
}


def with_device(functions: tuple[str, ...], kind: bytes, disk: bytes, partition: int) -> Machine:
    machine = Machine(IO_LAYOUTS, functions)
    machine.write(FOLIO + 24, HEAP + 0x800)
    machine.write(HEAP + 0x800, INODE)
    machine.write(INODE + 40, SUPER)
    machine.write(SUPER, TYPE, BDEV)
    machine.write(TYPE, TYPE + 8)
    machine.kernel.memory.write(TYPE + 8, kind)
    machine.write(BDEV, DISK, partition)
    machine.kernel.memory.write(DISK + 12, disk)
    return machine


def device(machine: Machine) -> str | None:
    found = machine.waiting()[0].about.device
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("disk", "partition", "name"),
    [
        (b"xvda", 1, "xvda1 (ext4)"),
        (b"nvme0n1", 2, "nvme0n1p2 (ext4)"),
        (b"dm-3", 0, "dm-3 (ext4)"),
    ],
)
def test_the_device_of_a_folio(
    disk: bytes, partition: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = ("schedule", "io_schedule", "folio_wait_bit_common", "f")
    machine = with_device(functions, b"ext4", disk, partition)
    monkeypatch.setattr(type(machine.kernel.types), "enum", lambda *_: {}, raising=False)
    entry = machine.local(0) + 16
    machine.write(machine.local(0), FOLIO, 0)
    machine.link(entry + 24, HEAP + 0xF00)
    machine.write(entry + 8, machine.tasks[0].address, WAKE_PAGE)
    assert device(machine) == name
    machine.write(SUPER + 8, 0)
    assert device(machine) == "ext4"
    machine.write(FOLIO + 24, HEAP + 0x801)
    assert device(machine) == "anonymous memory"
    machine.write(FOLIO + 24, 0)
    assert device(machine) is None


def test_the_device_of_a_file_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = ("schedule", "io_schedule", "folio_wait_bit_common", "f")
    machine = with_device(functions, b"bdev", b"sdb", 3)
    monkeypatch.setattr(type(machine.kernel.types), "enum", lambda *_: {}, raising=False)
    # struct bdev_inode has the device and its inode.
    machine.write(INODE - 0x80, DISK, 3)
    entry = machine.local(0) + 16
    machine.write(machine.local(0), FOLIO, 0)
    machine.link(entry + 24, HEAP + 0xF00)
    machine.write(entry + 8, machine.tasks[0].address, WAKE_PAGE)
    assert device(machine) == "sdb3"


def test_the_device_of_a_bio() -> None:
    functions = ("schedule", "io_schedule_timeout", "wait_for_completion_io", "submit_bio_wait")
    machine = with_device(functions, b"ext4", b"xvda", 1)
    machine.kernel.code["submit_bio_wait_endio"] = WAKE_OTHER + 0x80  # type: ignore[index]
    completion, waiter, bio = machine.local(0, 0x100), machine.local(0), machine.local(0, 0x200)
    machine.link(waiter + 8, completion + 16)
    machine.write(waiter, machine.tasks[0].address)
    machine.write(machine.local(0, 0x180), bio)
    machine.write(bio + 8, BDEV)
    machine.write(bio + 56, WAKE_OTHER + 0x80, completion)
    assert device(machine) == "xvda1"
    # A bio that another function ends.
    machine.write(bio + 56, WAKE_OTHER)
    assert device(machine) is None


def test_the_event_channel_of_a_disk() -> None:
    info, ring, bus = HEAP + 0x900, HEAP + 0xA00, HEAP + 0xB00
    functions = ("schedule", "io_schedule", "out_of_line_wait_on_bit", "__wait_on_buffer", "f")
    machine = with_device(functions, b"ext4", b"xvda", 1)
    layouts: Any = machine.kernel.types
    layouts.layouts.update(
        {
            "gendisk.private_data": pointer(0x40),
            "blkfront_info.gd": pointer(0),
            "blkfront_info.xbdev": pointer(8),
            "blkfront_info.rinfo": pointer(16),
            "blkfront_ring_info.evtchn": FakeMember(4, 4),
            "xenbus_device.otherend_id": FakeMember(24, 4),
        }
    )
    machine.write(DISK + 0x40, info)
    machine.write(info, DISK, bus, ring)
    machine.write(ring, 9 << 32)
    machine.write(bus + 24, 3)
    start = machine.local(0)
    machine.write(start, FOLIO, 2)
    machine.write(FOLIO + 24, 77)
    machine.write(FOLIO + 48, BDEV)
    machine.link(start + 48, HEAP + 0xF00)
    machine.write(start + 32, machine.tasks[0].address, WAKE_BIT)
    about = machine.waiting()[0].about
    assert about.device is not None
    assert about.device.text == "xvda1, block 77"
    assert about.channel == ("xvda", 9, 3)
    # Another driver's data.
    machine.write(info, DISK + 8)
    assert machine.waiting()[0].about.channel is None


def test_the_event_channel_of_the_xenstore() -> None:
    machine = Machine(LAYOUTS, ("schedule", "xs_wait_for_reply", "xs_talkv"))
    assert machine.waiting()[0].about.channel is None
    machine.kernel.symbols["xen_store_evtchn"] = HEAP  # type: ignore[index]
    machine.write(HEAP, 7)
    assert machine.waiting()[0].about.channel == ("xenstore", 7, None)
    machine.write(HEAP, 0)
    assert machine.waiting()[0].about.channel is None
