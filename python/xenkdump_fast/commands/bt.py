"""Backtraces of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._native import AbsentError
from ..linux import cpus, panic, tasks
from ..linux.backtrace import Trace, trace
from ..session import Domain


@dataclass(frozen=True, slots=True)
class Backtraces:
    """What ``xkdump bt`` found."""

    dump: str
    domain: int
    word: int
    traces: list[Trace]


def run(
    domain: Domain,
    wanted: Sequence[str] = (),
    *,
    active: bool = False,
    everyone: bool = False,
) -> Backtraces:
    """The backtraces of the ``wanted`` tasks (pids or addresses), else of the panicking one.

    ``active``: of what each CPU was running; ``everyone``: of all tasks. AbsentError where a task
    that was asked for does not exist.
    """
    kernel = domain.kernel
    active_tasks = {}
    for cpu, address in tasks.active(kernel).items():
        try:
            active_tasks[cpu] = tasks.read(kernel, address, cpu, is_active=True)
        except AbsentError as error:
            kernel.warn(
                f"the task at {address:#x}, which CPU {cpu} was running, cannot be read: {error}"
            )
    contexts = cpus.assign(kernel, active_tasks)
    if everyone or wanted:
        chosen = tasks.tasks(kernel)
        if wanted:
            named: dict[int, tasks.Task] = {}
            for name in wanted:
                found = tasks.find(kernel, chosen, name)
                if not found:
                    raise AbsentError(f"{domain.dump.path}: domain {domain.id} has no task {name}")
                named.update((task.address, task) for task in found)
            chosen = list(named.values())
    elif active:
        chosen = [active_tasks[cpu] for cpu in sorted(active_tasks)]
    else:
        culprit = panic.task(kernel, active_tasks, contexts)
        if culprit is None:
            kernel.warn("no CPU's stack shows a panic: the active tasks follow")
            chosen = [active_tasks[cpu] for cpu in sorted(active_tasks)]
        else:
            chosen = [culprit]
    running = {task.address: contexts.get(cpu) for cpu, task in active_tasks.items()}
    return Backtraces(
        dump=domain.dump.path,
        domain=domain.id,
        word=kernel.word,
        traces=[trace(kernel, task, running.get(task.address)) for task in chosen],
    )
