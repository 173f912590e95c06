"""The threads that gdb sees: tasks that CPUs ran, and on demand all others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from ..._native import AbsentError
from ...isolation import isolated
from ...linux import backtrace, panic, states, tasks
from ...linux.stacks import PC, SP
from ...linux.system import Linux
from ...output.escape import visible
from . import registers
from .callers import Caller, Callers, is_stub

#: Threads of which the registers are kept.
_KEPT = 1024


class Thread(NamedTuple):
    """A thread."""

    #: gdb's id: from 1 on, first the vCPUs.
    id: int
    task: tasks.Task
    #: The CPU that was running the task; None for one that was not running.
    cpu: int | None

    @property
    def name(self) -> str:
        """The name of the task."""
        return visible(self.task.comm)


class State(NamedTuple):
    """The registers of a thread."""

    registers: Mapping[str, int]
    #: What is special about them, in words; empty for the usual ones.
    note: str


class Threads:
    """The threads of a kernel. AbsentError if there are none."""

    def __init__(self, kernel: Linux, *, all_tasks: bool) -> None:
        self._kernel = kernel
        self._states = states.of(kernel)
        running: Mapping[int, tasks.Task] = {}
        with isolated("the tasks that CPUs ran are not known", kernel.warn, AbsentError):
            running = kernel.active
        found = [(task, cpu) for cpu, task in sorted(running.items())]
        if all_tasks:
            known = {task.address for task in running.values()}
            others = [task for task in kernel.tasks() if task.address not in known]
            found += [(task, None) for task in others]  # type: ignore[misc]
        if not found:
            remedy = "" if all_tasks else " (--tasks adds those that were not running)"
            raise AbsentError(f"no task that a CPU was running can be read{remedy}")
        self.all: Sequence[Thread] = [
            Thread(number, task, cpu) for number, (task, cpu) in enumerate(found, 1)
        ]
        self._start: Callable[[tasks.Task], backtrace.Start] = kernel.starter(
            [thread.task for thread in self.all]
        )
        self._callers = Callers(kernel)
        self.state = lru_cache(_KEPT)(self._state)

    @cached_property
    def first(self) -> Thread:
        """The thread that a client starts in: of the panicking task, else the first one."""
        panicking: tasks.Task | None = None
        with isolated("the panicking task is not known", self._kernel.warn, AbsentError):
            panicking = panic.task(self._kernel)
        if panicking is not None:
            for thread in self.all:
                if thread.task.address == panicking.address:
                    return thread
        return self.all[0]

    def get(self, number: int) -> Thread | None:
        """The thread with this id."""
        return self.all[number - 1] if 0 < number <= len(self.all) else None

    def described(self, thread: Thread) -> str:
        """What gdb shows of a thread besides its name."""
        task = thread.task
        if thread.cpu is None:
            state = states.letters(task, self._states)
            text = f"pid {task.pid}, last on CPU {task.cpu}, {state}"
        else:
            text = f"CPU {thread.cpu}, pid {task.pid}"
        note = self.state(thread).note
        return f"{text}, {note}" if note else text

    def _state(self, thread: Thread) -> State:
        try:
            start = self._start(thread.task)
        except backtrace.NoStartError as error:
            return State({}, visible(str(error)))
        if start.context is None:
            return State(
                start.registers, "" if start.where is None else f"registers from {start.where}"
            )
        return self._above_hypercall(thread.task, start) or State(start.registers, "")

    def callers(self, thread: Thread) -> Iterator[Caller]:
        """The frames of a thread whose callers gdb cannot find itself, innermost first."""
        kernel, task = self._kernel, thread.task
        try:
            start = self._start(task)
        except backtrace.NoStartError:
            return
        trace = kernel.backtrace(task)
        frames = trace.frames
        if frames and self.state(thread).registers.get(SP[kernel.word]) != frames[0].sp:
            frames = frames[1:]  # without a hypercall stub
        if trace.stopped is not None:
            frames = frames[:-1]
        yield from self._callers.find(task, start, frames)

    def _above_hypercall(self, task: tasks.Task, start: backtrace.Start) -> State | None:
        """The caller of a hypercall; None if the task is not in one.

        DWARF does not describe the stubs: gdb finds wrong callers of them, or none.
        """
        kernel = self._kernel
        symbol = kernel.symbols.lookup(start.registers.get(PC[kernel.word], 0) & kernel.last)
        if symbol is None or not is_stub(symbol.name):
            return None
        frames = backtrace.unwind(kernel, kernel.unwinder, task, start).frames
        if len(frames) < 2 or frames[1].guess:
            return State(start.registers, f"in {visible(symbol.name)}")
        caller = frames[1]
        # The stub is a leaf function that changes none of the registers that calls preserve.
        known = {
            name: start.registers[name]
            for name in registers.PRESERVED[kernel.word]
            if name in start.registers
        }
        bases = {name: start.registers[name] for name in _BASES if name in start.registers}
        own = {PC[kernel.word]: caller.pc, SP[kernel.word]: caller.sp}
        return State({**bases, **known, **own}, f"at its caller of {visible(symbol.name)}")


#: Registers that are the same in all frames of the kernel.
_BASES = ("cs", "ss", "fs_base", "gs_base")
