"""The registers from which the unwinder starts on the stacks of tasks."""

import re
from array import array
from collections.abc import Sequence

from .._native import MemoryFault
from .._typing import NamedTuple
from ..limits import MAX_RESUME_CODE, MAX_SAME_SYMBOLS
from .kernel import Kernel
from .layouts import Number
from .structs import BATCH, Structs
from .tasks import Task

#: Members of inactive_task_frame (what __switch_to_asm pushes since 4.9, 0100301bfdf5) by width,
#: and the register that each holds.
_PUSHED = {
    8: {
        "inactive_task_frame.r15": "r15",
        "inactive_task_frame.r14": "r14",
        "inactive_task_frame.r13": "r13",
        "inactive_task_frame.r12": "r12",
        "inactive_task_frame.bx": "rbx",
        "inactive_task_frame.bp": "rbp",
        "inactive_task_frame.ret_addr": "rip",
    },
    4: {
        "inactive_task_frame.si": "esi",
        "inactive_task_frame.di": "edi",
        "inactive_task_frame.bx": "ebx",
        "inactive_task_frame.bp": "ebp",
        "inactive_task_frame.ret_addr": "eip",
    },
}
PC = {4: "eip", 8: "rip"}
SP = {4: "esp", 8: "rsp"}
FRAME_POINTER = {4: "ebp", 8: "rbp"}
#: The code at which a task resumes before 4.9, by width, with the byte after it: pop %ebp; or, a
#: little later, mov %rbp,%rsi and pop %rbp.
_POP_BP = {
    4: rb"\A\x5d(.)",
    8: rb"\x48\x89\xee\x5d(.)",
}
POPF = b"\x9d"
#: Functions that only the panicking CPU is in.
PANIC_FUNCTIONS = (
    "crash_kexec",
    "__crash_kexec",
    "machine_kexec",
    "xen_machine_kexec",
    "machine_crash_shutdown",
    "panic",
    "vpanic",
    "die",
    "__die",
    "oops_end",
    "sysrq_handle_crash",
)
#: Functions in which an idle CPU waits.
IDLE_FUNCTIONS = (
    "safe_halt",
    "xen_safe_halt",
    "raw_safe_halt",
    "default_idle",
    "poll_idle",
    "mwait_idle",
    "xen_idle",
)

#: Batches in which the next task is looked for before it is read on its own.
_AHEAD = 16


class Start(NamedTuple):
    """Registers to start from, for a task whose CPU's registers are not known."""

    registers: dict[str, int]
    #: The address that crash prints in brackets: of the return address on the stack, or thread.sp
    #: if a context switch pushes none.
    slot: int


class SavedRegisters:
    """The registers of tasks as saved by their last context switches.

    They are read for a batch of the ``tasks`` when one of these is needed.
    """

    def __init__(self, kernel: Kernel, tasks: Sequence[Task]) -> None:
        self._kernel = kernel
        #: As numbers: there may be a million.
        self._addresses = array("Q", (task.address for task in tasks))
        self._batch: _Batch | None = None
        #: The position behind the last batch of tasks in their order.
        self._next = 0
        #: The number of words that switch_to() pops, by address at which a task resumes.
        self._popped: dict[int, int] = {}

    def start(self, task: Task) -> Start:
        """The registers to start from for one of the tasks. Raises AbsentError."""
        kernel, word = self._kernel, self._kernel.word
        batch = self._batch_of(task)
        sp = batch.tasks.read(task.address, "thread.sp")
        if "inactive_task_frame" in kernel.types:
            registers = {SP[word]: sp + kernel.types.sizeof("inactive_task_frame")}
            for key, register in _PUSHED[word].items():
                if kernel.has(key):
                    registers[register] = batch.frames.read(sp, key)
            return Start(registers, registers[SP[word]] - word)
        # Before 4.9 switch_to() pushed the flags, then the frame pointer, inline; a task resumes at
        # thread.ip on i386, at the label thread_return (2.6.16 to 2.6.35) on x86_64.
        resume = (
            batch.tasks.read(task.address, "thread.ip")
            if word == 4
            else kernel.symbols.get("thread_return")
        )
        if resume is None:
            resume = kernel.symbol("schedule")
        if resume not in self._popped:
            self._popped[resume] = _pushed_words(kernel, resume)
        registers = {
            PC[word]: resume,
            SP[word]: sp + self._popped[resume] * word,
            FRAME_POINTER[word]: batch.frames.read(sp, Number(0, word)),
        }
        return Start(registers, sp)

    def _batch_of(self, task: Task) -> "_Batch":
        if self._batch is not None and task.address in self._batch.addresses:
            return self._batch
        # Tasks are used in their order: some are left out, those that were running.
        ahead = self._addresses[self._next : self._next + _AHEAD * BATCH]
        try:
            at = self._next + ahead.index(task.address)
        except ValueError:
            addresses: Sequence[int] = [task.address]
        else:
            self._next = at + BATCH
            addresses = self._addresses[at : self._next]
        self._batch = _Batch(self._kernel, addresses)
        return self._batch


