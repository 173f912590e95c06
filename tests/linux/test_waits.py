"""Kinds of waits by functions; objects of locks that the synthetic dumps do not have."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, FakeSymbols, FakeTypes, words
from xenkdump_fast.linux.tasks import Task
from xenkdump_fast.linux.waits import graph
from xenkdump_fast.linux.waits.functions import wait_of
from xenkdump_fast.linux.waits.graph import Waiting, Waits

STACKS = 0xFFFFC90000000000
TASKS = 0xFFFF888000100000
HEAP = 0xFFFF888000200000
WAKE_PAGE, WAKE_BIT, WAKE_OTHER = 0xFFFFFFFF81000100, 0xFFFFFFFF81000200, 0xFFFFFFFF81000300
SIZE = 0x4000
FLAGS = {"pageflags": {"PG_locked": 0, "PG_writeback": 3}}

LAYOUTS: dict[str, int | FakeMember] = {
    "thread_union": SIZE,
    "mutex_waiter.list": 0,
    "mutex_waiter.task": 16,
    "semaphore_waiter.list": 0,
    "semaphore_waiter.task": 16,
    "swait_queue.task": 0,
    "swait_queue.task_list": 8,
    "wait_queue_entry.private": 8,
    "wait_queue_entry.func": 16,
    "wait_queue_entry.entry": 24,
    "wait_queue_head": 24,
    "wait_queue_head.head": 8,
    "wait_page_queue.folio": FakeMember(0, 8),
    "wait_page_queue.bit_nr": FakeMember(8, 4),
    "wait_page_queue.wait": 16,
    "wait_bit_queue_entry.key.flags": FakeMember(0, 8),
    "wait_bit_queue_entry.key.bit_nr": FakeMember(8, 4),
    "wait_bit_queue_entry.wq_entry": 24,
    "mutex.owner": FakeMember(0, 8),
    "completion.wait.task_list": 16,
}
OLD: dict[str, int | FakeMember] = {"mutex.wait_list": 16, "semaphore.wait_list": 8}
NEW: dict[str, int | FakeMember] = {
    "mutex.first_waiter": FakeMember(16, 8),
    "semaphore.first_waiter": FakeMember(8, 8),
}


class Symbols(FakeSymbols):
    def lookup(self, address: int) -> Any:
        found = [name for name, at in self.items() if at == address]
        return SimpleNamespace(name=found[0], address=address, size=1) if found else None


def frame(symbol: str | None, sp: int = 0, *, guess: bool = False, user: bool = False) -> Any:
    return SimpleNamespace(symbol=symbol, sp=sp, guess=guess, user=user, interrupted=False)


class Machine:
    """Some tasks with stacks, which sleep in given functions."""

    def __init__(
        self, layouts: Mapping[str, int | FakeMember], functions: Sequence[str], count: int = 2
    ) -> None:
        self.kernel = FakeKernel({}, {**LAYOUTS, **layouts})
        names = {"wake_page_function": WAKE_PAGE, "wake_bit_function": WAKE_BIT}
        code = Symbols({**names, "autoremove_wake_function": WAKE_OTHER})
        self.kernel.__dict__["code"] = code
        self.kernel.__dict__["stack_size"] = SIZE
        self.functions = functions
        self.tasks = [self._task(i) for i in range(count)]
        self.kernel.memory.write(HEAP, bytes(0x1000))

    def _task(self, i: int) -> Task:
        address, stack = TASKS + i * 0x1000, STACKS + i * 0x10000
        self.kernel.memory.write(address, bytes(0x1000))
        self.kernel.memory.write(stack, bytes(SIZE))
        return Task(address, 10 + i, 10 + i, f"t{i}", 0, 2, 0, stack, active=False, idle=False)

    def local(self, i: int, offset: int = 0) -> int:
        """An address on the stack of a task, above its stack pointer."""
        return self.tasks[i].stack + 0x2100 + offset

    def write(self, address: int, *values: int) -> None:
        self.kernel.memory.write(address, words(8, *values))

    def link(self, *nodes: int) -> None:
        for i, node in enumerate(nodes):
            self.write(node, nodes[(i + 1) % len(nodes)], nodes[i - 1])

    def waiting(self) -> list[Waiting]:
        def trace(task: Task) -> Any:
            frames = [
                frame(name, task.stack + 0x2000 + 16 * i) for i, name in enumerate(self.functions)
            ]
            return SimpleNamespace(frames=frames)

        self.waits = Waits(self.kernel, self.tasks, trace)
        return self.waits.of(self.tasks)


MUTEX = ("__schedule", "schedule", "__mutex_lock.constprop.0", "some_function")


class TestLocksWithoutListHeads:
    """``first_waiter``, as in 7.3."""

    @pytest.mark.parametrize("by", ["stack", "blocked_on", "blocker"])
    def test_a_single_waiter(self, by: str) -> None:
        layouts = dict(NEW)
        if by != "stack":
            layouts[f"task_struct.{by}"] = FakeMember(0x100, 8)
        machine = Machine(layouts, MUTEX)
        first, second = machine.tasks
        waiter = machine.local(0)
        machine.link(waiter)
        machine.write(waiter + 16, first.address)
        machine.write(HEAP, second.address | 1, 0, waiter)
        if by == "stack":
            machine.write(machine.local(0, 0x200), HEAP)
        else:
            machine.write(first.address + 0x100, HEAP)
        one, other = machine.waiting()
        assert one.object is not None
        assert (one.object.type, one.object.address, one.object.waiters) == ("mutex", HEAP, 1)
        assert graph.owner_of(one) == (second, "mutex.owner", None)
        assert other.object is None

    def test_a_lock_with_another_waiter_is_not_it(self) -> None:
        machine = Machine(NEW, MUTEX)
        waiter = machine.local(0)
        machine.link(waiter)
        machine.write(waiter + 16, machine.tasks[0].address)
        machine.write(HEAP, 0, 0, waiter + 64)
        machine.write(machine.local(0, 0x200), HEAP)
        assert machine.waiting()[0].object is None

    def test_two_candidates_are_not_certain(self) -> None:
        machine = Machine(NEW, MUTEX)
        waiter = machine.local(0)
        machine.link(waiter)
        machine.write(waiter + 16, machine.tasks[0].address)
        for i in range(2):
            machine.write(HEAP + 0x100 * i, 0, 0, waiter)
            machine.write(machine.local(0, 0x200 + 8 * i), HEAP + 0x100 * i)
        assert machine.waiting()[0].object is None

    def test_the_waiters_form_a_ring(self) -> None:
        machine = Machine(NEW, ("schedule", "__down", "down", "f"), 3)
        waiters = [machine.local(i) for i in range(3)]
        machine.link(*waiters)
        for task, waiter in zip(machine.tasks, waiters, strict=True):
            machine.write(waiter + 16, task.address)
            machine.write(waiter + 0x80, HEAP)
        machine.write(HEAP, 0, waiters[1])
        for waiting in machine.waiting():
            assert waiting.object == ("semaphore", HEAP, None, None, 3)


def test_the_remains_of_an_earlier_wait() -> None:
    """A struct below the stack pointer, and one that is linked no longer."""
    machine = Machine(OLD, MUTEX)
    (task, _) = machine.tasks
    stale = task.stack + 0x1000
    machine.link(stale, HEAP + 16)
    machine.write(stale + 16, task.address)
    left = machine.local(0)
    machine.write(left, HEAP + 0x116, HEAP + 0x116, task.address)
    assert machine.waiting()[0].object is None


def test_a_list_without_its_head() -> None:
    machine = Machine(OLD, MUTEX)
    waiter = machine.local(0)
    machine.link(waiter, HEAP + 16, HEAP + 0x116)
    machine.write(waiter + 16, machine.tasks[0].address)
    assert machine.waiting()[0].object is None


def test_two_tasks_wait_for_each_other_and_a_third_for_itself() -> None:
    machine = Machine(OLD, MUTEX, 3)
    owners = (1, 0, 2)
    for i, task in enumerate(machine.tasks):
        lock = HEAP + 0x100 * i
        machine.link(machine.local(i), lock + 16)
        machine.write(machine.local(i) + 16, task.address)
        machine.write(lock, machine.tasks[owners[i]].address | 1)
    found = machine.waiting()
    known = machine.waits.with_owners(found)
    cycles = [[one.task.pid for one in cycle] for cycle in graph.cycles(known)]
    assert cycles == [[10, 11], [12]]


RT: dict[str, int | FakeMember] = {
    "task_struct.pi_blocked_on": FakeMember(0x200, 8),
    "rt_mutex_waiter.task": FakeMember(80, 8),
    "rt_mutex_waiter.lock": FakeMember(88, 8),
    "rt_mutex_base.owner": FakeMember(24, 8),
}


@pytest.mark.parametrize("function", ["rt_mutex_slowlock.constprop.0", "rtlock_slowlock_locked"])
def test_rt_mutex(function: str) -> None:
    machine = Machine(RT, ("__schedule", "schedule_rtlock", function, "rt_spin_lock", "f"))
    first, second = machine.tasks
    machine.write(first.address + 0x200, machine.local(0))
    machine.write(machine.local(0, 80), first.address, HEAP)
    machine.write(HEAP + 24, second.address | 1)
    one, other = machine.waiting()
    assert one.object == ("rt_mutex_base", HEAP, None, (second, "rt_mutex_base.owner", None), None)
    assert (one.wait.kind, one.wait.caller) == ("rtmutex", "f")
    assert other.object is None
    machine.write(machine.local(0, 80), second.address)
    assert machine.waiting()[0].object is None


@pytest.mark.parametrize(
    ("function", "before", "wake", "kind", "found"),
    [
        ("folio_wait_bit_common", 16, WAKE_PAGE, "folio", ("folio", "PG_writeback")),
        ("__wait_on_bit", 24, WAKE_BIT, "bit", ("unsigned long", "bit 3")),
        ("do_something", 0, WAKE_OTHER, None, ("wait_queue_head", None)),
    ],
)
def test_wait_queues(
    function: str,
    before: int,
    wake: int,
    kind: str | None,
    found: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine({}, ("schedule", "io_schedule" if before else "x", function, "f"))
    monkeypatch.setattr(FakeTypes, "enum", lambda _, name: FLAGS[name], raising=False)
    task = machine.tasks[0]
    start = machine.local(0)
    machine.write(start, 0xFFFFEA0000001000, 3)
    entry = start + before
    machine.link(entry + 24, HEAP + 8)
    machine.write(entry + 8, task.address, wake)
    waiting = machine.waiting()[0]
    assert waiting.wait.kind == kind
    assert waiting.object is not None
    type_, detail = found
    address = 0xFFFFEA0000001000 if before else HEAP
    assert waiting.object[:3] == (type_, address, detail)


_COMPLETION = "schedule schedule_timeout __wait_for_common wait_for_completion f"
_BIT = "schedule io_schedule bit_wait_io __wait_on_bit out_of_line_wait_on_bit f"
_XENSTORE = "schedule xs_wait_for_reply xs_talkv xenbus_printf f"


@pytest.mark.parametrize(
    ("names", "kind", "caller", "area"),
    [
        ("__schedule schedule rwsem_down_read_slowpath down_read fault", "rwsem", "fault", None),
        ("schedule percpu_rwsem_wait __percpu_down_read f", "percpu-rwsem", "f", None),
        ("schedule schedule_timeout __down_common down f", "semaphore", "f", None),
        (_COMPLETION, "completion", "f", None),
        (_BIT, "bit", "f", "block I/O"),
        ("schedule __wait_rcu_gp synchronize_rcu f", "rcu", "f", "RCU"),
        (f"{_COMPLETION[:-2]} __wait_rcu_gp synchronize_rcu f", "completion", "f", "RCU"),
        (f"{_COMPLETION[:-2]} __flush_work f", "completion", "__flush_work", "workqueues"),
        ("schedule io_schedule blk_mq_get_tag f", "I/O", "f", "block I/O"),
        (_XENSTORE, None, "xs_wait_for_reply", "xenbus"),
        ("schedule downcall f", None, "downcall", None),
        ("schedule xen_blkif_schedule kthread", None, "xen_blkif_schedule", "blkback"),
    ],
)
def test_kinds(names: str, kind: str | None, caller: str, area: str | None) -> None:
    wait = wait_of([frame(name) for name in names.split()])
    assert (wait.kind, wait.caller, wait.area, wait.reliable) == (kind, caller, area, True)


def test_a_kind_by_a_guess() -> None:
    frames = [frame("schedule"), frame("mutex_lock", guess=True), frame(None), frame("f")]
    wait = wait_of(frames)
    assert (wait.kind, wait.caller, wait.reliable) == ("mutex", "f", False)
