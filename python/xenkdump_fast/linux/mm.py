"""How much memory tasks use."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from .._native import AbsentError, MemoryFault
from . import percpu, states
from .kernel import Kernel
from .tasks import Task

#: include/linux/mm_types_task.h: counters of resident pages. SHMEMPAGES came with 4.5
#: (eca56ff906bd); number 2, between them, counts swap entries.
_COUNTERS = _FILEPAGES, _ANONPAGES, _SHMEMPAGES = 0, 1, 3
#: include/linux/sched.h.
PF_EXITING = 0x4
#: 2.6.27, 246bb0b1deb2.
PF_KTHREAD = 0x0020_0000


class Usage(NamedTuple):
    """Pages of virtual memory, and pages that are resident."""

    total: int
    resident: int


def usage(kernel: Kernel, everyone: Sequence[Task]) -> dict[int, Usage]:
    """Of each task that has memory of its own, by the task's address."""
    known = states.of(kernel)
    cached = _cached(kernel, everyone)
    cpus = percpu.areas(kernel) if _counts_by_cpu(kernel) else []
    # A counter has four bytes for each CPU.
    room = kernel.most(4 * len(_COUNTERS) * max(len(cpus), 1))
    found: dict[int, Usage] = {}
    by_mm: dict[int, Usage | MemoryFault] = {}
    for task in everyone:
        if states.is_zombie(task, known):
            continue
        try:
            mm = kernel.read(task.address, "task_struct.mm")
            if mm == 0:
                continue
            # Threads share theirs.
            if mm not in by_mm:
                if len(by_mm) >= room:
                    kernel.warn("the memory of some tasks is not known: the dump cannot hold all")
                    break
                by_mm[mm] = _of_mm(kernel, mm, cpus)
            used = by_mm[mm]
        except MemoryFault as fault:
            used = fault
        except AbsentError as error:
            kernel.warn(f"the memory of tasks is not known: {error}")
            break
        if isinstance(used, MemoryFault):
            kernel.warn(f"the memory of the task at {task.address:#x} is not known: {used}")
        else:
            found[task.address] = Usage(used.total, used.resident + cached.get(task.tgid, 0))
    return found


def _of_mm(kernel: Kernel, mm: int, cpus: Sequence[int]) -> Usage | MemoryFault:
    """What an mm_struct counts, or why it cannot be read."""
    try:
        resident = _resident(kernel, mm, cpus)
        return Usage(kernel.read(mm, "mm_struct.total_vm"), resident)
    except MemoryFault as fault:
        return fault.with_traceback(None)


def _resident(kernel: Kernel, mm: int, cpus: Sequence[int]) -> int:
    """Resident pages of an mm_struct; 0, with a warning, where nothing is known to count them."""
    if kernel.has("mm_struct.rss_stat.count"):
        counts = kernel.member("mm_struct.rss_stat.count")
        if counts.count is not None:  # 2.6.34 to 6.1
            return _sum(kernel, mm + counts.offset, [i for i in _COUNTERS if i < counts.count])
        # 6.2, f1a7941243c1: an array of percpu_counter, each with a count of its own.
        at, size = mm + kernel.offset("mm_struct.rss_stat"), kernel.types.sizeof("percpu_counter")
        return sum(max(0, _percpu_counter(kernel, at + i * size, cpus)) for i in _COUNTERS)
    if kernel.has("mm_struct._file_rss"):  # 2.6.15 to 2.6.33; an atomic, or a long
        return sum(
            _sum(kernel, mm + kernel.offset(f"mm_struct.{name}"), [0])
            for name in ("_file_rss", "_anon_rss")
        )
    if kernel.has("mm.rss"):  # until 2.6.14
        return kernel.read(mm, "mm.rss")
    kernel.warn("RSS is not known: no member of mm_struct counts resident pages")
    return 0


def _counts_by_cpu(kernel: Kernel) -> bool:
    """Whether each CPU counts an mm's resident pages: 6.2 on."""
    counts = "mm_struct.rss_stat.count"
    return kernel.has(counts) and kernel.member(counts).count is None


def _sum(kernel: Kernel, counts: int, numbers: Sequence[int]) -> int:
    """The sum of some of the longs at ``counts``, without those that are negative for now."""
    word = kernel.word
    return sum(max(0, _signed(kernel.pointer(counts + i * word), word)) for i in numbers)


def _percpu_counter(kernel: Kernel, counter: int, cpus: Sequence[int]) -> int:
    """A percpu_counter: what all have agreed on, and what each CPU has counted since."""
    total = kernel.read(counter, "percpu_counter.count")
    if kernel.has("percpu_counter.counters"):
        base = kernel.read(counter, "percpu_counter.counters")
        for cpu in cpus:
            total += _signed(kernel.number(percpu.shifted(kernel, base, cpu), 4), 4)
    return total


def _cached(kernel: Kernel, everyone: Sequence[Task]) -> dict[int, int]:
    """Pages by thread group that its threads have not added to the mm yet (2.6.34 to 6.1)."""
    found: dict[int, int] = defaultdict(int)
    if not kernel.has("task_struct.rss_stat.count"):
        return found
    counts = kernel.member("task_struct.rss_stat.count")
    for task in everyone:
        for i in _COUNTERS:
            if i < (counts.count or 0):
                at = task.address + counts.offset + i * 4
                try:
                    found[task.tgid] += max(0, _signed(kernel.number(at, 4), 4))
                except AbsentError:
                    break
    return found


def _signed(value: int, size: int) -> int:
    return value - (1 << size * 8) if value >> (size * 8 - 1) else value


def total_pages(kernel: Kernel) -> int:
    """Pages of memory that the kernel manages: what %MEM is a share of."""
    if kernel.word == 8:
        total = kernel.pointer(kernel.symbol("max_pfn"))
    else:
        total = kernel.pointer(kernel.symbol("max_low_pfn"))
        with suppress(AbsentError):
            total += kernel.pointer(kernel.symbol("totalhigh_pages"))
    if "num_physpages" in kernel.symbols:  # until 3.10
        total = min(total, kernel.pointer(kernel.symbol("num_physpages")))
    return total


def is_kernel_thread(kernel: Kernel, task: Task, known: states.States) -> bool:
    """Whether a task has no user space of its own."""
    flags = kernel.read(task.address, "task_struct.flags")
    if kernel.read(kernel.symbol("init_task"), "task_struct.flags") & PF_KTHREAD:
        return bool(flags & PF_KTHREAD)
    # Before 2.6.27 only the missing mm tells, which an exiting task has given up as well.
    if task.pid == 0:
        return True
    if states.is_zombie(task, known) or flags & PF_EXITING:
        return False
    mm = kernel.read(task.address, "task_struct.mm")
    return mm == 0 or mm == kernel.symbols.get("init_mm")
