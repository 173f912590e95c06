"""Tasks and their states."""

import sys
from collections.abc import Iterable, Sequence
from functools import cached_property

from .._contexts import suppress
from .._native import AbsentError, MemoryFault
from .._typing import NamedTuple
from ..isolation import isolated
from ..limits import MAX_PER_CPU_SEARCH
from ..parsing import number
from . import compat, percpu
from .kernel import Kernel
from .partial_buffer import PartialBuffer
from .structs import Structs, batches

#: include/linux/sched.h: the lowest bits of a state; the same since 2.6.0.
_STATES = {0: "TASK_RUNNING", 1: "TASK_INTERRUPTIBLE", 2: "TASK_UNINTERRUPTIBLE"}
COMM_LENGTH = 16


class Task(NamedTuple):
    """One task_struct."""

    #: Address of its task_struct.
    address: int
    #: Its thread id, as the kernel's ``pid``.
    pid: int
    #: Id of its thread group: the process id.
    tgid: int
    #: Its command name.
    comm: str
    #: The CPU it runs or last ran on.
    cpu: int
    #: ``task_struct.__state``; None if it cannot be read.
    state: int | None
    #: ``task_struct.exit_state``; not 0 once it has exited.
    exit_state: int
    #: The lowest address of its stack.
    stack: int
    #: Whether a CPU was running it.
    active: bool
    #: Whether it is a CPU's idle task.
    idle: bool


def active(kernel: Kernel) -> dict[int, int]:
    """The task that each CPU was running, by ``curr`` of its run queue: CPU number to address.

    Without the symbol of the run queues it is ``current_task``, which is exported.
    """
    queues = _current(kernel)
    found = {cpu: task for cpu, task in queues.items() if task}
    # Before sched_init() no run queue has a task, and even earlier the masks of CPUs are empty: the
    # first CPU runs init_task, the only task. Run queues that cannot be read are no sign of that.
    if not found and (queues or not percpu.possible(kernel)):
        found[0] = kernel.symbol("init_task")
    return found


def running(kernel: Kernel) -> dict[int, Task]:
    """The tasks of ``active``, as far as they can be read."""
    found = {}
    for batch in batches(active(kernel).items()):
        structs = TaskStructs(kernel, [address for _, address in batch])
        for cpu, address in batch:
            what = f"the task at {address:#x}, which CPU {cpu} ran, cannot be read"
            with isolated(what, kernel.warn, MemoryFault):
                found[cpu] = structs.task(address, cpu, is_active=True)
    return found


def idle(kernel: Kernel) -> dict[int, int]:
    """Each CPU's idle task."""
    if not _has_run_queues(kernel):
        return _idle_by_areas(kernel)
    return {cpu: task for cpu, task in _per_run_queue(kernel, "rq.idle").items() if task}


def _has_run_queues(kernel: Kernel) -> bool:
    return any(name in kernel.symbols for name in compat.SYMBOLS["runqueues"])


def _current(kernel: Kernel) -> dict[int, int]:
    names = [name for name in compat.SYMBOLS["current"] if name in kernel.symbols]
    if _has_run_queues(kernel) or not names:
        return _per_run_queue(kernel, "rq.curr")
    variable = kernel.symbols[names[0]]
    found = {}
    for cpu, at in percpu.offsets(kernel).items():
        with isolated(f"the current task of CPU {cpu} is not known", kernel.warn, MemoryFault):
            found[cpu] = kernel.pointer(variable + at)
    return found


