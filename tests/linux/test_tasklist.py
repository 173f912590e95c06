"""Damaged task lists, and the tables of pids that supplement them."""

from collections.abc import Sequence
from typing import Any

import pytest

from xenkdump_fast.linux import pids, tasklist

from .fakes import FakeKernel, FakeMember, words

#: Each fake task is in a separate page.
TASKS = [0x10000 + i * 0x1000 for i in range(6)]
LIST, THREADS, LINKS, SIGNAL = 0x100, 0x110, 0x120, 0x130
TREE, HASH = 0x4_0000, 0x5_0000
PIDS = [0x2_0000 + i * 0x100 for i in range(len(TASKS))]
COMMON: dict[str, int | FakeMember] = {
    "task_struct.tasks": LIST,
    "task_struct.signal": FakeMember(SIGNAL, 8),
    "task_struct.thread_node": THREADS,
    "signal_struct.thread_head": 0,
}


def kernel_with(layouts: dict[str, int | FakeMember], symbols: dict[str, int]) -> FakeKernel:
    """A kernel with an intact list of tasks, each the only thread of its group."""
    kernel = FakeKernel({"init_task": TASKS[0], **symbols}, COMMON | layouts)
    for i, task in enumerate(TASKS):
        after, before = TASKS[(i + 1) % len(TASKS)], TASKS[i - 1]
        signal = task + 0x800
        kernel.memory.write(task, bytes(4096))
        kernel.memory.write(task + LIST, words(8, after + LIST, before + LIST))
        kernel.memory.write(task + SIGNAL, words(8, signal))
        kernel.memory.write(task + THREADS, words(8, signal, signal))
        kernel.memory.write(signal, words(8, task + THREADS, task + THREADS))
    return kernel


def with_tree() -> FakeKernel:
    """The IDR of 4.20 and later: a root, a node of four slots, a node below it."""
    kernel = kernel_with(
        {
            "pid_namespace.idr": 0x10,
            "idr.idr_rt": 0x8,
            "xarray.xa_head": FakeMember(0x8, 8),
            "xa_node.slots": FakeMember(0x20, 32, count=4),
            "pid.tasks": FakeMember(0x10, 32, count=4),
            "task_struct.pid_links": LINKS,
        },
        {"init_pid_ns": TREE},
    )
    memory = kernel.memory
    nodes = [TREE + 0x100, TREE + 0x200]
    memory.write(TREE, bytes(4096))
    memory.number(TREE + 0x20, nodes[0] | 2, 8)
    # A slot that refers to another slot, as for large entries, is not a node.
    memory.write(nodes[0] + 0x20, words(8, PIDS[1], PIDS[2], nodes[1] | 2, 0x6))
    memory.write(nodes[1] + 0x20, words(8, PIDS[3], PIDS[4], 0, PIDS[5]))
    for pid, task in zip(PIDS, TASKS, strict=True):
        memory.write(pid, bytes(0x100))
        memory.number(pid + 0x10, task + LINKS, 8)
    return kernel


def with_hash(shift: int = 1) -> FakeKernel:
    """The hash of upids of 2.6.24 to 4.14; the last task is also in a separate namespace."""
    namespace, inner = HASH + 0x800, HASH + 0x900
    kernel = kernel_with(
        {
            "upid": 0x20,
            "upid.ns": FakeMember(0x8, 8),
            "upid.pid_chain": 0x10,
            "pid.numbers": 0x40,
            "pid.tasks": 0x10,
            "pid_namespace.level": FakeMember(0x4, 4),
            "task_struct.pids": LINKS,
            "pid_link.node": 0,
        },
        {"pid_hash": HASH, "pidhash_shift": HASH + 8},
    )
    memory = kernel.memory
    memory.write(HASH, bytes(4096))
    memory.write(HASH, words(8, HASH + 0x100, shift))
    memory.number(inner + 4, 1, 4)
    buckets = [0] * (1 << shift)
    for i, (pid, task) in enumerate(zip(PIDS, TASKS, strict=True)):
        memory.write(pid, bytes(0x100))
        memory.number(pid + 0x10, task + LINKS, 8)
        levels = (namespace, inner) if i == len(PIDS) - 1 else (namespace,)
        for level, space in enumerate(levels):
            upid = pid + 0x40 + level * 0x20
            bucket = i % len(buckets)
            memory.write(upid, words(8, i, space, buckets[bucket]))
            buckets[bucket] = upid + 0x10
    memory.write(HASH + 0x100, words(8, *buckets))
    return kernel


