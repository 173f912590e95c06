"""Per-CPU variables, and the sets of CPUs."""

from collections.abc import Iterator, Sequence

from .._contexts import suppress
from .._native import AbsentError, MemoryFault
from ..budget import BudgetExceededError
from ..isolation import isolated
from ..limits import MAX_CPUS
from . import compat
from .kernel import Kernel
from .layouts import Number
from .structs import Structs

PAGE = 4096
#: A dump without pages of zeros lacks a part of each per-CPU area: assume that it has a quarter,
#: and at least one page.
PART = 4


def is_variable(kernel: Kernel, address: int) -> bool | None:
    """Whether a symbol is a per-CPU variable, whose instances are elsewhere.

    None if the kernel's symbols do not say it.
    """
    start, end = kernel.symbols.get("__per_cpu_start"), kernel.symbols.get("__per_cpu_end")
    if start is None or end is None or "__per_cpu_offset" not in kernel.symbols:
        return None
    return start <= address < end


def reject_per_cpu(kernel: Kernel, name: str, address: int) -> None:
    """AbsentError for a per-CPU variable, which no CPU has at the address of its symbol.

    The section of per-CPU variables in the image holds the values that CPUs start with. It can be
    read where it has addresses of its own: on i386, and since Linux 6.15 on x86_64.
    """
    if is_variable(kernel, address):
        raise AbsentError(
            f"{kernel.image.path}: {name} is a per-CPU variable: {name}:0 is that of CPU 0"
        )


def instance(kernel: Kernel, name: str, address: int, cpu: int) -> int:
    """The address of ``cpu``'s instance of a variable whose symbol has an address.

    AbsentError if it is not a per-CPU variable, or if there is no such CPU.
    """
    # The symbols of modules have per-CPU variables outside the section of the image.
    if name in kernel.symbols and is_variable(kernel, address) is False:
        raise AbsentError(f"{kernel.image.path}: {name} is not a per-CPU variable")
    if cpu not in possible(kernel):
        raise AbsentError(f"{kernel.image.path}: {name}:{cpu}: {cpu} is not a CPU")
    return shifted(kernel, address, cpu)


def address(kernel: Kernel, key: str, cpu: int) -> int:
    """The address of ``cpu``'s instance of a per-CPU variable."""
    return shifted(kernel, kernel.symbol(key), cpu)


def shifted(kernel: Kernel, variable: int, cpu: int) -> int:
    """The address of ``cpu``'s instance of a per-CPU variable, by a __percpu pointer."""
    return (variable + offset(kernel, cpu)) & kernel.last


def offset(kernel: Kernel, cpu: int) -> int:
    """The offset of ``cpu``'s per-CPU area from the addresses of per-CPU variables in the image."""
    offsets = kernel.symbols.get("__per_cpu_offset")
    if offsets is not None:
        return kernel.pointer(offsets + cpu * kernel.word)
    pda = processor_data_area(kernel, cpu)
    if pda is None:
        # Without CONFIG_SMP the only instance is the variable itself.
        return 0
    # The second word of struct x8664_pda, after pcurrent.
    has = kernel.has("x8664_pda.data_offset")
    return kernel.pointer(pda + (kernel.offset("x8664_pda.data_offset") if has else kernel.word))


def processor_data_area(kernel: Kernel, cpu: int) -> int | None:
    """A CPU's struct x8664_pda, the base of gs on x86_64 before 2.6.30; None on other kernels."""
    pointers = kernel.symbols.get("_cpu_pda")  # 2.6.16 on
    if pointers is not None:
        return kernel.pointer(pointers + cpu * kernel.word)
    array = kernel.symbols.get("cpu_pda")
    if array is not None and "x8664_pda" in kernel.types:
        return array + cpu * kernel.types.sizeof("x8664_pda")
    return None