def _idle_by_areas(kernel: Kernel) -> dict[int, int]:
    """Each CPU's idle task, without the symbol of the run queues.

    That of CPU 0 is init_task. Where CPU 0's per-CPU area has its address, such as in the run
    queue and in ``idle_threads``, the areas of others have those of their own.
    """
    first = kernel.symbol("init_task")
    known = [
        name for name in (*compat.SYMBOLS["current"], "this_cpu_off") if name in kernel.symbols
    ]
    if not known:
        raise kernel.missing(*compat.SYMBOLS["runqueues"])
    areas = percpu.offsets(kernel)
    start = (kernel.symbols[known[0]] - MAX_PER_CPU_SEARCH // 2) // kernel.word * kernel.word
    start = max(start, 0)
    comm, pid = kernel.offset("task_struct.comm"), kernel.numeric("task_struct.pid")
    found = {0: first}
    if 0 not in areas:
        return found
    area = PartialBuffer(kernel, (start + areas[0]) & kernel.last, MAX_PER_CPU_SEARCH)
    needle = first.to_bytes(kernel.word, "little")
    for cpu in areas.keys() - {0}:
        name = b"swapper/%d\0" % cpu
        at = area.data.find(needle)
        while at >= 0:
            with suppress(MemoryFault):
                task = kernel.pointer(start + at + areas[cpu])
                if (
                    task not in found.values()
                    and kernel.data(task + comm, COMM_LENGTH).startswith(name)
                    and kernel.read(task, pid) == 0
                ):
                    found[cpu] = task
                    break
            at = area.data.find(needle, at + 1)
        else:
            kernel.warn(f"the idle task of CPU {cpu} is not known")
    return dict(sorted(found.items()))


def _per_run_queue(kernel: Kernel, key: str) -> dict[int, int]:
    """A pointer in the run queue of each CPU that can be read; it may be 0."""
    found = {}
    variable = kernel.symbol("runqueues")
    areas = percpu.areas(kernel)
    queues = {cpu: (variable + at) & kernel.last for cpu, at in areas.items() if at is not None}
    structs = Structs(kernel, queues.values(), [key])
    for cpu in areas:
        with suppress(MemoryFault):
            if cpu in queues:
                found[cpu] = structs.read(queues[cpu], key)
        if cpu not in found:
            # The warnings for both of its members are the same.
            kernel.warn(f"the run queue of CPU {cpu} is not in the dump")
    return found


class TaskStructs:
    """The task_structs at some addresses, read together."""

    _KEYS = (
        "task.stack",
        "task_struct.pid",
        "task_struct.tgid",
        "task.cpu",
        "task.state",
        "task_struct.exit_state",
    )

    def __init__(self, kernel: Kernel, addresses: Iterable[int]) -> None:
        self._kernel = kernel
        self._comm = kernel.offset("task_struct.comm")
        self._tasks = Structs(kernel, addresses, self._KEYS, [(self._comm, COMM_LENGTH)])

    @cached_property
    def _infos(self) -> Structs:
        """The thread_infos, which are at the base of the stacks before 4.9."""
        stacks = self._tasks.values("task.stack")
        return Structs(self._kernel, stacks, ["thread_info.cpu"])

    def task(
        self,
        address: int,
        cpu: int | None = None,
        is_active: bool = False,
        is_idle: bool = False,
    ) -> Task:
        """One of the tasks; MemoryFault if its pid or its name cannot be read."""
        comm = self._tasks.string(address, self._comm, COMM_LENGTH)
        stack = self._tasks.read(address, "task.stack")
        pid = self._tasks.read(address, "task_struct.pid")
        tgid = self._tasks.read(address, "task_struct.tgid")
        # There may be a million tasks: equal values are one object.
        return Task(
            address=address,
            pid=pid,
            tgid=pid if tgid == pid else tgid,
            comm=sys.intern(comm),
            cpu=cpu if cpu is not None else self._cpu(address, stack),
            state=self._optional(address, "task.state"),
            exit_state=self._optional(address, "task_struct.exit_state") or 0,
            stack=stack,
            active=is_active,
            idle=is_idle,
        )

    def _cpu(self, address: int, stack: int) -> int:
        try:
            if self._kernel.has("task.cpu"):
                return self._tasks.read(address, "task.cpu")
            return self._infos.read(stack, "thread_info.cpu")
        except AbsentError:  # without CONFIG_SMP
            return 0

    def _optional(self, address: int, key: str) -> int | None:
        try:
            return self._tasks.read(address, key)
        except AbsentError:
            return None


def state_name(task: Task) -> str:
    """The name of a task's state in the session header."""
    if task.state is None:
        return "unknown"
    # Bits above these two do not mean that it runs.
    return _STATES.get(task.state & 3 or task.state, f"{task.state:#x}")


def find(all_tasks: Sequence[Task], wanted: str) -> list[Task]:
    """The tasks that ``wanted`` selects: a pid in decimal, an address in hex, or a name.

    A name may be in brackets, as ``ps`` prints those of kernel threads. ``kworker`` stands for
    every ``kworker/...`` unless a task has exactly that name.
    """
    if wanted.isascii() and wanted.isdecimal():
        pid = number(wanted)
        by_pid = [task for task in all_tasks if task.pid == pid]
        if by_pid:
            return by_pid
    address = number(wanted, 16)
    names = {wanted}
    if wanted.startswith("[") and wanted.endswith("]"):
        names.add(wanted[1:-1])
    found = [task for task in all_tasks if task.address == address or task.comm in names]
    if found:
        return found
    return [task for task in all_tasks if "/" in task.comm and task.comm.split("/")[0] in names]
