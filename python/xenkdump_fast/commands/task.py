"""``task``: the task_struct and the thread_info of tasks."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import Any, NamedTuple, NotRequired, TypedDict
from ..linux import panic, tasks
from ..linux.system import Linux
from ..linux.typed import printing, types
from ..linux.typed.value import Value
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..session import Domain
from ..suggestions import UnknownNameError
from . import struct
from .contract import Operands
from .selection import Selection, select

OPERANDS = Operands("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name")
_STRUCTS = ("task_struct", "thread_info")


class Options(NamedTuple):
    """Which tasks, and what of them."""

    #: Pids, or addresses of tasks in hex; the panicking task without any.
    operands: Sequence[str] = ()
    #: Members of task_struct or thread_info, separated by commas; all if None.
    members: str | None = None
    #: Numbers in hex.
    hex: bool = False
    #: The shell's current task, in place of the panicking one.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``task``."""
    parser.add_argument(
        "-R",
        "--members",
        metavar="MEMBER,...",
        help="these members of task_struct or thread_info only",
    )
    parser.add_argument("-x", "--hex", action="store_true", help="numbers in hex")


def run(target: Domain, options: Options = Options()) -> "TaskStructs":
    """The structs of tasks, by default of the panicking one.

    AbsentError if no task exists, or if a member does not.
    """
    kernel = target.kernel
    _ = kernel.unwinder  # loads the symbols of modules, which name addresses
    graph = kernel.types.graph
    structs = [graph.find(name) for name in _STRUCTS]
    members = [(path, _owner(structs, path)) for path in (options.members or "").split(",") if path]
    chosen, failure = _chosen(target, options)
    found = []
    for task in chosen:
        values = [Value(kernel, structs[0], task.address)]
        values[0].data(1)
        if not members or any(owner for _, owner in members):
            address = _thread_info(kernel, task, structs[0], structs[1])
            values.append(Value(kernel, structs[1], address))
        found.append(Structs(task, values))
    return TaskStructs(kernel.word, found, members, options.hex, failure)


def _owner(structs: Sequence[types.CType], path: str) -> int:
    """Which of the structs has a member; AbsentError if none has."""
    for number, of in enumerate(structs):
        try:
            struct.place(of, path)
        except AbsentError:
            continue
        return number
    text = f"{path}: not a member of task_struct or thread_info"
    raise UnknownNameError(
        text, path.partition(".")[0], lambda: [name for of in structs for name in types.names(of)]
    )


def _chosen(domain: Domain, options: Options) -> Selection:
    kernel = domain.kernel
    operands = options.operands or (() if options.task is None else (options.task,))
    if operands:
        return select(domain, kernel.tasks(), operands)
    panic_task = panic.task(kernel)
    if panic_task is not None:
        return Selection([panic_task], None)
    if not kernel.active:
        why = "no task that a CPU was running can be read"
        raise AbsentError(f"{domain.dump.path}: domain {domain.id}: {why}")
    kernel.warn("no CPU's stack shows a panic: the active task of the first CPU follows")
    return Selection([kernel.active[min(kernel.active)]], None)


def _thread_info(
    kernel: Linux, task: tasks.Task, task_struct: types.CType, thread_info: types.CType
) -> int:
    """The address of a task's thread_info.

    It is in task_struct (CONFIG_THREAD_INFO_IN_TASK, x86 since 4.9, 15f4eae70d36), else at the base
    of the stack.
    """
    try:
        found = types.member(task_struct, "thread_info")
    except AbsentError:
        return task.stack
    if types.kind(found.type) == "ptr":  # before 2.6.22, f7e4217b007d
        return Value(kernel, found.type, task.address + found.bits // 8).integer()
    return task.address + found.bits // 8 & kernel.last


class TaskJson(TypedDict):
    """A task: both structs, or the chosen members by their names."""

    pid: int
    task: Hex
    cpu: Count
    comm: str
    task_struct: NotRequired[Any]
    thread_info: NotRequired[Any]
    members: NotRequired[dict[str, Any]]


class JSON(TypedDict):
    """What ``task --json`` prints."""

    tasks: list[TaskJson]


class Structs(NamedTuple):
    """The structs of a task."""

    task: tasks.Task
    #: Of ``_STRUCTS``, the second one if it is needed.
    values: Sequence[Value]


class TaskStructs(NamedTuple):
    """The structs of tasks."""

    word: int
    found: Sequence[Structs]
    #: Members to print, and which struct has each; all if empty.
    members: Sequence[tuple[str, int]]
    hex: bool
    failure: str | None

    def text(self) -> Iterator[str]:
        """Each task with its structs as crash prints them, separated by empty lines."""
        style = printing.Style(16 if self.hex else 10)
        parts = types.Parts()
        for i, (task, values) in enumerate(self.found):
            if i:
                yield ""
            yield (
                f"PID: {task.pid:<7}  TASK: {task.address:0{self.word * 2}x}  CPU: {task.cpu:<3}  "
                f'COMMAND: "{visible(task.comm)}"'
            )
            for path, owner in self.members:
                yield from struct.shown(values[owner], [path], style, parts)
            for j, value in enumerate(() if self.members else values):
                if j:
                    yield ""
                yield from struct.shown(value, (), style, parts)

    def json(self) -> JSON:
        """The same."""
        parts = types.Parts()
        return {"tasks": [self._json(one, parts) for one in self.found]}

    def _json(self, one: Structs, parts: types.Parts) -> TaskJson:
        task, values = one
        found: TaskJson = {
            "pid": task.pid,
            "task": hex(task.address),
            "cpu": task.cpu,
            "comm": task.comm,
        }
        if self.members:
            found["members"] = {}
            for path, owner in self.members:
                plain = struct.plain(values[owner], [path], parts)
                assert isinstance(plain, dict)
                found["members"].update(plain)
        else:
            found["task_struct"] = struct.plain(values[0], (), parts)
            found["thread_info"] = struct.plain(values[1], (), parts)
        return found
