"""Backtraces of tasks."""

from collections.abc import Sequence
from typing import NamedTuple

from .._native import AbsentError
from ..lazy import Lazy
from ..linux import panic, tasks
from ..linux.backtrace import Trace
from ..session import Domain


class Backtraces(NamedTuple):
    """What ``xkdump bt`` found."""

    dump: str
    domain: int
    word: int
    traces: Sequence[Trace]


def run(
    domain: Domain,
    wanted: Sequence[str] = (),
    *,
    active: bool = False,
    everyone: bool = False,
) -> Backtraces:
    """The backtraces of the ``wanted`` tasks (pids or addresses), else of the panicking one.

    ``active``: of what each CPU was running; ``everyone``: of all tasks. AbsentError where a task
    that was asked for does not exist, or no task can be read.
    """
    kernel = domain.kernel
    if wanted:
        everybody = kernel.tasks()
        named: dict[int, tasks.Task] = {}
        for name in wanted:
            found = tasks.find(everybody, name)
            if not found:
                raise AbsentError(f"{domain.dump.path}: domain {domain.id} has no task {name}")
            named.update((task.address, task) for task in found)
        chosen = list(named.values())
    elif everyone:
        chosen = kernel.tasks()
    else:
        culprit = None if active else panic.task(kernel)
        if culprit is None and not active:
            kernel.warn("no CPU's stack shows a panic: the active tasks follow")
        chosen = [culprit] if culprit else [kernel.active[cpu] for cpu in sorted(kernel.active)]
    if not chosen:
        whose = "no task" if everyone else "no task that a CPU was running"
        raise AbsentError(f"{domain.dump.path}: domain {domain.id}: {whose} can be read")
    _ = kernel.unwinder  # what is wrong with the image is said here
    return Backtraces(
        dump=domain.dump.path,
        domain=domain.id,
        word=kernel.word,
        traces=Lazy(
            chosen,
            kernel.backtrace,
            "task",
            name=lambda task: f"task {task.pid} at {task.address:#x} has no backtrace",
            warn=kernel.warn,
        ),
    )
