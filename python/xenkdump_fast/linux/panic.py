"""The panic message and the panicking task."""

from collections.abc import Iterable, Sequence

from .._native import MemoryFault
from ..isolation import isolated
from . import printk
from .kernel import Kernel
from .printk.message import LogLine
from .system import Linux
from .tasks import Task

#: Functions that only the panicking CPU is in, the most specific first.
_PANIC_FUNCTIONS = (
    (
        "crash_kexec",
        "__crash_kexec",
        "machine_kexec",
        "xen_machine_kexec",
        "machine_crash_shutdown",
    ),
    ("panic", "vpanic", "oops_end", "die", "__die", "sysrq_handle_crash"),
)
#: Both are initialized to "no CPU" (PANIC_CPU_INVALID, -1): 4.5 (1717f2096b54), and 2.6.22 on.
_CPU_VARIABLES = ("panic_cpu", "crashing_cpu")
#: What a crashing kernel prints, by priority: the first of these that the log contains decides, and
#: of its lines the oldest. The order is that of crash, so that PANIC is the same as there.
_PANIC_MESSAGES = (
    "SysRq : Crash",
    "SysRq : Trigger a crash",
    "SysRq : Netdump",
    "Kernel panic: ",
    "Kernel panic - ",
    "Kernel BUG at",
    "kernel BUG at",
    "Unable to handle kernel paging request",
    "Unable to handle kernel NULL pointer dereference",
    "BUG: unable to handle kernel ",
    "general protection fault: ",
    "double fault: ",
    "divide error: ",
    "stack segment: ",
    "[Hardware Error]: ",
    "Bad mode in ",
    "Oops: ",
    # Other messages, for which crash prints nothing.
    "BUG: unable to handle page fault",  # 5.1, f28b11a2abd9
    "BUG: kernel NULL pointer dereference",
    "general protection fault, ",  # 5.6, 59c1dcbed5b5
    "sysrq: Trigger a crash",  # 5.0; followed by the line of a panic
)


def message(kernel: Kernel, lines: Iterable[LogLine] | None = None) -> str | None:
    """The line of the log with the cause of the crash; None if none is. AbsentError without log.

    ``lines`` is the log, if it was read before.
    """
    found: str | None = None
    candidates: Sequence[str] = _PANIC_MESSAGES
    for record in printk.lines(kernel) if lines is None else lines:
        for line in record.text.split("\n"):
            for i in range(len(candidates)):
                if candidates[i] in line:
                    # From here on only messages of higher priority count.
                    found, candidates = line, candidates[:i]
                    break
    return found


def task(kernel: Linux) -> Task | None:
    """The panicking task; None if neither a variable of the kernel nor a stack identifies it.

    The kernel records the CPU that panicked since 4.5. Before that, and for a crash without
    panic(), the stacks of the active tasks decide.
    """
    for variable in _CPU_VARIABLES:
        address = kernel.symbols.get(variable)
        if address is None:
            continue
        try:
            cpu = kernel.number(address, 4)
        except MemoryFault:
            continue
        if cpu in kernel.active:
            return kernel.active[cpu]
    symbols = {}
    for cpu, active in kernel.active.items():
        with isolated(f"CPU {cpu} has no backtrace", kernel.warn):
            symbols[cpu] = {frame.symbol for frame in kernel.backtrace(active).frames}
    for functions in _PANIC_FUNCTIONS:
        for cpu, found in symbols.items():
            if found.intersection(functions):
                return kernel.active[cpu]
    return None
