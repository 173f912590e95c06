"""A task of a kernel, with its data in the plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..code.stack import StackFrame
from .task_table import Job
from .view import View


@dataclass
class Task:
    """A task in memory."""

    job: Job
    address: int
    view: View
    stack: int
    idle: bool = False
    #: Kernel frames, innermost first; a running task's start at its vCPU's registers.
    frames: list[StackFrame] = field(default_factory=list)
    #: pt_regs at the top of the stack, if the task came from user mode.
    user_registers: dict[str, int] | None = None
    user_registers_at: int | None = None
    #: The registers that Xen saved for the vCPU, if the task is on one.
    registers: dict[str, int] | None = None
    #: thread.esp of old kernels, at which crash places the first frame of a sleeping task.
    switched_at: int | None = None
    mm: int = 0
    #: Machine address of the root.
    root: int = 0

    @property
    def running(self) -> bool:
        """Whether it was on a CPU."""
        return self.registers is not None or self.job.state == "R"