def mask(kernel: Kernel, key: str) -> list[int]:
    """The CPUs in a cpumask such as ``cpu_online``, ascending."""
    symbol = kernel.symbol(key)
    sizes = [found.size for name in compat.SYMBOLS[key] for found in kernel.symbols.all(name)]
    size = min(max([kernel.word, *sizes]), MAX_CPUS // 8)
    count = size * 8
    if kernel.image.is_memory and "nr_cpu_ids" in kernel.symbols:  # since 2.6.28
        # The size of a symbol may be too large: it reaches to the next known one.
        count = max(1, min(count, kernel.number(kernel.symbols["nr_cpu_ids"], 4)))
    bits = int.from_bytes(kernel.data(symbol, -(-count // 8)), "little")
    return [cpu for cpu in range(count) if bits >> cpu & 1]


def possible(kernel: Kernel) -> list[int]:
    """The CPUs for which the kernel has per-CPU areas."""
    try:
        return mask(kernel, "cpu_possible")
    except MemoryFault as fault:
        return _assumed(kernel, fault)
    except AbsentError as error:
        # A kernel without CONFIG_SMP has no mask.
        if kernel.image.symbol_source == "kallsyms":
            kernel.warn(f"the CPUs are not known, a single one is assumed: {error}")
        return [0]


def _assumed(kernel: Kernel, fault: MemoryFault) -> list[int]:
    """The CPUs below ``nr_cpu_ids``, the number of the last possible one plus 1; else the first."""
    count = 1
    with suppress(AbsentError):
        count = min(max(kernel.variable("nr_cpu_ids", 4), 1), MAX_CPUS)
    assumed = "a single one is" if count == 1 else f"all {count} below nr_cpu_ids are"
    kernel.warn(f"the possible CPUs are not known, {assumed} assumed: {fault}")
    return list(range(count))


def areas(kernel: Kernel) -> dict[int, int | None]:
    """The possible CPUs with a per-CPU area of their own, at most as many as the dump can hold.

    Each with its ``offset``, or None if that cannot be read, which the caller reports; ``offsets``
    does so itself. Work per CPU is for these only. In a hostile dump all CPUs may share one area,
    and they do if the kernel crashed before it set them up.
    """
    symbols = kernel.symbols
    size = (symbols.get("__per_cpu_end") or 0) - (symbols.get("__per_cpu_start") or 0)
    budget = kernel.object_budget("per-CPU areas", max(size // PART, PAGE))
    found: dict[int, int | None] = {}
    known: set[int] = set()
    shared = 0
    for cpu, at in read_offsets(kernel, possible(kernel)):
        if at is not None and at in known:
            shared += 1
            continue
        try:
            budget.spend(1)
        except BudgetExceededError as error:
            kernel.warn(f"{error}: using the first {len(found)}")
            break
        # An offset that cannot be read is reported when the CPU's data is read.
        found[cpu] = at
        if at is not None:
            known.add(at)
    if shared:
        kernel.warn(f"{shared} of the possible CPUs have no per-CPU area of their own")
    return found


def offsets(kernel: Kernel) -> dict[int, int]:
    """The ``offset`` of each of the ``areas``; a warning for each that cannot be read."""
    found = {}
    for cpu, at in areas(kernel).items():
        with isolated(f"the per-CPU area of CPU {cpu} is not known", kernel.warn, MemoryFault):
            found[cpu] = offset(kernel, cpu) if at is None else at
    return found


def read_offsets(kernel: Kernel, cpus: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    """The ``offset`` of each CPU; None if it cannot be read."""
    array, word = kernel.symbols.get("__per_cpu_offset"), kernel.word
    if array is not None:
        entries = Structs(kernel, [array], [Number(cpu * word, word) for cpu in cpus])
    for cpu in cpus:
        try:
            if array is None:
                yield cpu, offset(kernel, cpu)
            else:
                yield cpu, entries.read(array, Number(cpu * word, word))
        except MemoryFault:
            yield cpu, None


def present(kernel: Kernel) -> list[int]:
    """The CPUs that the machine, or Xen, provides."""
    try:
        return mask(kernel, "cpu_present")
    except MemoryFault as fault:
        kernel.warn(f"the present CPUs are not known, all possible ones are assumed: {fault}")
    except AbsentError:
        pass
    return possible(kernel)


def online(kernel: Kernel) -> list[int]:
    """The CPUs that were online when the kernel crashed.

    panic() stops the other CPUs, which are then removed from cpu_online_mask (``stop_this_cpu``;
    under Xen ``stop_self``), but not from cpu_active_mask: only hot-unplug does that.
    """
    found: set[int] = set()
    for key in ("cpu_online", "cpu_active"):
        try:
            found.update(mask(kernel, key))
        except MemoryFault as fault:
            kernel.warn(f"the online CPUs are not certain: {key}: {fault}")
        except AbsentError:
            continue
    return sorted(found) if found else possible(kernel)
