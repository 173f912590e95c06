"""Memory usage of tasks, with the counters of each version."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from xenkdump_fast import MemoryFault
from xenkdump_fast.linux import mm
from xenkdump_fast.linux.tasks import Task

from .fakes import FakeKernel, FakeMember

TASK, MM, COUNTERS, OFFSETS = 0x10000, 0x20000, 0x30000, 0x40000
RSS, SIZE, FAR, BANNER = 0x340, 0x28, 0x50000, 0x60000


def kernel_with_counters() -> FakeKernel:
    """A process of 6.2 or later, on two CPUs."""
    # ``rss_stat.count`` is a member, too: of the percpu_counter in the array.
    kernel = FakeKernel(
        {
            "linux_banner": BANNER,
            "__per_cpu_offset": OFFSETS,
            "__cpu_possible_mask": OFFSETS + 0x100,
        },
        {
            "task_struct.mm": FakeMember(0x10, 8),
            "mm_struct.total_vm": FakeMember(0x18, 8),
            "mm_struct.rss_stat": FakeMember(RSS, 4 * SIZE, count=4),
            "mm_struct.rss_stat.count": FakeMember(RSS + 8, 8, signed=True),
            "percpu_counter": SIZE,
            "percpu_counter.count": FakeMember(8, 8, signed=True),
            "percpu_counter.counters": FakeMember(0x20, 8),
        },
    )
    memory = kernel.memory
    memory.write(BANNER, b"Linux version 6.12.117+deb13-amd64 (debian) #1 SMP\0")
    memory.number(TASK + 0x10, MM, 8)
    memory.number(MM + 0x18, 576, 8)
    memory.number(OFFSETS, 0, 8)
    memory.number(OFFSETS + 8, FAR, 8)
    memory.number(OFFSETS + 0x100, 0b11, 8)
    # Files, anonymous memory, swap, shared memory: total, CPU 0, CPU 1.
    for i, counts in enumerate([(0, 1, 0), (0, 12, -2), (0, 99, 0), (318, -5, 29)]):
        counter = MM + RSS + i * SIZE
        memory.number(counter + 8, counts[0], 8)
        memory.number(counter + 0x20, COUNTERS + i * 4, 8)
        memory.number(COUNTERS + i * 4, counts[1] % (1 << 32), 4)
        memory.number(COUNTERS + FAR + i * 4, counts[2] % (1 << 32), 4)
    return kernel


def layouts(kernel: FakeKernel) -> dict[str, Any]:
    """The types of the kernel, which may be changed before they are used."""
    types: Any = kernel.types
    found: dict[str, Any] = types.layouts
    return found


def task_at(address: int) -> Task:
    task: Any = SimpleNamespace(address=address, tgid=1, state=0, exit_state=0)
    return cast("Task", task)


def test_resident_pages_are_summed_over_cpus_since_6_2() -> None:
    assert mm.usage(kernel_with_counters(), [task_at(TASK)])[TASK] == mm.Usage(576, 1 + 10 + 342)


def test_the_mm_of_threads_is_read_once() -> None:
    """Reading three counters of 8192 CPUs for each task took 25 ms per task."""
    kernel = kernel_with_counters()
    tasks = [TASK + i * 0x20 for i in range(100)]
    for task in tasks:
        kernel.memory.number(task + 0x10, MM, 8)
    kernel.memory.reads = 0
    assert set(mm.usage(kernel, [task_at(task) for task in tasks]).values()) == {
        mm.Usage(576, 1 + 10 + 342)
    }
    assert kernel.memory.reads < 2 * len(tasks)
    # An unreadable mm is not read again either.
    kernel.memory.drop(COUNTERS + FAR)
    kernel.memory.reads = 0
    assert mm.usage(kernel, [task_at(task) for task in tasks]) == {}
    assert kernel.memory.reads < 2 * len(tasks)
    assert kernel.warnings[-1].startswith("and 97 more like this: the memory of the task at")


def test_more_counters_than_the_dump_can_hold() -> None:
    kernel = kernel_with_counters()
    kernel.memory_held = 2 * 4096
    many = kernel.memory_held // (3 * 2 * 4)
    tasks = [TASK + i * 0x20 for i in range(2 * many)]
    for i, task in enumerate(tasks):
        kernel.memory.number(task + 0x10, MM - i * 8, 8)
    kernel.memory.write(MM - 0x8000, bytes(0x8000))
    kernel.memory.write(0, bytes(4096))
    kernel.memory.write(FAR, bytes(4096))
    assert len(mm.usage(kernel, [task_at(task) for task in tasks])) == many
    assert kernel.warnings == [
        "the memory of some tasks is not known: the mm_structs are more than the dump can hold"
    ]


def test_tasks_without_user_space_use_no_memory() -> None:
    kernel = kernel_with_counters()
    kernel.memory.number(TASK + 0x10, 0, 8)
    assert mm.usage(kernel, [task_at(TASK)]) == {TASK: mm.NONE}


def test_resident_pages_are_unknown_without_counters() -> None:
    """It was 0."""
    kernel = kernel_with_counters()
    for name in ("", ".count"):
        del layouts(kernel)[f"mm_struct.rss_stat{name}"]
    assert mm.usage(kernel, [task_at(TASK)]) == {TASK: mm.Usage(576, None)}
    assert kernel.warnings == ["RSS is not known: no member of mm_struct counts resident pages"]


def test_usage_is_unknown_without_its_members() -> None:
    kernel = kernel_with_counters()
    del layouts(kernel)["mm_struct.total_vm"]
    assert mm.usage(kernel, [task_at(TASK)]) == {}
    assert kernel.warnings[0].startswith("the memory of tasks is not known")


def test_the_pages_of_high_memory() -> None:
    """%MEM is relative to it, too: the total is not known without it."""
    symbols = {"max_low_pfn": 0x1000, "_totalhigh_pages": 0x2000}
    kernel = FakeKernel(symbols, word=4)
    kernel.memory.number(0x1000, 1000, 4)
    kernel.memory.number(0x2000, 200, 4)
    assert mm.total_pages(kernel) == 1200
    kernel.memory.drop(0x2000)
    with pytest.raises(MemoryFault):
        mm.total_pages(kernel)
    del symbols["_totalhigh_pages"]
    without = FakeKernel(symbols, word=4)
    without.memory.number(0x1000, 1000, 4)
    assert mm.total_pages(without) == 1000
