"""Which registers belong to which CPU."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .._native import AbsentError, MemoryFault
from . import percpu, stacks
from .kernel import Kernel
from .tasks import Task

#: Xen's constant for a CPU that has no vCPU (include/xen/interface/... XEN_VCPU_ID_INVALID).
XEN_VCPU_ID_INVALID = 0xFFFF_FFFF


class VcpuContext(NamedTuple):
    """The registers of one of a kernel's CPUs, from whoever saved them."""

    registers: Mapping[str, int]
    #: Who saved them, in words.
    where: str
    #: Xen's number for the vCPU, where known.
    vcpu: int | None = None
    #: Position among the notes, where the dump is a bare machine's.
    note: int | None = None


def assign(
    kernel: Kernel, contexts: Iterable[VcpuContext], active: Mapping[int, Task]
) -> dict[int, VcpuContext]:
    """Gives each CPU its registers.

    By Xen's vCPU number where it is known (CPU, vCPU and pCPU are three different numbers); else by
    the stack pointer, which is on the stack of the task that the CPU ran; else by the kernel's own
    per-cpu base in gs; else, on a bare machine, by the order of the notes: that of the CPUs.
    """
    # Notes of more CPUs than there can be are none of a kernel's.
    numbered = enumerate(
        context for context in contexts if context.note is None or context.note < percpu.MAX_CPUS
    )
    left = dict(numbered)
    found: dict[int, VcpuContext] = {}

    def take(cpu: int, number: int) -> None:
        if cpu not in found and cpu in active:
            found[cpu] = left.pop(number)

    vcpu_to_cpu = {_vcpu_id(kernel, cpu): cpu for cpu in active}
    for number, context in tuple(left.items()):
        if context.vcpu is not None and context.vcpu in vcpu_to_cpu:
            take(vcpu_to_cpu[context.vcpu], number)
    size = stacks.size(kernel)
    on_stack: dict[int, int] = {}
    for cpu, task in active.items():
        on_stack.setdefault(task.stack, cpu)
    lowest = sorted(on_stack)
    for number, context in tuple(left.items()):
        sp = context.registers.get(stacks.SP[kernel.word], 0)
        below = bisect_right(lowest, sp)
        if below and sp < lowest[below - 1] + size:
            take(on_stack[lowest[below - 1]], number)
    bases = {_base(kernel, cpu): cpu for cpu in active}
    for number, context in tuple(left.items()):
        base = context.registers.get("gs_base")
        if base and base in bases:
            take(bases[base], number)
    online = percpu.online(kernel)
    for number, context in tuple(left.items()):
        if context.note is not None and context.note < len(online):
            take(online[context.note], number)
    return found


def _vcpu_id(kernel: Kernel, cpu: int) -> int:
    """Xen's number for a CPU: xen_vcpu_id since 4.8, the CPU's own before."""
    if "xen_vcpu_id" not in kernel.symbols:
        return cpu
    try:
        vcpu = kernel.number(percpu.address(kernel, "xen_vcpu_id", cpu), 4)
    except (AbsentError, MemoryFault):
        return cpu
    return cpu if vcpu == XEN_VCPU_ID_INVALID else vcpu


def _base(kernel: Kernel, cpu: int) -> int | None:
    """What gs_base is on a CPU that runs the kernel."""
    try:
        if "__per_cpu_offset" in kernel.symbols:
            return percpu.offset(kernel, cpu)
        return percpu.processor_data_area(kernel, cpu)
    except MemoryFault:
        return None
