"""How much memory a task uses, as each version counts it."""

from types import SimpleNamespace
from typing import Any, cast

from xenkdump_fast.linux import mm
from xenkdump_fast.linux.tasks import Task

from .fakes import FakeKernel, FakeMember

TASK, MM, COUNTERS, OFFSETS = 0x10000, 0x20000, 0x30000, 0x40000
RSS, SIZE, FAR, BANNER = 0x340, 0x28, 0x50000, 0x60000


def test_resident_pages_are_summed_over_cpus_since_6_2() -> None:
    # ``rss_stat.count`` names a member there too: that of the array's percpu_counter.
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
    # Of files, anonymous memory, swap, shared memory: agreed on, on CPU 0, on CPU 1.
    for i, counts in enumerate([(0, 1, 0), (0, 12, -2), (0, 99, 0), (318, -5, 29)]):
        counter = MM + RSS + i * SIZE
        memory.number(counter + 8, counts[0], 8)
        memory.number(counter + 0x20, COUNTERS + i * 4, 8)
        memory.number(COUNTERS + i * 4, counts[1] % (1 << 32), 4)
        memory.number(COUNTERS + FAR + i * 4, counts[2] % (1 << 32), 4)
    task = cast("Any", SimpleNamespace(address=TASK, tgid=1, state=0, exit_state=0))
    assert mm.usage(kernel, [cast("Task", task)])[TASK] == mm.Usage(576, 1 + 10 + 342)
