"""Backtraces of tasks: start registers, the unwinder's frames, and the symbols in both styles."""

from collections.abc import Mapping
from typing import NamedTuple

from .._native import AbsentError, MemoryFault, Unwinder
from . import stacks
from .cpus import VcpuContext
from .kernel import Kernel
from .tasks import Task


class Frame(NamedTuple):
    """One frame of a stack."""

    #: The return address, or where execution stopped if ``interrupted``.
    pc: int
    #: The stack pointer in this frame: above the return address of the function that it called.
    sp: int
    #: Address of its return address, which crash prints in brackets. For a task that was not
    #: running, the saved stack pointer if the switch pushed no return address (before 4.9).
    slot: int
    #: The symbol whose size covers the pc, else the nearest below; None outside all text.
    symbol: str | None
    #: Distance of the pc from the symbol in bytes.
    offset: int
    #: The nearest symbol below the pc, as crash names it; it may be a label inside ``symbol``.
    label: str | None
    #: The module of the symbol; None for the kernel itself.
    module: str | None
    #: The method that found it: "orc", "cfi", "fp", "scan", "registers", ...
    how: str
    #: Whether it is unreliable: found by likelihood, not by unwind data.
    guess: bool
    #: Whether the pc is the instruction that was interrupted, not a return address.
    interrupted: bool
    #: Whether it is user-space code.
    user: bool
    #: The registers saved in the exception frame that this frame came out of.
    registers: Mapping[str, int] | None


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


def trace(kernel: Kernel, unwinder: Unwinder, task: Task, context: VcpuContext | None) -> Trace:
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
            registers, slot = stacks.sleeping(kernel, task)
        else:
            start = stacks.stranded(kernel, task)
            if start is None:
                why = f"was running on CPU {task.cpu}, whose registers are not known"
                return Trace(task, [], None, None, why)
            registers, slot = start
            where = "its own stack"
            kernel.warn(f"CPU {task.cpu}: no saved registers; unwinding from the stack of its task")
    except AbsentError as error:
        return Trace(task, [], None, None, f"its stack cannot be read: {error}")
    found = unwinder.unwind(
        {name: value & kernel.last for name, value in registers.items()},
        stacks=[(task.stack, kernel.end(task.stack, stacks.size(kernel)))],
        exact=context is not None,
    )
    frames = []
    for i, frame in enumerate(found.frames):
        # A return address may already belong to what follows a call that never returns.
        at = frame.pc if frame.interrupted else (frame.pc - 1) & kernel.last
        nearest = None if frame.user else kernel.code.nearest(at)
        frames.append(
            Frame(
                pc=frame.pc,
                sp=frame.sp,
                slot=(frame.sp - kernel.word) & kernel.last if slot is None or i else slot,
                symbol=frame.symbol,
                offset=frame.offset,
                label=frame.symbol if nearest is None else nearest.name,
                module=frame.module,
                how=frame.how,
                guess=frame.guess,
                interrupted=frame.interrupted,
                user=frame.user,
                registers=frame.registers,
            )
        )
    return Trace(
        task,
        frames,
        None if context is None else context.registers,
        where,
        found.stopped,
    )


def _has_no_stack(kernel: Kernel, task: Task) -> bool:
    """Whether an exited task has given its stack back.

    A zombie's stack may be unmapped (seen on 5.10) or still readable and stale (6.12);
    stack_refcount tells (4.9, 68f24b08ee89). Before that a zombie keeps its stack.
    """
    if task.stack == 0:
        return True
    if not task.exit_state or not kernel.has("task_struct.stack_refcount"):
        return False
    try:
        return kernel.read(task.address, "task_struct.stack_refcount") == 0
    except MemoryFault:
        return False
