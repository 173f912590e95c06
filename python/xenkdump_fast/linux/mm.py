"""Memory usage of tasks."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from .. import api_arguments
from .._native import AbsentError, MemoryFault
from .._typing import NamedTuple
from ..budget import BudgetExceededError
from ..limits import MAX_KNOWN_MMS
from . import percpu, states
from .kernel import Kernel
from .layouts import Number
from .structs import BATCH, Structs, batches
from .tasks import Task

#: include/linux/mm_types_task.h: counters of resident pages. SHMEMPAGES came with 4.5
#: (eca56ff906bd); number 2, between them, counts swap entries.
_COUNTERS = _FILEPAGES, _ANONPAGES, _SHMEMPAGES = 0, 1, 3
#: The counter of one CPU: an s32.
_SHARE = Number(0, 4, signed=True)
#: include/linux/sched.h.
PF_EXITING = 0x4
#: 2.6.27, 246bb0b1deb2.
PF_KTHREAD = 0x0020_0000


class Usage(NamedTuple):
    """Pages of virtual memory, and pages that are resident."""

    total: int
    #: None if it is not known.
    resident: int | None


#: The usage of a task without user space.
NONE = Usage(0, 0)


def usage(kernel: Kernel, all_tasks: Sequence[Task]) -> dict[int, Usage]:
    """The usage of each task for which it is known, by address of the task."""
    found: dict[int, Usage] = {}
    use = MemoryUse(kernel, all_tasks)
    for batch in batches(all_tasks):
        found |= use.of(batch)
    return found


class MemoryUse:
    """The memory usage of tasks, by batch: for a million tasks at once it takes much memory."""

    def __init__(self, kernel: Kernel, all_tasks: Sequence[Task]) -> None:
        self._kernel = kernel
        self._states = states.of(kernel)
        self._cached = _cached(kernel, all_tasks)
        #: Threads share an mm, and follow each other by pid.
        self._by_mm: dict[int, Usage | MemoryFault] = {}
        #: None once it is not known.
        self._counters: _Counters | None = None
        try:
            self._counters = _Counters(kernel)
        except AbsentError as error:
            kernel.warn(f"the memory of tasks is not known: {error}")

    def of(self, batch: Sequence[Task]) -> dict[int, Usage]:
        """The usage of each of these for which it is known, by address of the task."""
        zombies = [task for task in batch if states.is_zombie(task, self._states)]
        found = dict.fromkeys((task.address for task in zombies), NONE)
        if self._counters is not None:
            try:
                others = [task for task in batch if task.address not in found]
                self._add(found, others, self._counters)
            except BudgetExceededError as error:
                self._counters = None
                self._kernel.warn(f"the memory of some tasks is not known: {error}")
            except AbsentError as error:
                self._counters = None
                self._kernel.warn(f"the memory of tasks is not known: {error}")
        return found

    def _add(self, found: dict[int, Usage], batch: Sequence[Task], counters: "_Counters") -> None:
        kernel = self._kernel
        tasks = Structs(kernel, [task.address for task in batch], ["task_struct.mm"])
        mms = dict.fromkeys(tasks.values("task_struct.mm"))
        known = self._by_mm
        if len(known) > MAX_KNOWN_MMS:
            known = self._by_mm = {mm: known[mm] for mm in mms if mm in known}
        new = (mm for mm in mms if mm and mm not in known)
        known.update(counters.read(list(islice(new, counters.budget.remaining))))
        for task in batch:
            try:
                mm = tasks.read(task.address, "task_struct.mm")
            except MemoryFault as fault:
                used: Usage | MemoryFault = fault
            else:
                if mm == 0:
                    found[task.address] = NONE
                    continue
                if mm not in known:
                    known.update(counters.read([mm]))  # was not read with the rest
                used = known[mm]
            if isinstance(used, MemoryFault):
                kernel.warn(f"the memory of the task at {task.address:#x} is not known: {used}")
            else:
                resident = used.resident
                if resident is not None:
                    resident += self._cached.get(task.tgid, 0)
                found[task.address] = Usage(used.total, resident)


class _Counters:
    """The counters of resident pages in the mm_structs of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        #: The counters in an mm_struct; the resident pages are their sum.
        self._counts: list[Number] = []
        #: For each of them a pointer to counters per CPU, which are added, if it has them.
        self._pointers: list[Number] = []
        self._areas: Mapping[int, int | None] = {}
        self._find_counts()
        # A counter has four bytes per CPU.
        size = 4 * len(_COUNTERS) * max(len(self._areas), 1)
        self.budget = kernel.object_budget("mm_structs", size)

    def _find_counts(self) -> None:
        kernel = self._kernel
        if kernel.has("mm_struct.rss_stat.count"):
            counts = kernel.member("mm_struct.rss_stat.count")
            if counts.count is not None:  # 2.6.34 to 6.1
                numbers = [i for i in _COUNTERS if i < counts.count]
                self._counts = self._longs(counts.offset + i * kernel.word for i in numbers)
                return
            # 6.2, f1a7941243c1: an array of percpu_counter, each with a count of its own.
            at, size = kernel.offset("mm_struct.rss_stat"), kernel.types.sizeof("percpu_counter")
            offsets = [at + i * size for i in _COUNTERS]
            self._counts = _at(offsets, kernel.numeric("percpu_counter.count"))
            if kernel.has("percpu_counter.counters"):
                self._pointers = _at(offsets, kernel.numeric("percpu_counter.counters"))
                self._areas = percpu.areas(kernel)
        elif kernel.has("mm_struct._file_rss"):  # 2.6.15 to 2.6.33; an atomic, or a long
            names = ("_file_rss", "_anon_rss")
            self._counts = self._longs(kernel.offset(f"mm_struct.{name}") for name in names)
        elif kernel.has("mm.rss"):  # until 2.6.14
            self._counts = [kernel.numeric("mm.rss")]
        else:
            kernel.warn("RSS is not known: no member of mm_struct counts resident pages")

    def _longs(self, offsets: Iterable[int]) -> list[Number]:
        return [Number(offset, self._kernel.word, signed=True) for offset in offsets]

    def read(self, mms: Iterable[int]) -> Iterator[tuple[int, Usage | MemoryFault]]:
        """The usage of each mm_struct, or why it cannot be read.

        BudgetExceededError if these are more mm_structs than the dump can hold.
        """
        members: list[str | Number] = ["mm_struct.total_vm", *self._counts, *self._pointers]
        for batch in batches(mms, max(BATCH // max(len(self._areas), 1), 1)):
            structs = Structs(self._kernel, batch, members)
            bases = [base for pointer in self._pointers for base in structs.values(pointer)]
            offsets = [at for at in self._areas.values() if at is not None]
            cells = [(base + at) & self._kernel.last for base in bases for at in offsets]
            shares = Structs(self._kernel, cells, [_SHARE])
            for mm in self.budget.take(batch):
                try:
                    resident = self._resident(mm, structs, shares)
                    yield mm, Usage(structs.read(mm, "mm_struct.total_vm"), resident)
                except MemoryFault as fault:
                    yield mm, fault.with_traceback(None)

    def _resident(self, mm: int, structs: Structs, shares: Structs) -> int | None:
        """The sum of the counters without those that are currently negative; None without any."""
        if not self._counts:
            return None
        totals = [structs.read(mm, count) for count in self._counts]
        for i, pointer in enumerate(self._pointers):
            base = structs.read(mm, pointer)
            for cpu, at in self._areas.items():
                found = percpu.offset(self._kernel, cpu) if at is None else at
                totals[i] += shares.read((base + found) & self._kernel.last, _SHARE)
        return sum(max(0, total) for total in totals)


def _at(offsets: Iterable[int], member: Number) -> list[Number]:
    """A member of structs at these offsets in another struct."""
    return [member._replace(offset=at + member.offset) for at in offsets]


def _cached(kernel: Kernel, all_tasks: Sequence[Task]) -> dict[int, int]:
    """Pages that threads have not yet added to the mm, by thread group (2.6.34 to 6.1)."""
    found: dict[int, int] = defaultdict(int)
    if not kernel.has("task_struct.rss_stat.count"):
        return found
    counts = kernel.member("task_struct.rss_stat.count")
    numbers = [i for i in _COUNTERS if i < (counts.count or 0)]
    members = [Number(counts.offset + i * 4, 4, signed=True) for i in numbers]
    for batch in batches(all_tasks):
        structs = Structs(kernel, [task.address for task in batch], members)
        for task in batch:
            with suppress(AbsentError):
                for member in members:
                    count = structs.read(task.address, member)
                    if count > 0:
                        found[task.tgid] += count
    return found


def page_table(kernel: Kernel, task: Task) -> int:
    """The virtual address of a process's top page table: ``mm_struct.pgd``.

    AbsentError if the task has no user space, as kernel threads and tasks that have exited.
    """
    api_arguments.task(task)
    mm = kernel.read(task.address, "task_struct.mm")
    if mm == 0:
        raise AbsentError(f"task {task.pid} at {task.address:#x} has no user space")
    return kernel.read(mm, "mm_struct.pgd")


def page_tables(kernel: Kernel, tasks: Iterable[Task]) -> Iterator[int]:
    """The virtual addresses of the top page tables of all processes, each once.

    Kernel threads lead to those of processes that have exited: ``task_struct.active_mm``.
    """
    found: set[int] = set()
    for batch in batches(tasks):
        members = ["task_struct.mm", "task_struct.active_mm"]
        structs = Structs(kernel, [task.address for task in batch], members)
        mms = {mm for member in members for mm in structs.values(member) if mm} - found
        found |= mms
        yield from dict.fromkeys(Structs(kernel, mms, ["mm_struct.pgd"]).values("mm_struct.pgd"))


def total_pages(kernel: Kernel) -> int:
    """Pages of memory that the kernel manages; %MEM is relative to them."""
    if kernel.word == 8:
        total = kernel.pointer(kernel.symbol("max_pfn"))
    else:
        total = kernel.pointer(kernel.symbol("max_low_pfn"))
        high = None
        with suppress(AbsentError):  # without CONFIG_HIGHMEM
            high = kernel.symbol("totalhigh_pages")
        if high is not None:
            total += kernel.pointer(high)
    if "num_physpages" in kernel.symbols:  # until 3.10
        total = min(total, kernel.pointer(kernel.symbol("num_physpages")))
    return total


def kernel_threads(kernel: Kernel, tasks: Iterable[Task], known: states.States) -> set[int]:
    """The addresses of the tasks without user space, as far as they can be identified."""
    found: set[int] = set()
    try:
        flags = kernel.read(kernel.symbol("init_task"), "task_struct.flags")
    except AbsentError:
        return found
    for batch in batches(tasks):
        members = ["task_struct.flags", "task_struct.mm"]
        structs = Structs(kernel, [task.address for task in batch], members)
        for task in batch:
            with suppress(AbsentError):
                if _is_kernel_thread(kernel, task, structs, known, bool(flags & PF_KTHREAD)):
                    found.add(task.address)
    return found


def _is_kernel_thread(
    kernel: Kernel, task: Task, structs: Structs, known: states.States, flagged: bool
) -> bool:
    """Whether a task has no user space; ``flagged`` says that PF_KTHREAD marks these tasks."""
    flags = structs.read(task.address, "task_struct.flags")
    if flagged:
        return bool(flags & PF_KTHREAD)
    # Before 2.6.27 they can only be identified by the missing mm, as can exiting tasks.
    if task.pid == 0:
        return True
    if states.is_zombie(task, known) or flags & PF_EXITING:
        return False
    mm = structs.read(task.address, "task_struct.mm")
    return mm == 0 or mm == kernel.symbols.get("init_mm")
