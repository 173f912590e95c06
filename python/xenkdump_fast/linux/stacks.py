"""Where a stack lies, and with which registers to start on it."""

from .._native import AbsentError
from .kernel import Kernel
from .tasks import Task

#: Members of inactive_task_frame (what __switch_to_asm pushes since 4.9, 0100301bfdf5) by width,
#: and the register that each holds.
_PUSHED = {
    8: {
        "r15": "r15",
        "r14": "r14",
        "r13": "r13",
        "r12": "r12",
        "bx": "rbx",
        "bp": "rbp",
        "ret_addr": "rip",
    },
    4: {"si": "esi", "di": "edi", "bx": "ebx", "bp": "ebp", "ret_addr": "eip"},
}
PC = {4: "eip", 8: "rip"}
SP = {4: "esp", 8: "rsp"}
FRAME_POINTER = {4: "ebp", 8: "rbp"}


def size(kernel: Kernel) -> int:
    """THREAD_SIZE in bytes."""
    try:
        return kernel.types.sizeof("thread_union")
    except AbsentError:
        pass
    for symbol in kernel.symbols.all("init_thread_union"):
        if symbol.size:
            return symbol.size
    # arch/x86/include/asm/page_{32,64}_types.h: 16 KiB on x86_64 since 3.15 (6538b8ea886e).
    return 0x4000 if kernel.word == 8 else 0x2000


def sleeping(kernel: Kernel, task: Task) -> dict[str, int]:
    """The registers of a task that is not running, as its last context switch left them."""
    word = kernel.word
    sp = kernel.read(task.address, "thread.sp")
    if "inactive_task_frame" in kernel.types:
        registers = {SP[word]: sp + kernel.types.sizeof("inactive_task_frame")}
        for member, register in _PUSHED[word].items():
            key = f"inactive_task_frame.{member}"
            if kernel.has(key):
                registers[register] = kernel.read(sp, key)
        return registers
    # Before 4.9 switch_to() pushed the flags, then the frame pointer, inline; a task resumes at
    # thread.ip on i386, at the label thread_return (2.6.16 to 2.6.35) on x86_64.
    registers = {SP[word]: sp + 2 * word, FRAME_POINTER[word]: kernel.pointer(sp)}
    resume = (
        kernel.read(task.address, "thread.ip") if word == 4 else kernel.symbols.get("thread_return")
    )
    if resume is None:
        resume = kernel.symbol("schedule")
    registers[PC[word]] = resume
    return registers
