"""``bt``: backtraces of tasks, and of pCPUs in Xen."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict, overload
from ..linux import states
from ..linux.backtrace import Trace
from ..linux.stack_groups import SORTS, Group, grouped
from ..output.escape import visible
from ..output.frames import (
    FrameJson,
    XenFrameJson,
    frame_json,
    place,
    registers_json,
    xen_frame_json,
)
from ..output.json_types import Count, Hex, Registers, Stream
from ..output.lazy import Lazy
from ..output.registers import exception_frame
from ..session import Domain
from . import stack_groups, unwinding
from .contract import Operands, UsageError
from .selection import Selection, select

if TYPE_CHECKING:
    from .._native import Frame
    from ..xen.host import XenHost
    from ..xen.stacks import PcpuTrace
    from .source_lines import Finder, Line

OPERANDS = Operands("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name")
#: DOMID_IDLE, the domain of the idle vCPUs.
_IDLE = 0x7FFF


class Options(NamedTuple):
    """What to unwind."""

    #: Pids, or addresses of tasks in hex.
    operands: Sequence[str] = ()
    #: The tasks that the CPUs were running.
    active: bool = False
    #: Every task.
    all: bool = False
    #: Every task in this state, in crash's two letters.
    state: str | None = None
    #: Equal stacks once, with their tasks.
    group: bool = False
    #: The order of these groups, of ``SORTS``; None for the default.
    sort: str | None = None
    #: With source lines.
    lines: bool = False
    #: Limits Xen's unwinder to these methods; a domain is opened with its own.
    unwind: Sequence[str] | None = None
    #: The shell's current task, in place of the panicking one.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``bt``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-a", "--active", action="store_true", help="what every CPU was running")
    which.add_argument("--all", action="store_true", help="every task")
    which.add_argument(
        "--state", type=str.upper, choices=states.LETTERS, help="every task in this state"
    )
    parser.add_argument(
        "--group", action="store_true", help="equal stacks once, with their number and their tasks"
    )
    parser.add_argument(
        "--sort",
        choices=SORTS,
        help=f"the order of these; the default is {SORTS[0]}, the most frequent first",
    )
    parser.add_argument(
        "-l", "--lines", action="store_true", help="with source lines, if there is DWARF"
    )
    unwinding.add_option(parser)


@overload
def run(target: Domain, options: Options = ...) -> "Backtraces": ...


@overload
def run(target: "XenHost", options: Options = ...) -> "XenBacktraces": ...


def run(target: "Domain | XenHost", options: Options = Options()) -> "Backtraces | XenBacktraces":
    """The backtraces of the chosen tasks, by default the panicking one; in Xen of every pCPU.

    AbsentError if no chosen task exists, or if no task can be read.
    """
    if options.sort is not None and not options.group:
        raise UsageError("argument --sort: needs --group")
    if options.lines and options.group:
        raise UsageError("argument -l/--lines: not allowed with argument --group")
    finder, warnings = _finder(target, options)
    if not isinstance(target, Domain):
        for option, is_given in (
            ("--all", options.all),
            ("--state", options.state is not None),
            ("--group", options.group),
        ):
            if is_given:
                raise UsageError(f"argument {option}: not allowed with argument --hypervisor")
        # What the pCPUs were running, as with --active, is all that there is.
        from ..xen import stacks

        return XenBacktraces(target.word, stacks.traces(target, options.unwind), finder, warnings)
    if options.operands and (options.active or options.all or options.state is not None):
        option = "--all" if options.all else "-a/--active" if options.active else "--state"
        raise UsageError(f"argument {option}: not allowed with a pid or a task")
    kernel = target.kernel
    chosen, failure = _chosen(target, options)
    if not chosen:
        if options.state is not None:
            why = f"no task is in state {options.state}"
            raise AbsentError(f"{target.dump.path}: domain {target.id}: {why}")
        whose = "no task" if options.all else "no task that a CPU was running"
        raise AbsentError(f"{target.dump.path}: domain {target.id}: {whose} can be read")
    traces = Lazy(
        chosen,
        kernel.tracer(chosen),
        "task",
        problem=lambda task: f"task {task.pid} at {task.address:#x} has no backtrace",
        warn=kernel.warn,
    )
    groups = None
    if options.group:
        groups = grouped(traces, chosen, options.sort or SORTS[0])
    return Backtraces(target.id, kernel.word, traces, failure, groups, finder, warnings)


def _finder(target: "Domain | XenHost", options: Options) -> "tuple[Finder | None, Sequence[str]]":
    """The source lines, if they are asked for and there are any; warnings."""
    if not options.lines:
        return None, ()
    from . import source_lines

    try:
        finder = source_lines.finder(target)
    except AbsentError as error:
        return None, [str(error)]
    return finder, finder.warnings


def _lines(frames: "Sequence[Frame]", finder: "Finder | None") -> "Sequence[Line | None]":
    """The source line of each frame: of its call, or of the interrupted instruction."""
    if finder is None:
        return [None] * len(frames)
    # A return address may be that of the next line, or of the next function. At the start of a
    # function it is no address behind a call: ret_from_fork.
    calls = (not frame.interrupted and frame.offset > 0 for frame in frames)
    found = finder.find([f.pc - is_call for f, is_call in zip(frames, calls, strict=True)])
    return [None if f.user else line for f, line in zip(frames, found, strict=True)]


def _chosen(domain: Domain, options: Options) -> Selection:
    kernel = domain.kernel
    if options.operands:
        return select(domain, kernel.tasks(), options.operands)
    if options.all:
        return Selection(kernel.tasks(), None)
    if options.state is not None:
        known = states.of(kernel)
        found = [t for t in kernel.tasks() if states.letters(t, known) == options.state]
        return Selection(found, None)
    if options.task is not None and not options.active:
        return select(domain, kernel.tasks(), [options.task])
    if not options.active:
        from ..linux import panic

        panic_task = panic.task(kernel)
        if panic_task is not None:
            return Selection([panic_task], None)
        kernel.warn("no CPU's stack shows a panic: the active tasks follow")
    return Selection([kernel.active[cpu] for cpu in sorted(kernel.active)], None)


class TaskJson(TypedDict):
    """A task and its frames."""

    pid: int
    task: Hex
    cpu: Count
    comm: str
    running: bool
    frames: list[FrameJson]
    registers: NotRequired[Registers]
    user_registers: NotRequired[Registers]
    registers_from: NotRequired[str]
    why: NotRequired[str]


class JSON(TypedDict):
    """What ``bt --json`` prints: ``groups`` with ``--group``, else ``tasks``."""

    domain: Count
    tasks: NotRequired[Stream[TaskJson]]
    groups: NotRequired[Stream[stack_groups.GroupJson]]


class Backtraces(NamedTuple):
    """Backtraces of tasks."""

    domain: int
    word: int
    #: Unwound on demand.
    traces: Sequence[Trace]
    #: Which operands name no task.
    failure: str | None = None
    #: The tasks with equal stacks, if these are asked for.
    groups: Sequence[Group] | None = None
    #: Finds source lines, if they are asked for.
    finder: "Finder | None" = None
    warnings: Sequence[str] = ()

    def text(self) -> Iterator[str]:
        """The tasks as crash prints them, separated by empty lines; the domain unless it is 0."""
        if self.domain != 0:
            yield f"DOMAIN: {self.domain}"
            yield ""
        yield from self.body()

    def body(self) -> Iterator[str]:
        """The text without the domain."""
        if self.groups is not None:
            yield from stack_groups.text(self.groups, self.traces, self.word)
            return
        for i, trace in enumerate(self.traces):
            if i:
                yield ""
            yield from _task(trace, self.word, self.finder)

    def json(self) -> JSON:
        """The domain and the tasks, or the groups of tasks."""
        if self.groups is not None:
            return {"domain": self.domain, "groups": stack_groups.json(self.groups, self.traces)}
        return {"domain": self.domain, "tasks": map(self._json, self.traces)}

    def _json(self, trace: Trace) -> TaskJson:
        return _task_json(trace, self.finder)


def _task(trace: Trace, word: int, finder: "Finder | None") -> Iterator[str]:
    task = trace.task
    width = word * 2
    yield (
        f"PID: {task.pid:<7}  TASK: {task.address:0{width}x}  CPU: {task.cpu:<3}  "
        f'COMMAND: "{visible(task.comm)}"'
    )
    number = 0
    lines = _lines(trace.frames, finder)
    for i, (frame, line) in enumerate(zip(trace.frames, lines, strict=True)):
        if frame.interrupted:
            if not frame.user:
                yield f"    [exception RIP: {place(frame)}]{_unreliable(frame.guess)}"
                if line is not None:
                    yield f"    {line}"
            elif i == 0:
                yield f"    [user space: {frame.pc:0{width}x}]"
            if frame.registers:
                yield from exception_frame(frame.registers, word)
            continue
        name = frame.label or frame.symbol or "(unknown)"
        module = f" [{frame.module}]" if frame.module else ""
        yield (
            f"{_number(number)} [{frame.slot:0{width}x}] {visible(name)} at "
            f"{frame.pc:0{width}x}{module}{_unreliable(frame.guess)}"
        )
        if line is not None:
            yield f"    {line}"
        number += 1
    if trace.stopped:
        yield f"    ({trace.stopped})"


def _number(number: int) -> str:
    return f"{'#' + str(number):>3}"


def _unreliable(guess: bool) -> str:
    return "  (guess)" if guess else ""


def _task_json(trace: Trace, finder: "Finder | None") -> TaskJson:
    task = trace.task
    user = next((frame.registers for frame in trace.frames if frame.user), None)
    # The registers of its CPU if it was running, else those on entry from user space.
    registers = user if trace.registers is None else trace.registers
    found: TaskJson = {
        "pid": task.pid,
        "task": hex(task.address),
        "cpu": task.cpu,
        "comm": task.comm,
        "running": task.active,
        "frames": [],
    }
    for frame, line in zip(trace.frames, _lines(trace.frames, finder), strict=True):
        if not frame.user:
            shown = frame_json(frame)
            _add_line(shown, line)
            found["frames"].append(shown)
    if registers is not None:
        found["registers"] = registers_json(registers)
    if user is not None:
        found["user_registers"] = registers_json(user)
    if trace.where is not None:
        found["registers_from"] = trace.where
    if trace.stopped is not None:
        found["why"] = trace.stopped
    return found


def _add_line(found: FrameJson, line: "Line | None") -> None:
    if line is not None:
        found["file"], found["line"] = line


class PcpuJson(TypedDict):
    """A pCPU and its frames."""

    pcpu: Count
    vcpu: Hex | None
    domain: Count | None
    vcpu_id: Count | None
    cr3: Hex | None
    registers: Registers
    frames: list[XenFrameJson]
    why: NotRequired[str]


class HYPERVISOR_JSON(TypedDict):  # noqa: N801 - see the contract
    """What ``bt --hypervisor --json`` prints."""

    pcpus: list[PcpuJson]


class XenBacktraces(NamedTuple):
    """The Xen stack of every pCPU."""

    word: int
    traces: "list[PcpuTrace]"
    #: Finds source lines, if they are asked for.
    finder: "Finder | None" = None
    warnings: Sequence[str] = ()

    def text(self) -> Iterator[str]:
        """The pCPUs as crash prints them in a hypervisor session, separated by empty lines."""
        for i, trace in enumerate(self.traces):
            if i:
                yield ""
            yield from _pcpu(trace, self.word, self.finder)

    def json(self) -> HYPERVISOR_JSON:
        """The pCPUs."""
        return {"pcpus": [_pcpu_json(trace, self.finder) for trace in self.traces]}


def _pcpu(trace: "PcpuTrace", word: int, finder: "Finder | None") -> Iterator[str]:
    pcpu = trace.pcpu
    vcpu = "(unknown)" if pcpu.vcpu is None else f"{pcpu.vcpu:x}"
    yield f"PCPU: {pcpu.number:2}  VCPU: {vcpu}{_guest(trace)}"
    number = 0
    lines = _lines(trace.frames, finder)
    for i, (frame, line) in enumerate(zip(trace.frames, lines, strict=True)):
        if frame.user:
            yield "    [guest]" if trace.domain != _IDLE else "    [guest that ran here last]"
            narrow = "eip" in (frame.registers or {})
            yield from exception_frame(frame.registers or {}, 4 if narrow else word)
        elif frame.interrupted and i > 0:
            yield f"    [exception RIP: {place(frame)}]{_unreliable(frame.guess)}"
            if line is not None:
                yield f"    {line}"
            yield from exception_frame(frame.registers or {}, word)
        else:
            name = visible(frame.symbol) if frame.symbol else "(unknown)"
            # crash prints the location of the return address. An interrupted frame has none.
            at = frame.sp if frame.interrupted else frame.slot
            yield (
                f"{_number(number)} [{at:0{word * 2}x}] {name} at "
                f"{frame.pc:0{word * 2}x}{_unreliable(frame.guess)}"
            )
            if line is not None:
                yield f"    {line}"
            number += 1
    if trace.stopped:
        yield f"    ({trace.stopped})"


def _guest(trace: "PcpuTrace") -> str:
    """The domain of the vCPU."""
    if trace.domain is None:
        return ""
    if trace.domain == _IDLE:
        return "  IDLE"
    return f"  DOMAIN: {trace.domain}  VCPU-ID: {trace.vcpu}"


def _pcpu_json(trace: "PcpuTrace", finder: "Finder | None") -> PcpuJson:
    pcpu = trace.pcpu
    found: PcpuJson = {
        "pcpu": pcpu.number,
        "vcpu": None if pcpu.vcpu is None else hex(pcpu.vcpu),
        "domain": trace.domain,
        "vcpu_id": trace.vcpu,
        "cr3": None if pcpu.cr3 is None else hex(pcpu.cr3),
        "registers": registers_json(pcpu.registers),
        "frames": [],
    }
    for frame, line in zip(trace.frames, _lines(trace.frames, finder), strict=True):
        shown = xen_frame_json(frame)
        _add_line(shown, line)
        found["frames"].append(shown)
    if trace.stopped is not None:
        found["why"] = trace.stopped
    return found
