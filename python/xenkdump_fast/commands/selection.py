"""Selects tasks by the operands of a command."""

from collections.abc import Callable, Sequence

from .._native import AbsentError
from .._typing import NamedTuple
from ..linux import tasks
from ..output.escape import visible
from ..session import Domain


class Selection(NamedTuple):
    """The tasks that the operands name."""

    tasks: Sequence[tasks.Task]
    #: Which operands name no task; None if all do.
    failure: str | None


def select(domain: Domain, all_tasks: Sequence[tasks.Task], operands: Sequence[str]) -> Selection:
    """The tasks in the order of the operands, each once; AbsentError if there are none."""
    found: dict[int, tasks.Task] = {}

    def add(name: str) -> None:
        named = tasks.find(all_tasks, name)
        if not named:
            from ..suggestions import UnknownNameError  # only for errors

            text = f"{domain.dump.path}: domain {domain.id} has no task {name}"
            raise UnknownNameError(text, name, lambda: (task.comm for task in all_tasks))
        found.update((task.address, task) for task in named)

    failure = for_each(operands, add)
    return Selection(list(found.values()), failure)


def chosen(
    domain: Domain, operands: Sequence[str], task: str | None, *, everyone: bool = False
) -> Selection:
    """The tasks that operands name, else the shell's current one, else the panicking one.

    With ``everyone`` it is every process. AbsentError if there is none.
    """
    all_tasks = domain.kernel.tasks()
    if everyone:
        return Selection([one for one in all_tasks if one.pid == one.tgid and not one.idle], None)
    operands = operands or ([task] if task is not None else [])
    if operands:
        return select(domain, all_tasks, operands)
    from ..linux import panic

    dying = panic.task(domain.kernel)
    if dying is None:
        raise AbsentError(
            f"{domain.dump.path}: domain {domain.id}: no task has panicked: name a task, or --all"
        )
    return Selection([dying], None)


def heading(task: tasks.Task) -> str:
    """The line above the output for a task, as crash prints it."""
    return (
        f"PID: {task.pid:<6}  TASK: {task.address:x}  CPU: {task.cpu:<2}  "
        f'COMMAND: "{visible(task.comm)}"'
    )


def for_each(operands: Sequence[str], use: Callable[[str], None]) -> str | None:
    """Uses every operand, and returns why some cannot be used: a result's ``failure``.

    AbsentError if none of them can be used.
    """
    problems: list[str] = []
    for operand in operands:
        try:
            use(operand)
        except AbsentError as error:
            problems.append(str(error))
    if not problems:
        return None
    failure = "; ".join(dict.fromkeys(problems))
    if len(problems) == len(operands):
        raise AbsentError(failure)
    return failure
