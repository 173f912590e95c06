"""Backtraces of tasks: the registers to start from, and the frames."""

from collections.abc import Mapping

from .._native import AbsentError, Backtrace, Frame, MemoryFault, Unwinder
from .._typing import NamedTuple
from . import stacks
from .cpus import VcpuContext
from .kernel import Kernel
from .tasks import Task


class NoStartError(AbsentError):
    """No registers of a task are known from which its stack can be unwound."""


class Start(NamedTuple):
    """The registers from which the stack of a task is unwound."""

    registers: Mapping[str, int]
    #: Where they were saved, in words; None if the task's last context switch saved them.
    where: str | None
    #: The address of the return address on the stack, if it is not just below the stack pointer.
    slot: int | None
    #: The registers of its vCPU, for a task that was running.
    context: VcpuContext | None


class Trace(NamedTuple):
    """One task's backtrace."""

    #: The task.
    task: Task
    #: The frames, innermost first.
    frames: list[Frame]
    #: The registers of its vCPU, for a task that was running.
    registers: Mapping[str, int] | None
    #: Where those registers were saved, in words.
    where: str | None
    #: Why there are no frames, or why they are incomplete; None if the end was reached.
    stopped: str | None


def start(
    kernel: Kernel,
    task: Task,
    context: VcpuContext | None,
    saved: stacks.SavedRegisters,
) -> Start:
    """The registers of a task: ``context`` if it was running, else those of its last switch.

    Raises NoStartError.
    """
    if context is None and _has_no_stack(kernel, task):
        raise NoStartError("has no stack: it has exited")
    try:
        if context is not None:
            return Start(context.registers, context.where, None, context)
        if not task.active:
            registers, slot = saved.start(task)
            return Start(registers, None, slot, None)
        found = stacks.start_without_registers(kernel, task)
    except AbsentError as error:
        raise NoStartError(f"its stack cannot be read: {error}") from None
    if found is None:
        raise NoStartError(f"was running on CPU {task.cpu}, whose registers are not known")
    kernel.warn(f"CPU {task.cpu}: no saved registers; unwinding from the stack of its task")
    return Start(found.registers, "its own stack", found.slot, None)


def trace(
    kernel: Kernel,
    unwinder: Unwinder,
    task: Task,
    context: VcpuContext | None,
    saved: stacks.SavedRegisters,
) -> Trace:
    """The backtrace of a task, from the registers of ``start``."""
    try:
        first = start(kernel, task, context, saved)
    except NoStartError as error:
        return Trace(task, [], None, None, str(error))
    found = unwind(kernel, unwinder, task, first)
    frames, stopped = found.frames, found.stopped
    if kernel.word == 4 and frames:
        from . import double_fault

        before = None
        if frames[-1].symbol in double_fault.OUTERMOST:
            before = double_fault.interrupted(kernel, task.cpu)
        if before is not None:
            found = unwinder.unwind(before, stacks=[_bounds(kernel, task)], exact=True)
            frames, stopped = [*frames, *found.frames], found.stopped
    return Trace(task, frames, None if context is None else context.registers, first.where, stopped)


def unwind(kernel: Kernel, unwinder: Unwinder, task: Task, first: Start) -> Backtrace:
    """The frames of a task from these registers on."""
    return unwinder.unwind(
        {name: value & kernel.last for name, value in first.registers.items()},
        stacks=[_bounds(kernel, task)],
        exact=first.context is not None,
        slot=first.slot,
    )


def _bounds(kernel: Kernel, task: Task) -> tuple[int, int]:
    return task.stack, kernel.end(task.stack, kernel.stack_size)


def _has_no_stack(kernel: Kernel, task: Task) -> bool:
    """Whether an exited task has freed its stack.

    A zombie's stack may be unmapped (seen on 5.10) or still readable and stale (6.12);
    stack_refcount decides (4.9, 68f24b08ee89). Before 4.9 a zombie keeps its stack.
    """
    if task.stack == 0:
        return True
    if not task.exit_state or not kernel.has("task_struct.stack_refcount"):
        return False
    try:
        return kernel.read(task.address, "task_struct.stack_refcount") == 0
    except MemoryFault:
        return False
