"""A Linux kernel as plain data: its facts, tasks, stacks, waits, modules and log."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from .._native import AbsentError
from ..isolation import isolated
from ..limits import MAX_REPORT_KEPT_FRAMES, MAX_REPORT_NAMED, MAX_REPORT_OOPS_LINES
from ..linux import command_line, header, modules, printk, states
from ..linux.header import Header
from ..linux.stack_groups import SORTS, Group, grouped
from ..linux.waits import graph
from ..progress import each
from . import crashes
from .frames import frames, registers, short, task
from .model import Crash, Kernel, Log, Module, Stack, Taint, Vcpu, Wait

if TYPE_CHECKING:
    from ..linux.backtrace import Trace
    from ..linux.printk.message import LogLine
    from ..linux.states import States
    from ..linux.system import Linux
    from ..linux.tasks import Task as LinuxTask
    from .sizes import Sizes

T = TypeVar("T")
_WAITING = "UN"
#: Letters and meanings of the bits of ``tainted_mask``, from bit 0 up (kernel/panic.c). The letter
#: of the first one is G if it is clear.
_TAINTS = (
    ("P", "a proprietary module was loaded"),
    ("F", "a module was loaded by force"),
    ("S", "the processor is out of specification"),
    ("R", "a module was unloaded by force"),
    ("M", "the processor reported a machine check"),
    ("B", "a page was bad"),
    ("U", "requested by user space"),
    ("D", "the kernel has died: an oops or a BUG"),
    ("A", "an ACPI table was replaced"),
    ("W", "the kernel has warned"),
    ("C", "a staging driver was loaded"),
    ("I", "a bug of the firmware was worked around"),
    ("O", "a module from outside of the tree was loaded"),
    ("E", "an unsigned module was loaded"),
    ("L", "a soft lockup has occurred"),
    ("K", "the kernel was live-patched"),
    ("X", "auxiliary taint, by the distribution"),
    ("T", "the layout of structs was randomised"),
    ("N", "an in-kernel test was run"),
    ("J", "firmware was changed through fwctl"),
)


class Gathered(NamedTuple):
    """What was gathered of a kernel."""

    kernel: Kernel
    vcpus: list[Vcpu]
    crash: Crash | None
    nodename: str | None


def gather(linux: "Linux", image: str, domain: int, sizes: "Sizes") -> Gathered:
    """The facts of a kernel. What cannot be read is None or empty, with a warning."""
    warn = linux.warn
    known = states.of(linux)

    def attempt(what: str, get: Callable[[], T], otherwise: T) -> T:
        with isolated(f"{what} cannot be read", warn):
            return get()
        return otherwise

    every: Sequence[LinuxTask] = attempt("the tasks", linux.tasks, [])
    lines: deque[LogLine] = attempt(
        "the log", lambda: deque(printk.lines(linux), MAX_REPORT_OOPS_LINES), deque()
    )
    # A longer log is read again, as a whole.
    whole = lines if 0 < len(lines) < MAX_REPORT_OOPS_LINES else None
    facts = header.read(linux, every or None, whole)
    loaded: list[modules.Module] = attempt("the modules", lambda: list(modules.modules(linux)), [])
    traced = _Traces(linux, every)
    groups: list[Group] = attempt("the stacks", lambda: grouped(traced.all(), every, SORTS[0]), [])
    waiting = [one for one in every if states.letters(one, known) == _WAITING]
    nothing: tuple[list[Wait], list[list[int]]] = ([], [])
    waits, deadlocks = attempt(
        "what tasks wait for",
        lambda: _waits(linux, every, waiting[: sizes.rows], traced, known),
        nothing,
    )
    texts = [text for line in lines for text in line.text.split("\n")]
    trace = None if facts.task is None else traced.of(facts.task)
    crash = attempt(
        "where the kernel failed",
        lambda: crashes.of_kernel(linux, facts, texts, trace, domain),
        None,
    )
    shown = list(lines)[-sizes.log_lines :]
    kernel: Kernel = {
        "release": facts.uts.get("release"),
        "version": facts.uts.get("version"),
        "machine": facts.uts.get("machine"),
        "image": image,
        "command_line": attempt("the command line", lambda: command_line.read(linux), None),
        "cpus": facts.cpus,
        "offline": facts.offline,
        "date": facts.date,
        "uptime": facts.uptime,
        "memory": facts.memory,
        "panic": facts.panic,
        "taint": _taint(facts),
        "task_count": len(every),
        "tasks": [task(one, known) for one in every[: sizes.rows]],
        "stack_count": len(groups),
        "stacks": [
            _stack(group.tasks, traced.of(every[group.first]), sizes, known)
            for group in groups[: sizes.stacks]
        ],
        "waits": waits,
        "wait_count": len(waiting),
        "deadlocks": deadlocks,
        "module_count": len(loaded),
        "modules": _modules(loaded[: sizes.rows]),
        "log": _log(shown, lines) if lines else None,
    }
    cpus: list[Vcpu] = attempt("the CPUs", lambda: _cpus(linux, traced, known), [])
    return Gathered(kernel, cpus, crash, facts.uts.get("nodename"))


class _Traces:
    """The stacks of tasks. Some are kept for later use."""

    def __init__(self, linux: "Linux", every: "Sequence[LinuxTask]") -> None:
        self._linux = linux
        self._every = every
        self._trace = linux.tracer(every)
        self._kept: dict[int, Trace] = {}
        self._frames = MAX_REPORT_KEPT_FRAMES

    def all(self) -> "Iterator[Trace]":
        """Those of all tasks."""
        for one in each(self._every, "task"):
            with isolated(f"task {one.pid} at {one.address:#x} has no backtrace", self._linux.warn):
                yield self.of(one)

    def of(self, one: "LinuxTask") -> "Trace":
        """That of a task."""
        known = self._kept.get(one.address)
        if known is None:
            known = self._trace(one)
            if len(known.frames) < self._frames:
                self._frames -= len(known.frames) + 1
                self._kept[one.address] = known
        return known


def _stack(tasks: "Sequence[LinuxTask]", trace: "Trace", sizes: "Sizes", known: "States") -> Stack:
    return {
        "count": len(tasks),
        "tasks": [task(one, known) for one in tasks[:MAX_REPORT_NAMED]],
        "frames": frames(trace.frames, sizes.frames),
        "why": trace.stopped,
    }


def _waits(
    linux: "Linux",
    every: "Sequence[LinuxTask]",
    waiting: "Sequence[LinuxTask]",
    traced: _Traces,
    known: "States",
) -> tuple[list[Wait], list[list[int]]]:
    if not waiting:
        return [], []
    waits = graph.Waits(linux, every, traced.of)
    found = waits.of(waiting)
    everyone = waits.with_owners(found)
    cycles = graph.cycles(everyone)
    return (
        [_wait(linux, one, everyone, known) for one in found],
        [[one.task.pid for one in cycle] for cycle in cycles],
    )


def _wait(
    linux: "Linux", one: graph.Waiting, everyone: Mapping[int, graph.Waiting], known: "States"
) -> Wait:
    owner = graph.owner_of(one)
    chain = graph.chain(one, everyone)
    return {
        "task": task(one.task, known),
        "kind": one.wait.kind,
        "what": _what(linux, one),
        "caller": one.wait.caller,
        "area": one.wait.area,
        "owner": None if owner is None else task(owner.task, known),
        "doubt": None if owner is None else owner.doubt,
        "chain": [member.task.pid for member in chain[:MAX_REPORT_NAMED]],
    }


def _what(linux: "Linux", one: graph.Waiting) -> str:
    found = one.object
    guess = "" if one.wait.reliable else " (guess)"
    if found is None:
        kind = one.wait.kind
        return "not known" if kind is None else f"{kind}, by its functions only{guess}"
    text = f"{found.type} at {found.address:#x}"
    symbol = linux.code.lookup(found.address)
    if symbol is not None and found.address - symbol.address < symbol.size:
        text += f" <{symbol.name}+{found.address - symbol.address:#x}>"
    if found.detail is not None:
        text += f", {found.detail}"
    if found.waiters is not None:
        text += f", {found.waiters} waiting"
    return text + guess


def _modules(loaded: "Sequence[modules.Module]") -> list[Module]:
    ordered = sorted(loaded, key=lambda one: one.name)
    return [{"name": one.name, "base": hex(one.base), "size": one.total} for one in ordered]


def _taint(facts: Header) -> Taint | None:
    mask = facts.tainted
    if mask is None:
        return None
    found = [_TAINTS[i] for i in range(len(_TAINTS)) if mask >> i & 1]
    rest = mask >> len(_TAINTS) << len(_TAINTS)
    reasons = [reason for _, reason in found] + ([f"unknown flags {rest:#x}"] if rest else [])
    letters = "".join(letter for letter, _ in found)
    if mask and not mask & 1:
        letters = f"G{letters}"
    return {"mask": mask, "letters": letters, "reasons": reasons}


def _log(shown: "Sequence[LogLine]", lines: "Sequence[LogLine]") -> Log:
    first = min(line.sequence for line in lines)
    # The numbers count messages from boot on: what a full ring has lost is left out, too.
    omitted = max(len(lines) - len(shown), shown[0].sequence) if first else len(lines) - len(shown)
    return {
        "lines": [
            {
                "time_ns": line.time,
                "level": line.level,
                "text": "(lost)" if line.lost else short(line.text),
            }
            for line in shown
        ],
        "omitted": omitted,
    }


def _cpus(linux: "Linux", traced: _Traces, known: "States") -> list[Vcpu]:
    """Each CPU with the task that it was running."""
    found: list[Vcpu] = []
    contexts = linux.contexts
    for cpu in sorted({*linux.active, *contexts}):
        running = linux.active.get(cpu)
        trace: Trace | None = None
        with isolated(f"CPU {cpu} has no backtrace", linux.warn, AbsentError):
            trace = None if running is None else traced.of(running)
        context = contexts.get(cpu)
        found.append(
            {
                "id": cpu,
                "pcpu": None,
                "state": "running",
                "running": True,
                "task": None if running is None else task(running, known),
                "frames": [] if trace is None else frames(trace.frames, 64),
                "why": "its task is not known" if trace is None else trace.stopped,
                "registers": registers(None if context is None else context.registers),
                "registers_from": None if context is None else context.where,
            }
        )
    return found
