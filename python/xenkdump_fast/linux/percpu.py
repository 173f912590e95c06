"""Per-cpu variables, and the sets of CPUs."""

from collections.abc import Iterator, Sequence

from .._native import AbsentError, MemoryFault
from . import compat
from .kernel import Kernel
from .layouts import Number
from .structs import Structs

#: More CPUs than any kernel was built for; bounds what a broken count can ask for.
MAX_CPUS = 8192
#: A per-cpu area is some pages, of which a dump without pages of zeros lacks some: a quarter of it
#: is taken to be there at the least, and a page.
PAGE, PART = 4096, 4


def address(kernel: Kernel, key: str, cpu: int) -> int:
    """Where ``cpu``'s instance of the per-cpu variable lies."""
    return shifted(kernel, kernel.symbol(key), cpu)


def shifted(kernel: Kernel, variable: int, cpu: int) -> int:
    """Where ``cpu``'s instance of a per-cpu variable lies, by what a __percpu pointer holds."""
    return (variable + offset(kernel, cpu)) & kernel.last


def offset(kernel: Kernel, cpu: int) -> int:
    """How far ``cpu``'s per-cpu area lies from where per-cpu variables were linked."""
    offsets = kernel.symbols.get("__per_cpu_offset")
    if offsets is not None:
        return kernel.pointer(offsets + cpu * kernel.word)
    pda = processor_data_area(kernel, cpu)
    if pda is None:
        # Built without CONFIG_SMP: the one instance is the variable itself.
        return 0
    # The second word of struct x8664_pda, behind pcurrent.
    has = kernel.has("x8664_pda.data_offset")
    return kernel.pointer(pda + (kernel.offset("x8664_pda.data_offset") if has else kernel.word))


def processor_data_area(kernel: Kernel, cpu: int) -> int | None:
    """What gs leads to on x86_64 before 2.6.30: a CPU's struct x8664_pda; None on other kernels."""
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
    bits = int.from_bytes(kernel.data(symbol, size), "little")
    return [cpu for cpu in range(size * 8) if bits >> cpu & 1]


def possible(kernel: Kernel) -> list[int]:
    """The CPUs that the kernel has per-cpu areas for."""
    try:
        return mask(kernel, "cpu_possible")
    except AbsentError:
        return [0]


def areas(kernel: Kernel) -> dict[int, int | None]:
    """The possible CPUs with a per-cpu area of their own: no more than the dump can hold.

    Each with its ``offset``, or None where that cannot be read. What is done for each CPU is done
    for these. In a hostile dump all CPUs may share one area; in one of a kernel that died before it
    set them up they do.
    """
    symbols = kernel.symbols
    size = (symbols.get("__per_cpu_end") or 0) - (symbols.get("__per_cpu_start") or 0)
    room = kernel.most(max(size // PART, PAGE))
    found: dict[int, int | None] = {}
    offsets: set[int] = set()
    shared = 0
    for cpu, at in _offsets(kernel, possible(kernel)):
        if len(found) >= room:
            kernel.warn(f"there are more CPUs than the dump can hold: the first {room} are told")
            break
        # An offset that cannot be read is reported where the CPU's data is asked for.
        if at is None:
            found[cpu] = None
        elif at in offsets:
            shared += 1
        else:
            offsets.add(at)
            found[cpu] = at
    if shared:
        kernel.warn(f"{shared} of the possible CPUs have no per-cpu area of their own")
    return found


def _offsets(kernel: Kernel, cpus: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    """The ``offset`` of each CPU; None where it cannot be read."""
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
    """The CPUs that the machine (or Xen) gives the kernel."""
    try:
        return mask(kernel, "cpu_present")
    except AbsentError:
        return possible(kernel)


def online(kernel: Kernel) -> list[int]:
    """The CPUs that were online when the kernel died.

    panic() stops the other CPUs, which then leave cpu_online_mask (``stop_this_cpu``; under Xen
    ``stop_self``), but stay in cpu_active_mask, from which only a real unplug takes them.
    """
    found: set[int] = set()
    for key in ("cpu_online", "cpu_active"):
        try:
            found.update(mask(kernel, key))
        except (AbsentError, MemoryFault):
            continue
    return sorted(found) if found else possible(kernel)