class _Batch:
    """Some tasks of ``SavedRegisters``, and what the context switches pushed on their stacks."""

    __slots__ = ("addresses", "frames", "tasks")

    def __init__(self, kernel: Kernel, addresses: Sequence[int]) -> None:
        self.addresses = frozenset(addresses)
        self.tasks = Structs(kernel, addresses, ["thread.sp", "thread.ip"])
        pushed: list[str | Number] = [Number(0, kernel.word)]
        if "inactive_task_frame" in kernel.types:
            pushed = [*_PUSHED[kernel.word]]
        self.frames = Structs(kernel, self.tasks.values("thread.sp"), pushed)


def _pushed_words(kernel: Kernel, resume: int) -> int:
    """The number of words that switch_to() pops at the address at which a task resumes.

    The frame pointer, and since September 2006 (2.6.19 and stable releases of that time) the flags:
    then ``popf`` follows ``pop %ebp``, or on x86_64 ``mov %rbp,%rsi; pop %rbp`` a little later.
    """
    try:
        code = kernel.data(resume, MAX_RESUME_CODE)
    except MemoryFault:
        return 2
    found = re.search(_POP_BP[kernel.word], code, re.DOTALL)
    return 1 if found and found[1] != POPF else 2


def start_without_registers(kernel: Kernel, task: Task) -> Start | None:
    """Registers for a task that was running, if none were saved; None if they cannot be estimated.

    The panicking CPU is in functions of the panic path, an idle CPU in those that halt it: the
    lowest return address into one of them is the last call. If the stack of an idle task has none,
    the registers of its last context switch are used.
    """
    functions = (
        (*PANIC_FUNCTIONS, *IDLE_FUNCTIONS) if task.idle or task.pid == 0 else PANIC_FUNCTIONS
    )
    slot = _lowest_call(kernel, task, frozenset(functions))
    if slot is not None:
        registers = {PC[kernel.word]: kernel.pointer(slot), SP[kernel.word]: slot + kernel.word}
        return Start(registers, slot)
    if task.idle or task.pid == 0:
        return SavedRegisters(kernel, [task]).start(task)
    return None


def _lowest_call(kernel: Kernel, task: Task, functions: frozenset[str]) -> int | None:
    """The address of the lowest return address into one of the functions on a task's stack."""
    word = kernel.word
    ranges = [
        (symbol.address, symbol.address + max(symbol.size, 1))
        for name in functions
        for symbol in kernel.symbols.all(name)[:MAX_SAME_SYMBOLS]
    ]
    stack = kernel.data(task.stack, kernel.stack_size)
    for at in range(0, len(stack), word):
        pc = int.from_bytes(stack[at : at + word], "little")
        if any(start < pc <= end for start, end in ranges) and _follows_call(kernel, pc):
            return task.stack + at
    return None


def _follows_call(kernel: Kernel, pc: int) -> bool:
    """Whether the instruction before ``pc`` is a call: e8 rel32, or ff /2 with its operand."""
    try:
        code = kernel.data(pc - 7, 7)
    except MemoryFault:
        return False
    return code[2] == 0xE8 or any(
        code[-length] == 0xFF and code[1 - length] >> 3 & 7 == 2 for length in (2, 3, 4, 6, 7)
    )
