"""What brought the kernel down, and which task."""

from collections.abc import Sequence

from .._native import MemoryFault
from ..isolation import isolated
from . import printk
from .kernel import Kernel
from .system import Linux
from .tasks import Task

#: Functions that only the CPU that dies is in, the surest first.
_DYING = (
    (
        "crash_kexec",
        "__crash_kexec",
        "machine_kexec",
        "xen_machine_kexec",
        "machine_crash_shutdown",
    ),
    ("panic", "vpanic", "oops_end", "die", "__die", "sysrq_handle_crash"),
)
#: Both start as "no CPU" (PANIC_CPU_INVALID, -1): 4.5, 1717f2096b54, and 2.6.22 on.
_CPU_VARIABLES = ("panic_cpu", "crashing_cpu")
#: What a dying kernel prints. The first of them that any line of the log contains decides, and of
#: these lines the oldest: the order is crash's, so that PANIC reads as it does there.
_LAST_WORDS = (
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
    # What follows is for kernels that ended some other way: crash shows nothing for them.
    "BUG: unable to handle page fault",  # 5.1, f28b11a2abd9
    "BUG: kernel NULL pointer dereference",
    "general protection fault, ",  # 5.6, 59c1dcbed5b5
    "sysrq: Trigger a crash",  # 5.0; the line that follows is a panic's
)


def message(kernel: Kernel) -> str | None:
    """The line of the log that says why the kernel died; None if none does. AbsentError: no log."""
    found: str | None = None
    words: Sequence[str] = _LAST_WORDS
    for record in printk.lines(kernel):
        for line in record.text.split("\n"):
            for i in range(len(words)):
                if words[i] in line:
                    # Of what comes later, only surer words count.
                    found, words = line, words[:i]
                    break
    return found


def task(kernel: Linux) -> Task | None:
    """The panicking task; None where neither the kernel nor any stack tells.

    The kernel says which CPU panicked since 4.5; before that, and for a crash that went past
    panic(), the stacks of the active tasks tell.
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
    for functions in _DYING:
        for cpu, found in symbols.items():
            if found.intersection(functions):
                return kernel.active[cpu]
    return None
