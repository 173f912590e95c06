"""The callers that gdb cannot find itself."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from ..._native import Frame, Unwinder
from ...linux import backtrace
from ...linux.backtrace import Start
from ...linux.stacks import PC, SP
from ...linux.system import Linux
from ...linux.tasks import Task
from . import registers


class Caller(NamedTuple):
    """A frame, and the registers of its caller."""

    pc: int
    sp: int
    #: What identifies the frame for gdb: its canonical frame address, but above those of all inner
    #: frames. gdb takes a stack for corrupt whose addresses do not ascend.
    order: int
    #: The registers of the caller; a pc of 0 for the outermost frame.
    registers: Mapping[str, int]
    #: Registers that have the same values as in the frame.
    same: Sequence[str]


def is_stub(symbol: str) -> bool:
    """Whether a function is a hypercall stub, which DWARF does not describe."""
    return symbol == "hypercall_page" or symbol.startswith("xen_hypercall_")


class Callers:
    """Finds the frames whose callers gdb cannot find."""

    def __init__(self, kernel: Linux) -> None:
        self._kernel = kernel

    @cached_property
    def _by_dwarf(self) -> Unwinder | None:
        """An unwinder that uses DWARF, as gdb does; None if the vmlinux has none."""
        kernel = self._kernel
        unwinder = Unwinder(
            kernel.image,
            kernel.code,
            kernel.virtual,
            types=kernel.types.native,
            version=kernel.release,
            # The scan continues where DWARF does not describe the code.
            methods=["cfi", "scan"],
        )
        return unwinder if "cfi" in unwinder.methods else None

    def find(self, task: Task, start: Start, frames: Sequence[Frame]) -> Iterator[Caller]:
        """Those of ``frames``, innermost first. The last one has no caller.

        They are in code that DWARF does not describe: assembler, as that which enters the kernel,
        and modules, of which gdb has no file; or they have switched stacks; or an inner one of
        these leaves gdb without the registers that it needs.
        """
        kernel = self._kernel
        described = self._described(task, start)
        highest = 0
        # Whether gdb knows the registers that calls preserve.
        is_known = True
        for frame, caller in pairwise(frames):
            is_found = (
                is_known
                and frame.pc in described
                and frame.module is None
                and caller.registers is None
                # On the same stack.
                and 0 < caller.sp - frame.sp < kernel.stack_size
                and caller.sp > highest
            )
            highest = max(caller.sp, highest + 1)
            if is_found:
                continue
            known = _registers(kernel, caller)
            # A stub is a leaf function that changes none of them.
            same = registers.PRESERVED[kernel.word] if is_stub(frame.symbol or "") else ()
            is_known = caller.registers is not None or (is_known and bool(same))
            yield Caller(frame.pc, frame.sp, highest, known, same)
        # gdb ends a backtrace at a pc of 0, and else takes what it finds above for callers. It also
        # identifies that frame and the next one.
        last = [(frame.pc, frame.sp) for frame in frames[-1:]]
        for pc, sp in last:
            order = max(sp, highest) + 1
            for place in ((pc, sp), (0, order), (0, order + 1)):
                yield Caller(*place, order, {PC[kernel.word]: 0, SP[kernel.word]: order}, ())
                order += 1

    def _described(self, task: Task, start: Start) -> set[int]:
        """Where DWARF describes the frame, among the pcs of a task's frames."""
        if self._by_dwarf is None:
            return set()
        found = backtrace.unwind(self._kernel, self._by_dwarf, task, start).frames
        return {frame.pc for frame, caller in pairwise(found) if caller.how == "cfi"}


def _registers(kernel: Linux, frame: Frame) -> dict[str, int]:
    """The registers of a frame, by gdb's names."""
    names = {register.name for register in registers.of(kernel.word)}
    found = {
        "eflags" if name == "rflags" else name: value
        for name, value in (frame.registers or {}).items()
    }
    own = {PC[kernel.word]: frame.pc, SP[kernel.word]: frame.sp}
    return {name: value for name, value in {**found, **own}.items() if name in names}
