"""A kernel's tasks: their structs, lists, stacks, and what the plan tells of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..code.stack import StackFrame
from .task_table import Job
from .view import View


@dataclass
class Task:
    """A task as it was made."""

    job: Job
    address: int
    view: View
    stack: int
    idle: bool = False
    #: Kernel frames, innermost first. Those of a running task start at its vCPU's registers.
    frames: list[StackFrame] = field(default_factory=list)
    #: Registers of the exception frame at the foot of the stack, if it came from user space.
    user_registers: dict[str, int] | None = None
    user_registers_at: int | None = None
    #: Where a vCPU stands: what Xen saved for it.
    registers: dict[str, int] | None = None
    #: thread.esp of old kernels, where crash says that a sleeping task's first frame is.
    switched_at: int | None = None
    mm: int = 0
    #: Machine address of the top page table.
    root: int = 0

    @property
    def running(self) -> bool:
        """Whether a CPU was executing it."""
        return self.registers is not None or self.job.state == "R"
