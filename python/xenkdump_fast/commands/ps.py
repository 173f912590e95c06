"""The tasks, and what each uses."""

from collections.abc import Sequence
from typing import NamedTuple

from .._native import AbsentError
from ..isolation import isolated
from ..linux import mm, states, tasks
from ..linux.kernel import Kernel
from ..progress import each
from ..session import Domain

PAGE = 4096


class Process(NamedTuple):
    """One line of ``ps``."""

    task: tasks.Task
    #: None where the parent cannot be read.
    ppid: int | None
    #: crash's two letters.
    state: str
    #: It has no user space of its own.
    kernel_thread: bool
    #: Virtual and resident memory, in bytes.
    vsz: int
    rss: int
    #: What share of all memory is resident, in per cent.
    percent: float


class Processes(NamedTuple):
    """What ``xkdump ps`` found."""

    domain: int
    word: int
    processes: list[Process]


def run(domain: Domain, wanted: Sequence[str] = ()) -> Processes:
    """All tasks, else those ``wanted`` (pids, addresses, command names); AbsentError for none."""
    kernel = domain.kernel
    everyone = tasks.tasks(kernel)
    if not everyone:
        raise AbsentError(f"{domain.dump.path}: domain {domain.id}: no task can be read")
    used = mm.usage(kernel, everyone)
    try:
        pages = mm.total_pages(kernel)
    except AbsentError as error:
        kernel.warn(f"%MEM is not known: {error}")
        pages = 0
    known = states.of(kernel)
    chosen = everyone
    if wanted:
        found: dict[int, tasks.Task] = {}
        for name in wanted:
            named = tasks.find(everyone, name)
            if not named:
                raise AbsentError(f"{domain.dump.path}: domain {domain.id} has no task {name}")
            found.update((task.address, task) for task in named)
        chosen = [task for task in everyone if task.address in found]
    processes = []
    for task in each(chosen, "task"):
        with isolated(f"task {task.pid} at {task.address:#x} is left out", kernel.warn):
            processes.append(_process(kernel, task, used.get(task.address), pages, known))
    return Processes(domain.id, kernel.word, processes)


def _process(
    kernel: Kernel, task: tasks.Task, used: mm.Usage | None, pages: int, known: states.States
) -> Process:
    try:
        ppid = kernel.read(kernel.read(task.address, "task_struct.parent"), "task_struct.pid")
    except AbsentError:
        ppid = None
    try:
        kernel_thread = mm.is_kernel_thread(kernel, task, known)
    except AbsentError:
        kernel_thread = False
    if kernel_thread and (used is None or used.resident == 0):
        used = None
    return Process(
        task=task,
        ppid=ppid,
        state=states.letters(task, known),
        kernel_thread=kernel_thread,
        vsz=used.total * PAGE if used else 0,
        rss=used.resident * PAGE if used else 0,
        percent=used.resident * 100 / pages if used and pages else 0.0,
    )
