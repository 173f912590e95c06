"""Active tasks of CPUs."""

from xenkdump_fast.limits import MAX_CPUS
from xenkdump_fast.linux import percpu, tasks
from xenkdump_fast.linux.run_queues import RunQueues

from .fakes import FakeKernel, FakeMember

INIT_TASK, QUEUES, MASK, OFFSETS = 0x10000, 0x20000, 0x30000, 0x40000
CURR = 0x9F0


def kernel_with(curr: list[int], possible: int = 0b11) -> FakeKernel:
    """A kernel with a CPU for each task in ``curr``; each run queue is in a separate page."""
    kernel = FakeKernel(
        {
            "init_task": INIT_TASK,
            "runqueues": QUEUES,
            "__cpu_possible_mask": MASK,
            "__per_cpu_offset": OFFSETS,
        },
        {"rq.curr": FakeMember(CURR, 8), "sched_entity": 0x100, "task_struct": 0x1000},
    )
    kernel.memory.number(MASK, possible, 8)
    for cpu, task in enumerate(curr):
        kernel.memory.number(OFFSETS + cpu * 8, cpu * 0x1000, 8)
        kernel.memory.number(QUEUES + cpu * 0x1000 + CURR, task, 8)
    return kernel


def test_a_cpu_that_never_started_runs_nothing() -> None:
    assert tasks.active(kernel_with([0x5000, 0])) == {0: 0x5000}


def test_before_sched_init_the_first_cpu_runs_init_task() -> None:
    # Seen on a PV guest of 6.12, killed with its host while it was starting.
    assert tasks.active(kernel_with([0, 0])) == {0: INIT_TASK}
    assert tasks.active(kernel_with([0, 0], possible=0)) == {0: INIT_TASK}


def test_unreadable_run_queues_have_no_active_task() -> None:
    kernel = kernel_with([0, 0])
    kernel.memory.drop(QUEUES)
    kernel.memory.drop(QUEUES + 0x1000)
    assert tasks.active(kernel) == {}
    assert len(kernel.warnings) == 2


def test_cpus_without_a_per_cpu_area() -> None:
    """With a mask of ones there were 8192 CPUs, all of which ran the same task."""
    kernel = kernel_with([0x5000, 0x6000, 0x7000, 0x8000], possible=0b1111)
    kernel.memory.number(OFFSETS + 3 * 8, 0x1000, 8)
    assert tasks.active(kernel) == {0: 0x5000, 1: 0x6000, 2: 0x7000}
    assert kernel.warnings == ["1 of the possible CPUs have no per-CPU area of their own"]


def test_offsets_that_cannot_be_read() -> None:
    """There are warnings, as commands show no run queue and no timers of these CPUs."""
    kernel = kernel_with([0x5000, 0x6000])
    assert percpu.offsets(kernel) == {0: 0, 1: 0x1000}
    assert kernel.warnings == []
    kernel.memory.drop(OFFSETS)
    assert percpu.areas(kernel) == {0: None, 1: None}
    assert (percpu.offsets(kernel), RunQueues(kernel).addresses) == ({}, {})
    assert kernel.warnings == [
        f"the per-CPU area of CPU {cpu} is not known: {OFFSETS + 8 * cpu:#x} is not mapped"
        for cpu in range(2)
    ]


def test_masks_that_cannot_be_read() -> None:
    """What is assumed in place of them is a warning: without it CPUs may be missing."""
    kernel = kernel_with([0x5000, 0x6000])
    kernel.memory.drop(MASK)
    assert tasks.active(kernel) == {0: 0x5000}
    (warning,) = kernel.warnings
    assert warning == (
        f"the possible CPUs are not known, a single one is assumed: {MASK:#x} is not mapped"
    )
    kernel.symbols.update(nr_cpu_ids=0x50000, __cpu_present_mask=MASK)  # type: ignore[attr-defined]
    kernel.memory.number(0x50000, 2, 4)
    assert tasks.active(kernel) == {0: 0x5000, 1: 0x6000}
    assert percpu.present(kernel) == [0, 1]
    assert "all 2 below nr_cpu_ids are assumed" in kernel.warnings[1]
    assert kernel.warnings[2].startswith("the present CPUs are not known")
    kernel.memory.number(0x50000, 0xFFFFFFFF, 4)
    assert len(percpu.possible(kernel)) == MAX_CPUS


def test_online_masks_that_cannot_be_read() -> None:
    """There is a warning: the CPUs that panic() has stopped may be missing."""
    kernel = kernel_with([0x5000, 0x6000])
    masks = {"__cpu_online_mask": 0x60000, "__cpu_active_mask": 0x61000}
    kernel.symbols.update(masks)  # type: ignore[attr-defined]
    kernel.memory.number(0x60000, 1, 8)
    kernel.memory.number(0x61000, 3, 8)
    assert (percpu.online(kernel), kernel.warnings) == ([0, 1], [])
    kernel.memory.drop(0x61000)
    assert percpu.online(kernel) == [0]
    (warning,) = kernel.warnings
    assert warning.startswith("the online CPUs are not certain: cpu_active: ")


def test_more_cpus_than_the_dump_can_hold() -> None:
    kernel = kernel_with([0x5000, 0x6000, 0x7000], possible=0b111)
    kernel.memory_held = 2 * 4096
    assert percpu.areas(kernel) == {0: 0, 1: 0x1000}
    kernel.symbols.update(__per_cpu_start=0x100, __per_cpu_end=0x100 + 8 * 4096)  # type: ignore[attr-defined]
    assert percpu.areas(kernel) == {0: 0}
    assert (
        kernel.warnings[0] == "the per-CPU areas are more than the dump can hold: using the first 2"
    )
    assert tasks.active(kernel) == {0: 0x5000}
