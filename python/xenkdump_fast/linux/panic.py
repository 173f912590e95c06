"""Which task brought the kernel down."""

from collections.abc import Mapping

from .._native import MemoryFault
from .backtrace import trace
from .cpus import VcpuContext
from .kernel import Kernel
from .tasks import Task

#: Functions that only the CPU that dies is in, the surest first.
_DYING = (
    ("crash_kexec", "__crash_kexec", "machine_kexec", "xen_machine_kexec", "machine_crash_shutdown"),
    ("panic", "vpanic", "oops_end", "die", "__die", "sysrq_handle_crash"),
)
#: Both start as "no CPU" (PANIC_CPU_INVALID, -1): 4.5, 1717f2096b54, and 2.6.22 on.
_CPU_VARIABLES = ("panic_cpu", "crashing_cpu")


def task(
    kernel: Kernel, active: Mapping[int, Task], contexts: Mapping[int, VcpuContext]
) -> Task | None:
    """The panicking task; None where neither the kernel nor any stack tells.

    The kernel says which CPU panicked since 4.5; before that, and for a crash that went past
    panic(), the stacks of the active tasks tell.
    """
    for variable in _CPU_VARIABLES:
        address = kernel.symbols.get(variable)
        if address is None:
            continue
        try:
            cpu = kernel.virtual.u32(address)
        except MemoryFault:
            continue
        if cpu in active:
            return active[cpu]
    symbols = {
        cpu: {frame.symbol for frame in trace(kernel, task, contexts.get(cpu)).frames}
        for cpu, task in active.items()
    }
    for functions in _DYING:
        for cpu, found in symbols.items():
            if found.intersection(functions):
                return active[cpu]
    return None
