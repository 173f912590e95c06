"""Assigns saved registers to CPUs."""

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice

from .._contexts import suppress
from .._native import AbsentError, MemoryFault, Note
from .._typing import NamedTuple
from ..limits import MAX_CPUS
from . import percpu, stacks
from .kernel import Kernel
from .layouts import Number
from .structs import Structs
from .tasks import Task

#: Xen's constant for a CPU that has no vCPU (include/xen/interface/... XEN_VCPU_ID_INVALID).
XEN_VCPU_ID_INVALID = 0xFFFF_FFFF
#: The value of xen_vcpu_id.
_VCPU_ID = Number(0, 4)


class VcpuContext(NamedTuple):
    """The registers of one of a kernel's CPUs, from any source."""

    registers: Mapping[str, int]
    #: Where they were saved, in words.
    where: str
    #: Xen's number of the vCPU, if known.
    vcpu: int | None = None
    #: Position among the NT_PRSTATUS notes, for the dump of a bare machine.
    note: int | None = None
    #: The pid of the CPU's task, if a kernel wrote the note.
    pid: int | None = None
    #: QEMU's number of the CPU, if QEMU wrote the note. Linux may number CPUs differently.
    qemu_cpu: int | None = None
    #: Whether newer registers may exist that cannot be found.
    stale: bool = False


#: What is not assigned yet: contexts by position, and CPUs with the tasks that they ran.
_Contexts = Mapping[int, VcpuContext]
_Active = Mapping[int, Task]
#: Positions of contexts and the CPUs that they belong to.
_Pairs = Iterator[tuple[int, int]]


def assign(
    kernel: Kernel, contexts: Iterable[VcpuContext], active: _Active
) -> dict[int, VcpuContext]:
    """Assigns registers to CPUs, only on evidence: the order of notes is not evidence.

    A note may be missing (if a CPU was offline or did not respond to the NMI) or empty, and then
    later notes move up. The evidence, the strongest first: Xen's vCPU number (CPU, vCPU and pCPU
    are three different numbers), the kernel's own copy of the note, the stack that the stack
    pointer is on, the pid of the task, the per-CPU base in gs, the CPU's own number if the kernel
    has no numbers of vCPUs. A CPU without a note gets the registers of the kernel's copy. QEMU's
    numbers come last: a capture kernel may have been running when QEMU wrote them.
    """
    # A kernel does not write more notes than there can be CPUs.
    remaining = dict(enumerate(islice(contexts, MAX_CPUS)))
    found: dict[int, VcpuContext] = {}

    def take(method: Callable[[Kernel, _Contexts, _Active], _Pairs]) -> None:
        free = {cpu: active[cpu] for cpu in active if cpu not in found}
        for number, cpu in tuple(method(kernel, remaining, free)):
            if cpu in free and cpu not in found:
                found[cpu] = remaining.pop(number)

    take(_by_vcpu)
    unknown = [cpu for cpu in active if cpu not in found]
    copies = {cpu: copy for cpu in unknown if (copy := _crash_note(kernel, cpu)) is not None}
    take(partial(_by_copy, copies=copies))
    take(_by_stack)
    take(_by_pid)
    take(_by_gs)
    take(_by_same_number)
    for cpu, copy in copies.items():
        # The copy of another task is not from this crash.
        if cpu not in found and copy.pid == active[cpu].pid:
            kernel.warn(f"CPU {cpu}: no saved registers in the notes; using those in crash_notes")
            found[cpu] = copy
    take(_by_qemu_cpu)
    for cpu, context in found.items():
        if context.stale:
            kernel.warn(f"CPU {cpu}: its registers in {context.where} may be stale")
    for context in remaining.values():
        if context.note is not None:
            kernel.warn(f"NT_PRSTATUS note {context.note} cannot be assigned to a CPU")
    return found


def _by_vcpu(kernel: Kernel, contexts: _Contexts, free: _Active) -> _Pairs:
    """By Xen's vCPU number, which differs between CPUs."""
    ids = _vcpu_ids(kernel, free)
    counts = Counter(ids.values())
    cpus = {vcpu: cpu for cpu, vcpu in ids.items() if counts[vcpu] == 1}
    for number, context in contexts.items():
        if context.vcpu is not None and context.vcpu in cpus:
            yield number, cpus[context.vcpu]


def _by_copy(
    kernel: Kernel, contexts: _Contexts, free: _Active, *, copies: Mapping[int, VcpuContext]
) -> _Pairs:
    """By the copy in memory, from which /proc/vmcore made the note."""
    cpus = {_content(copy): cpu for cpu, copy in copies.items()}
    for number, context in contexts.items():
        if context.note is not None and (cpu := cpus.get(_content(context))) is not None:
            yield number, cpu


def _content(context: VcpuContext) -> tuple[int | None, ...]:
    return context.pid, *context.registers.values()


