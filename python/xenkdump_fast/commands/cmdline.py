"""``cmdline``: the command line of the kernel, or those of processes."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict
from ..isolation import isolated
from ..limits import MAX_ARGUMENTS
from ..linux import command_line
from ..linux.structs import Structs, batches
from ..linux.tasks import Task
from ..output.escape import visible
from ..output.json_types import Count
from ..session import Domain
from .contract import Operands, UsageError
from .selection import Selection, select

#: Where the arguments of a process are.
_MEMBERS = ("mm_struct.arg_start", "mm_struct.arg_end", "mm_struct.pgd")


OPERANDS = Operands("PID|TASK|COMM", "processes, in place of the kernel")


class Options(NamedTuple):
    """Whose command line; by default the kernel's."""

    #: Pids, addresses of tasks in hex, or names.
    operands: Sequence[str] = ()
    #: Every process.
    all: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``cmdline``."""
    parser.add_argument("--all", action="store_true", help="every process with user space")


def run(target: Domain, options: Options = Options()) -> "CommandLine | CommandLines":
    """Reads the command lines; AbsentError if the dump does not hold the kernel's."""
    kernel = target.kernel
    if options.all or options.operands:
        return _processes(target, options)
    line = command_line.read(kernel)
    if line is None:
        raise AbsentError(f"{target.dump.path}: domain {target.id}: saved_command_line is NULL")
    return CommandLine(target.id, line)


def _processes(domain: Domain, options: Options) -> "CommandLines":
    if options.all and options.operands:
        raise UsageError("argument --all: not allowed with a pid or a task")
    kernel = domain.kernel
    tasks = kernel.tasks()
    chosen = Selection([task for task in tasks if task.pid == task.tgid], None)
    if options.operands:
        chosen = select(domain, tasks, options.operands)
    found = []
    for batch in batches(chosen.tasks):
        structs = Structs(kernel, [task.address for task in batch], ["task_struct.mm"])
        mms = Structs(kernel, filter(None, structs.values("task_struct.mm")), _MEMBERS)
        for task in batch:
            what = f"the command line of task {task.pid} cannot be read"
            with isolated(what, kernel.warn):
                arguments = _arguments(domain, task, structs, mms)
                if arguments is not None or not options.all:
                    found.append(Process(task, arguments))
    return CommandLines(domain.id, found, chosen.failure)


def _arguments(domain: Domain, task: Task, structs: Structs, mms: Structs) -> list[str] | None:
    """The arguments of a process as the kernel put them on its stack; None without user space.

    A process may have written over them, as those do that show their state in them.
    """
    mm = 0 if task.exit_state else structs.read(task.address, "task_struct.mm")
    if not mm:
        return None
    start, end, page_table = (mms.read(mm, member) for member in _MEMBERS)
    size = min(max(end - start, 0), MAX_ARGUMENTS)
    data = domain.address_space(page_table).read(start, size)
    texts = data.removesuffix(b"\0").split(b"\0")
    return [text.decode("utf-8", "backslashreplace") for text in texts]


class ProcessJson(TypedDict):
    """A process. ``arguments`` is null if it has no user space."""

    pid: Count
    comm: str
    arguments: list[str] | None


class JSON(TypedDict):
    """What ``cmdline --json`` prints: ``processes`` if some were asked for."""

    domain: Count
    command_line: NotRequired[str]
    processes: NotRequired[list[ProcessJson]]


class CommandLine(NamedTuple):
    """The command line of a kernel, as in /proc/cmdline."""

    domain: int
    line: str

    def text(self) -> Iterator[str]:
        """The line."""
        yield visible(self.line)

    def json(self) -> JSON:
        """The domain and the line."""
        return {"domain": self.domain, "command_line": self.line}


class Process(NamedTuple):
    """A process and its arguments; None if it has no user space."""

    task: Task
    arguments: Sequence[str] | None


class CommandLines(NamedTuple):
    """The command lines of processes."""

    domain: int
    processes: Sequence[Process]
    failure: str | None

    def text(self) -> Iterator[str]:
        """A line for each: the pid and the arguments; of a kernel thread its name in brackets."""
        width = max((len(str(task.pid)) for task, _ in self.processes), default=1)
        for task, arguments in self.processes:
            shown = f"[{task.comm}]" if arguments is None else " ".join(arguments)
            yield f"{task.pid:{width}}  {visible(shown)}"

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "processes": [_json(one) for one in self.processes]}


def _json(process: Process) -> ProcessJson:
    task, arguments = process
    found = None if arguments is None else list(arguments)
    return {"pid": task.pid, "comm": task.comm, "arguments": found}
