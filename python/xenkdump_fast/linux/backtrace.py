"""Backtraces of tasks: the registers to start from, and the frames."""

from collections.abc import Mapping
from typing import NamedTuple

from .._native import AbsentError, Frame, MemoryFault, Unwinder
from . import double_fault, stacks
from .cpus import VcpuContext
from .kernel import Kernel
from .tasks import Task


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


def trace(
    kernel: Kernel,
    unwinder: Unwinder,
    task: Task,
    context: VcpuContext | None,
    saved: stacks.SavedRegisters,
) -> Trace:
    """The backtrace of a task: from ``context`` if it was running, else from its last switch."""
    if context is None and _has_no_stack(kernel, task):
        return Trace(task, [], None, None, "has no stack: it has exited")
    registers: Mapping[str, int]
    slot: int | None = None
    where: str | None = None
    try:
        if context is not None:
            registers, where = context.registers, context.where
        elif not task.active:
            registers, slot = saved.start(task)
        else:
            start = stacks.start_without_registers(kernel, task)
            if start is None:
                why = f"was running on CPU {task.cpu}, whose registers are not known"
                return Trace(task, [], None, None, why)
            registers, slot = start
            where = "its own stack"
            kernel.warn(f"CPU {task.cpu}: no saved registers; unwinding from the stack of its task")
    except AbsentError as error:
        return Trace(task, [], None, None, f"its stack cannot be read: {error}")
    bounds = [(task.stack, kernel.end(task.stack, kernel.stack_size))]
    found = unwinder.unwind(
        {name: value & kernel.last for name, value in registers.items()},
        stacks=bounds,
        exact=context is not None,
        slot=slot,
    )
    frames, stopped = found.frames, found.stopped
    if kernel.word == 4 and frames and frames[-1].symbol in double_fault.OUTERMOST:
        before = double_fault.interrupted(kernel, task.cpu)
        if before is not None:
            found = unwinder.unwind(before, stacks=bounds, exact=True)
            frames, stopped = [*frames, *found.frames], found.stopped
    return Trace(task, frames, None if context is None else context.registers, where, stopped)


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