def _by_stack(kernel: Kernel, contexts: _Contexts, free: _Active) -> _Pairs:
    """By the stack pointer: it is on the stack of the task that the CPU ran."""
    size = kernel.stack_size
    cpus: dict[int, int] = {}
    for cpu in free:
        cpus.setdefault(free[cpu].stack, cpu)
    lowest = sorted(cpus)
    for number, context in contexts.items():
        sp = context.registers.get(stacks.SP[kernel.word], 0)
        below = bisect_right(lowest, sp)
        if below and sp < lowest[below - 1] + size and not _in_user_mode(context):
            yield number, cpus[lowest[below - 1]]


def _by_pid(kernel: Kernel, contexts: _Contexts, free: _Active) -> _Pairs:
    """By the pid of the task, unless it is 0 as in all idle tasks."""
    cpus = {free[cpu].pid: cpu for cpu in free}
    for number, context in contexts.items():
        if context.pid and context.pid in cpus:
            yield number, cpus[context.pid]


def _by_gs(kernel: Kernel, contexts: _Contexts, free: _Active) -> _Pairs:
    """By the kernel's per-CPU base in gs."""
    cpus = _bases(kernel, free)
    for number, context in contexts.items():
        base = context.registers.get("gs_base")
        # In notes that a kernel writes, gs is that of the task.
        if base and base in cpus and context.pid is None and not _in_user_mode(context):
            yield number, cpus[base]


def _by_same_number(kernel: Kernel, contexts: _Contexts, free: _Active) -> _Pairs:
    """By Xen's vCPU number, in a kernel that does not know that it runs under Xen (``nopv``).

    It has vCPU 0 for every CPU.
    """
    if any(_vcpu_ids(kernel, free).values()):
        return
    for number, context in contexts.items():
        if context.vcpu is not None:
            yield number, context.vcpu


def _by_qemu_cpu(kernel: Kernel, contexts: _Contexts, free: _Active) -> _Pairs:
    """By QEMU's number."""
    for number, context in contexts.items():
        if context.qemu_cpu is not None:
            yield number, context.qemu_cpu


def _in_user_mode(context: VcpuContext) -> bool:
    """Whether a note was taken in user mode, where sp and gs may have any value.

    Only for notes: the kernel of a PV guest has privilege level 1 or 3, too.
    """
    return context.note is not None and context.registers.get("cs", 0) & 3 == 3


#: struct elf_note of an NT_PRSTATUS: n_namesz, n_descsz, n_type, then the padded name.
_NOTE_HEADER = struct.Struct("<III8s")
_PRSTATUS_SIZE = {4: 144, 8: 336}
_NT_PRSTATUS = 1


def _crash_note(kernel: Kernel, cpu: int) -> VcpuContext | None:
    """The registers that a CPU saved in its ``crash_notes`` (2.6.16 on); None if it did not."""
    size = _PRSTATUS_SIZE[kernel.word]
    header = _NOTE_HEADER.pack(len(b"CORE\0"), size, _NT_PRSTATUS, b"CORE")
    try:
        note = kernel.pointer(kernel.symbol("crash_notes"))
        addresses = [percpu.shifted(kernel, note, cpu)]
    except (AbsentError, MemoryFault):
        return None
    with suppress(MemoryFault):
        # Before 2.6.30 (fbf59bc9d74d) alloc_percpu() returned the complement of a pointer array.
        addresses.append(kernel.pointer(~note + cpu * kernel.word))
    for address in addresses:
        with suppress(MemoryFault):
            if kernel.data(address, len(header)) != header:
                continue
            fields = Note.prstatus(kernel.data(address + len(header), size))
            if fields is not None:
                return VcpuContext(fields["registers"], "crash_notes", pid=fields["pid"])
    return None


def _vcpu_ids(kernel: Kernel, cpus: Iterable[int]) -> dict[int, int]:
    """Xen's numbers of CPUs: xen_vcpu_id since 4.8, before that the same as the CPUs'."""
    ids = {cpu: cpu for cpu in cpus}
    if "xen_vcpu_id" not in kernel.symbols:
        return ids
    variable = kernel.symbol("xen_vcpu_id")
    offsets = percpu.read_offsets(kernel, list(ids))
    places = {cpu: variable + at & kernel.last for cpu, at in offsets if at is not None}
    found, _ = Structs(kernel, places.values(), [_VCPU_ID]).column(_VCPU_ID)
    for cpu, at in places.items():
        vcpu = found.get(at, XEN_VCPU_ID_INVALID)
        if vcpu != XEN_VCPU_ID_INVALID:
            ids[cpu] = vcpu
    return ids


def _bases(kernel: Kernel, cpus: Iterable[int]) -> dict[int, int]:
    """CPUs by the value of gs_base in kernel mode."""
    if "__per_cpu_offset" in kernel.symbols:
        return {at: cpu for cpu, at in percpu.read_offsets(kernel, list(cpus)) if at is not None}
    found = {}
    for cpu in cpus:
        with suppress(MemoryFault):
            if (at := percpu.processor_data_area(kernel, cpu)) is not None:
                found[at] = cpu
    return found