@pytest.mark.parametrize("kernel", [with_tree(), with_hash()])
def test_intact_tables_agree(kernel: FakeKernel) -> None:
    assert set(pids.tasks(kernel)) | {TASKS[0]} == set(TASKS)
    assert tasklist.addresses(kernel) == TASKS
    assert kernel.warnings == []


@pytest.mark.parametrize("make", [with_tree, with_hash])
def test_a_list_into_missing_memory_is_completed(make: type) -> None:
    kernel: FakeKernel = make()
    kernel.memory.number(TASKS[2] + LIST, 0xDEAD_0000, 8)
    assert sorted(tasklist.addresses(kernel))[:6] == TASKS
    assert any("breaks off" in warning for warning in kernel.warnings)


def test_a_node_of_the_hash_below_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its upid was at a negative address, which the extension module refuses."""
    kernel = with_hash()
    kernel.memory.write(HASH + 0x100, words(8, 8, 8))
    requested: list[int] = []
    read = kernel.memory.read_members

    def recorded(structs: Sequence[int], members: Sequence[tuple[int, int]]) -> Any:
        requested.extend(structs)
        return read(structs, members)

    monkeypatch.setattr(kernel.memory, "read_members", recorded)
    assert tasklist.addresses(kernel) == TASKS
    assert any("table of pids is damaged" in warning for warning in kernel.warnings)
    assert (8 - 0x10) & kernel.last in requested
    assert min(requested) >= 0


def test_a_list_that_skips_tasks_is_completed() -> None:
    kernel = with_tree()
    kernel.memory.write(TASKS[1] + LIST, words(8, TASKS[0] + LIST))
    kernel.memory.write(TASKS[0] + LIST + 8, words(8, TASKS[1] + LIST))
    assert sorted(tasklist.addresses(kernel)) == TASKS
    assert kernel.warnings == ["the task list lacks 4 tasks, which the table of pids has"]


def test_a_list_that_loops_is_walked_backward_without_a_table() -> None:
    kernel = kernel_with({}, {})
    kernel.memory.number(TASKS[3] + LIST, TASKS[2] + LIST, 8)
    assert tasklist.addresses(kernel) == TASKS
    assert len(kernel.warnings) == 1


def test_a_thread_list_that_loops() -> None:
    kernel = with_tree()
    kernel.memory.number(TASKS[2] + THREADS, TASKS[2] + THREADS, 8)
    assert tasklist.addresses(kernel) == TASKS
    assert "loops back" in kernel.warnings[0]


def test_a_tree_that_points_to_itself() -> None:
    kernel = with_tree()
    kernel.memory.number(TREE + 0x200 + 0x20, (TREE + 0x100) | 2, 8)
    assert set(pids.tasks(kernel)) == {TASKS[i] for i in (1, 2, 4, 5)}
    assert "damaged" in kernel.warnings[0]


def test_a_bucket_that_points_to_itself() -> None:
    kernel = with_hash(shift=0)
    first = kernel.pointer(HASH + 0x100)
    kernel.memory.number(first, first, 8)
    assert len(list(pids.tasks(kernel))) < len(TASKS)
    assert "damaged" in kernel.warnings[0]


def test_a_missing_signal_struct() -> None:
    kernel = with_tree()
    kernel.memory.number(TASKS[2] + SIGNAL, 0, 8)
    kernel.memory.number(TASKS[3] + SIGNAL, 0xFFFF_FFFF_FFFF_FFFF, 8)
    assert sorted(tasklist.addresses(kernel)) == TASKS
    assert "cannot be read" in " ".join(kernel.warnings) or "breaks off" in " ".join(
        kernel.warnings
    )


def test_groups_that_share_their_threads() -> None:
    """4000 overlapping leaders that share a list of 4000 threads, in 160 KiB, took 11 s."""
    kernel = kernel_with({}, {})
    many, first, signal = 300, 0x100_0000, 0x200_0000
    leaders = [first + i * 0x20 for i in range(many)]
    for leader, after in zip(leaders, [*leaders[1:], TASKS[0]], strict=True):
        kernel.memory.write(leader + LIST, words(8, after + LIST))
        kernel.memory.write(leader + SIGNAL, words(8, signal))
    kernel.memory.write(TASKS[0] + LIST, words(8, leaders[0] + LIST, leaders[-1] + LIST))
    # The last thread points to the first one, and none to the head.
    nodes = [signal + 8 * i for i in range(1, many + 1)]
    kernel.memory.write(signal, words(8, *nodes, nodes[0]))
    kernel.memory.reads = 0
    found = tasklist.addresses(kernel)
    assert set(found) == {TASKS[0], *leaders, *(node - THREADS for node in nodes)}
    assert kernel.memory.reads < 10 * many
    assert "runs into another thread group" in kernel.warnings[1]


def test_more_tasks_than_the_dump_can_hold() -> None:
    kernel = with_tree()
    kernel.memory_held = 4 * tasklist.MIN_SIZE
    assert tasklist.addresses(kernel) == TASKS[:4]
    assert kernel.warnings == ["the tasks are more than the dump can hold: using the first 4"]
    # The size in the types has priority.
    kernel.types.layouts["task_struct"] = 2 * tasklist.MIN_SIZE  # type: ignore[attr-defined]
    assert tasklist.addresses(kernel) == TASKS[:2]


def test_a_list_of_more_entries_than_the_dump_can_hold() -> None:
    kernel = with_tree()
    head = TASKS[0] + LIST
    kernel.memory_held = 3 * 16
    assert list(kernel.list(head)) == [task + LIST for task in TASKS[1:4]]
    assert kernel.warnings == [f"the list at {head:#x} has more than 3 entries"]
    assert len(list(kernel.list(head, 2))) == 2


@pytest.mark.parametrize("count", [64, 1 << 32])
def test_a_tree_whose_nodes_overlap(count: int) -> None:
    """8000 nodes, one word apart, had 64 entries each: 256000 entries in 125 KiB."""
    kernel = with_tree()
    kernel.types.layouts["xa_node.slots"] = FakeMember(0, count=count)  # type: ignore[attr-defined]
    first, many = 0x100_0000, 2000
    kernel.memory_held = many * 8
    values = [
        (first + i * 61 % many * 8) | 2 if i % 2 else 0xDEAD_0000_0000 + i * 8 for i in range(many)
    ]
    kernel.memory.write(first, words(8, *values))
    kernel.memory.number(TREE + 0x20, first | 2, 8)
    kernel.memory.reads = 0
    assert list(pids.tasks(kernel)) == []
    # The nodes that 16000 bytes can hold, and the pids in their slots.
    assert many // 64 < kernel.memory.reads <= 2 + many // 64 * 65
    assert "damaged" in kernel.warnings[0]


def test_a_tree_of_more_pids_than_the_dump_can_hold() -> None:
    kernel = with_tree()
    kernel.memory_held = 3 * pids.PID_WORDS * 8
    assert list(pids.tasks(kernel)) == TASKS[1:4]
    assert kernel.warnings == [f"the table of pids is damaged at {PIDS[4]:#x}"]


@pytest.mark.parametrize("head", [False, True])
def test_a_list_that_runs_into_one_of_an_earlier_batch(
    head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = with_tree()
    monkeypatch.setattr(tasklist, "THREAD_GROUPS", 2)
    assert tasklist.addresses(kernel) == TASKS
    assert kernel.warnings == []
    # The list of the fifth group leads to the second one: to its task, or to the head of its list.
    signal = TASKS[1] + 0x800
    kernel.memory.number(TASKS[4] + THREADS, signal if head else TASKS[1] + THREADS, 8)
    assert tasklist.addresses(kernel) == TASKS
    assert kernel.warnings == [
        f"the thread list of the task at {TASKS[4]:#x} runs into another thread group"
    ]


def test_lists_of_threads_are_walked_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = with_tree()
    walked: list[int] = []
    lists = kernel.lists

    def counted(heads: Sequence[int], *arguments: Any, **named: Any) -> Any:
        walked.append(len(heads))
        return lists(heads, *arguments, **named)

    monkeypatch.setattr(tasklist, "THREAD_GROUPS", 4)
    monkeypatch.setattr(kernel, "lists", counted)
    assert tasklist.addresses(kernel) == TASKS
    # The list of tasks, then those of threads.
    assert walked == [1, 4, 1]
