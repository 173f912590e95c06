"""The commands of the shell itself: domain, set, help, alias, exit."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import arguments
from .._native import AbsentError
from ..commands.contract import UsageError
from ..commands.selection import select
from ..job import ExitStatus
from ..linux import panic, tasks
from ..output import writer
from ..output.escape import visible
from ..output.table import table
from ..output.writer import Writer
from . import filters, parser
from .line import tokens
from .state import State, available

if TYPE_CHECKING:
    from ..linux.tasks import Task
    from ..session import Domain


class LeaveError(Exception):
    """The shell is to be left."""


#: Runs a command, given by its words, with the same output.
Run = Callable[[Sequence[str]], int]


class Builtin(NamedTuple):
    """A command of the shell itself."""

    usage: str
    summary: str
    run: Callable[[State, Sequence[str], Writer, Run], int]


def _domain(state: State, words: Sequence[str], output: Writer, run: Run) -> int:
    if not words:
        return run(["domains"])
    (name,) = _taken(words, "domain", 1)
    where = state.session.place(name)
    if isinstance(where, int):
        state.session.domain(where)
    state.session.context.where = where
    return ExitStatus.OK


def _set(state: State, words: Sequence[str], output: Writer, run: Run) -> int:
    session = state.session
    if words[:1] == ["scroll"]:
        if len(words) == 2 and words[1] in ("on", "off"):
            state.scroll = words[1] == "on"
        elif len(words) > 1:
            raise UsageError("set scroll: on or off")
        output.text([f"scroll: {'on' if state.scroll else 'off'}"])
        return ExitStatus.OK
    domain = session.current
    if domain is None:
        raise UsageError(f"set needs a domain, not {session.context.where}: 'domain ID'")
    if words:
        session.context.tasks[domain.id] = _chosen(domain, words)
    task = session.context.tasks.get(domain.id) or panic.task(domain.kernel)
    if task is None:
        raise AbsentError("no task has been chosen, and no CPU's stack shows a panic")
    output.text(_shown(domain, task))
    return ExitStatus.OK


def _chosen(domain: "Domain", words: Sequence[str]) -> "Task":
    """The task that ``set`` is given."""
    kernel = domain.kernel
    if words[0] == "-p":
        _taken(words[1:], "set", 0)
        task = panic.task(kernel)
        if task is None:
            raise AbsentError("no CPU's stack shows a panic")
        return task
    if words[0] == "-c":
        (text,) = _taken(words[1:], "set -c", 1)
        for cpu, task in kernel.active.items():
            if text == str(cpu):
                return task
        raise AbsentError(f"no task of CPU {text} is known")
    (name,) = _taken(words, "set", 1)
    found = select(domain, kernel.tasks(), [name]).tasks
    if len(found) > 1:
        pids = ", ".join(str(task.pid) for task in found[:8])
        raise AbsentError(f"{name} names {len(found)} tasks: {pids}{', ...' * (len(found) > 8)}")
    return found[0]


def _shown(domain: "Domain", task: "Task") -> Iterator[str]:
    yield f"    PID: {task.pid}"
    yield f'COMMAND: "{visible(task.comm)}"'
    yield f"   TASK: {task.address:0{domain.kernel.word * 2}x}"
    yield f"    CPU: {task.cpu}"
    yield f"  STATE: {tasks.state_name(task)}"


def _help(state: State, words: Sequence[str], output: Writer, run: Run) -> int:
    if not words:
        output.text(_overview(state))
        return ExitStatus.OK
    for name in words:
        if name in TABLE:
            builtin = TABLE[name]
            output.text([f"usage: {builtin.usage}", "", builtin.summary])
        elif name in filters.NAMES:
            output.text(filters.parser_of(name).format_help().rstrip("\n").split("\n"))
        elif name in available():
            command = available()[name]
            text = parser.parser_of(command, arguments.command_module(command)).format_help()
            output.text(text.rstrip("\n").split("\n"))
        elif name in state.aliases:
            output.text([f"{name}: an alias of {' '.join(state.aliases[name])}"])
        else:
            raise UsageError(f"help: no command {name}")
    return ExitStatus.OK


def _overview(state: State) -> Iterator[str]:
    yield "Commands ('help COMMAND' has the options of one):"
    rows = [(name, command.summary) for name, command in available().items()]
    yield from _indented(rows)
    yield ""
    yield "Of the shell:"
    yield from _indented([(builtin.usage, builtin.summary) for builtin in TABLE.values()])
    yield ""
    yield "Filters after a |:"
    pager = ("less, more", "the output by pages")
    yield from _indented([*filters.NAMES.items(), pager])
    yield ""
    yield "Output to a file: > FILE (a new one), >! FILE (replaced), >> FILE (appended)"


def _indented(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    return (f"  {line}" for line in table(rows, ()))


def _alias(state: State, words: Sequence[str], output: Writer, run: Run) -> int:
    if not words:
        output.text(table([(name, *[" ".join(to)]) for name, to in state.aliases.items()], ()))
        return ExitStatus.OK
    name, *to = words
    # alias NAME 'COMMAND ARGUMENT'
    expanded = [token.text for word in to for token in tokens(word)] if len(to) == 1 else to
    if not expanded:
        raise UsageError("alias: NAME COMMAND")
    if name in TABLE:
        raise UsageError(f"alias: {name} is a command of the shell")
    state.aliases[name] = expanded
    return ExitStatus.OK


def _unalias(state: State, words: Sequence[str], output: Writer, run: Run) -> int:
    (name,) = _taken(words, "unalias", 1)
    if state.aliases.pop(name, None) is None:
        raise UsageError(f"unalias: no alias {name}")
    return ExitStatus.OK


def _exit(state: State, words: Sequence[str], output: Writer, run: Run) -> int:
    raise LeaveError


def _taken(words: Sequence[str], name: str, count: int) -> Sequence[str]:
    if len(words) != count:
        usage = TABLE[name.split(maxsplit=1)[0]].usage
        raise UsageError(f"{name}: {len(words)} arguments, {count} expected; usage: {usage}")
    return words


TABLE = {
    "domain": Builtin(
        "domain [ID|NAME|hypervisor|all]",
        "the domain that commands are about; without an argument, all of them",
        _domain,
    ),
    "set": Builtin(
        "set [PID|TASK|COMM | -c CPU | -p | scroll on|off]",
        "the current task, which bt, vtop and others use; whether long output is shown by pages",
        _set,
    ),
    "help": Builtin("help [COMMAND ...]", "the commands; the options of one", _help),
    "alias": Builtin("alias [NAME COMMAND [ARGUMENT ...]]", "another name of a command", _alias),
    "unalias": Builtin("unalias NAME", "removes it", _unalias),
    "exit": Builtin("exit", "leaves the shell; also quit, q, Ctrl-D", _exit),
}


def escape(state: State, command: str) -> int:
    """Runs a line of the system's shell, if that is allowed."""
    if not state.escapes:
        writer.error("! needs the option --shell-escapes")
        return ExitStatus.USAGE
    sys.stdout.flush()
    words = [os.environ.get("SHELL") or "/bin/sh", *(["-c", command] if command else [])]
    try:
        done = subprocess.run(words, check=False)
    except OSError as error:
        writer.error(f"{words[0]}: {error.strerror or error}")
        return ExitStatus.ABSENT
    return ExitStatus.OK if done.returncode == 0 else ExitStatus.ABSENT
