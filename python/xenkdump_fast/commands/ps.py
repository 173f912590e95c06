"""``ps``: the tasks and their use of memory, in crash's columns."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from .._native import AbsentError
from .._typing import NamedTuple, TypedDict, overload
from ..isolation import isolated
from ..linux import mm, states, task_table, tasks
from ..linux.kernel import Kernel
from ..linux.structs import BATCH, Structs, batches
from ..output.escape import visible
from ..output.json_types import Count, Hex, Stream
from ..progress import each
from ..session import Domain
from .contract import Operands
from .selection import select

PAGE = 4096
#: A value that is not known, in the text; null in JSON.
_UNKNOWN = "?"
OPERANDS = Operands("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name")


class Options(NamedTuple):
    """The tasks to list."""

    #: Pids, addresses or command names; all tasks without any.
    operands: Sequence[str] = ()
    #: Only tasks in this state, in crash's two letters.
    state: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``ps``."""
    parser.add_argument(
        "--state", type=str.upper, choices=states.LETTERS, help="only tasks in this state"
    )


class Process(NamedTuple):
    """One line of ``ps``."""

    task: tasks.Task
    #: None if the parent cannot be read.
    ppid: int | None
    #: crash's two letters.
    state: str
    #: Whether it has no user space.
    kernel_thread: bool
    #: Virtual and resident memory, in bytes; None if it is not known.
    vsz: int | None
    rss: int | None
    #: Resident memory in per cent of all memory; None if either is not known.
    percent: float | None


def run(target: Domain, options: Options = Options()) -> "Processes":
    """Lists tasks; AbsentError if no requested one exists or none can be read."""
    kernel = target.kernel
    all_tasks = task_table.read(kernel)
    if not all_tasks:
        raise AbsentError(f"{target.dump.path}: domain {target.id}: no task can be read")
    known = states.of(kernel)
    chosen: Sequence[tasks.Task] = all_tasks
    failure: str | None = None
    if options.operands:
        named, failure = select(target, all_tasks, options.operands)
        addresses = {task.address for task in named}
        chosen = [task for task in all_tasks if task.address in addresses]
    if options.state is not None:
        chosen = [task for task in chosen if states.letters(task, known) == options.state]
    return Processes(target.id, kernel.word, _Listed(kernel, all_tasks, chosen), failure)


class _Listed(Sequence[Process]):
    """The lines of some tasks, read in batches when they are needed: there may be a million."""

    def __init__(
        self, kernel: Kernel, all_tasks: Sequence[tasks.Task], chosen: Sequence[tasks.Task]
    ) -> None:
        self._kernel = kernel
        self._chosen = chosen
        self._states = states.of(kernel)
        self._use = mm.MemoryUse(kernel, all_tasks)
        try:
            self._pages = mm.total_pages(kernel)
        except AbsentError as error:
            kernel.warn(f"%MEM is not known: {error}")
            self._pages = 0

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Process: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Process]: ...

    def __getitem__(self, index: int | slice) -> Process | Sequence[Process]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._read([self._chosen[index]])(self._chosen[index])

    def __iter__(self) -> Iterator[Process]:
        """All of them; a task that cannot be read is left out, with a warning."""
        read: Callable[[tasks.Task], Process] | None = None
        for i, task in enumerate(each(self._chosen, "task")):
            if read is None or i % BATCH == 0:
                read = self._read(list(self._chosen[i : i + BATCH]))
            what = f"task {task.pid} at {task.address:#x} is left out"
            with isolated(what, self._kernel.warn):
                yield read(task)

    def _read(self, batch: Sequence[tasks.Task]) -> "Callable[[tasks.Task], Process]":
        """Returns a function that formats one of these tasks, whose members are read together."""
        used = self._use.of(batch)
        kernel_threads = mm.kernel_threads(self._kernel, batch, self._states)
        parents = _parents(self._kernel, batch)

        def line(task: tasks.Task) -> Process:
            is_thread = task.address in kernel_threads
            memory = used.get(task.address)
            if is_thread and (memory is None or not memory.resident):
                memory = mm.NONE
            total = None if memory is None else memory.total
            resident = None if memory is None else memory.resident
            return Process(
                task=task,
                ppid=parents.get(task.address),
                state=states.letters(task, self._states),
                kernel_thread=is_thread,
                vsz=None if total is None else total * PAGE,
                rss=None if resident is None else resident * PAGE,
                percent=_percent(resident, self._pages),
            )

        return line


def _percent(resident: int | None, pages: int) -> float | None:
    """The percentage of all ``pages``, whose number is 0 if it is not known."""
    if resident == 0:
        return 0.0
    return None if resident is None or not pages else resident * 100 / pages


def _parents(kernel: Kernel, chosen: Sequence[tasks.Task]) -> dict[int, int]:
    """The pid of each task's parent by the task's address, as far as it can be read."""
    found = {}
    for batch in batches(task.address for task in chosen):
        structs = Structs(kernel, batch, ["task_struct.parent"])
        parents = Structs(kernel, structs.values("task_struct.parent"), ["task_struct.pid"])
        for address in batch:
            with suppress(AbsentError):
                parent = structs.read(address, "task_struct.parent")
                found[address] = parents.read(parent, "task_struct.pid")
    return found


class TaskJson(TypedDict):
    """One line of ``ps``."""

    pid: int
    tgid: int
    ppid: int | None
    task: Hex
    cpu: Count
    comm: str
    state: str
    running: bool
    kernel_thread: bool
    vsz: Count | None
    rss: Count | None
    percent_of_memory: float | None


class JSON(TypedDict):
    """What ``ps --json`` prints."""

    domain: Count
    tasks: Stream[TaskJson]


class Processes(NamedTuple):
    """Tasks and their use of memory."""

    domain: int
    word: int
    #: Read on demand.
    processes: Sequence[Process]
    #: Which operands name no task.
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """A heading, then a line per task as crash prints it."""
        width = self.word * 2
        yield f"      PID    PPID  CPU {'TASK':^{width}}  ST  %MEM      VSZ      RSS  COMM"
        for process in self.processes:
            yield _line(process, width)

    def json(self) -> JSON:
        """The domain and its tasks."""
        return {
            "domain": self.domain,
            "tasks": map(_process_json, self.processes),
        }


def _line(process: Process, width: int) -> str:
    task = process.task
    comm = visible(task.comm)
    ppid = _UNKNOWN if process.ppid is None else process.ppid
    percent = _UNKNOWN if process.percent is None else f"{process.percent:.1f}"
    return (
        f"{'>' if task.active else ' '} {task.pid:>7} {ppid:>7} {task.cpu:>3}  "
        f"{task.address:0{width}x} {process.state:>3}  {percent:>4} "
        f"{_kib(process.vsz):>8} {_kib(process.rss):>8}  "
        f"{f'[{comm}]' if process.kernel_thread else comm}"
    )


def _kib(size: int | None) -> str:
    return _UNKNOWN if size is None else str(size // 1024)


def _process_json(process: Process) -> TaskJson:
    task = process.task
    return {
        "pid": task.pid,
        "tgid": task.tgid,
        "ppid": process.ppid,
        "task": hex(task.address),
        "cpu": task.cpu,
        "comm": task.comm,
        "state": process.state,
        "running": task.active,
        "kernel_thread": process.kernel_thread,
        "vsz": process.vsz,
        "rss": process.rss,
        "percent_of_memory": None if process.percent is None else round(process.percent, 3),
    }
