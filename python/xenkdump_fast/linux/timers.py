"""Pending timers: those of the timer wheel, and high-resolution timers."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from .._native import AbsentError
from ..budget import Budget
from ..isolation import isolated
from ..limits import MAX_TIMER_BASES, MAX_TIMER_LISTS, MAX_TIMER_READ, MAX_TIMERS
from . import clock, code_names, percpu, trees
from .kernel import Kernel
from .linked_structs import LinkedStructs
from .structs import Structs, batches
from .typed import types


class Timer(NamedTuple):
    """A pending timer."""

    #: Address of its timer_list or hrtimer.
    address: int
    #: When it expires: in jiffies, or in nanoseconds by its clock.
    expires: int
    #: The earliest time for it; the same unless the timer is a high-resolution one with slack.
    soft_expires: int
    function: int
    #: The function's symbol; None if there is none.
    name: str | None


class Base(NamedTuple):
    """The timers of one base of a CPU, or of one clock, by the time at which they expire."""

    cpu: int
    #: ``BASE_STD``, ...; the number of the clock for high-resolution timers.
    name: str
    #: Address of its timer_base or hrtimer_clock_base.
    address: int
    timers: Sequence[Timer]
    #: Whether all timers could be read; if not, ``kernel.warnings`` says why.
    complete: bool
    #: The time by its clock now; None if it is not known.
    now: int | None
    #: The function that reads the clock, until 6.18 (009eb5da29a9); None if it is not known.
    clock: str | None = None


class CpuBase(NamedTuple):
    """The high-resolution timers of a CPU."""

    cpu: int
    #: Address of its hrtimer_cpu_base.
    address: int
    clocks: Sequence[Base]


class Timers:
    """Reads the timers of a kernel. Symbols of modules are known once it has an unwinder."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        #: The offset of the per-CPU area of each CPU.
        self.areas = percpu.offsets(kernel)
        self._names: dict[int, str | None] = {}
        self._budget = Budget("timers", MAX_TIMER_READ)

    @cached_property
    def jiffies(self) -> int:
        """The time in ticks."""
        kernel = self._kernel
        return kernel.pointer(kernel.symbol("jiffies"))

    @cached_property
    def _base_names(self) -> Sequence[str]:
        """The names of a CPU's bases, by their number."""
        kernel = self._kernel
        size = kernel.types.sizeof("timer_base")
        count = 0
        with suppress(AbsentError):  # not in DWARF
            count = types.length(kernel.types.graph.variable("timer_bases"))
        if not count:
            count = max((s.size // size for s in kernel.symbols.all("timer_bases")), default=0)
        if count == 3:  # 6.9, 83a665dc99a7
            return "BASE_LOCAL", "BASE_GLOBAL", "BASE_DEF"
        if count == 2:
            return "BASE_STD", "BASE_DEF"
        if count == 1:  # without CONFIG_NO_HZ_COMMON
            return ("BASE_LOCAL" if "timer_events" in kernel.types else "BASE_STD",)
        raise AbsentError(f"{kernel.image.path}: {count} timer bases per CPU are not known")

    def wheel(self, cpus: Iterable[int]) -> list[Base]:
        """The timers of the wheel (4.8 on, 500462a9de65) of these CPUs.

        AbsentError if its layout is not known.
        """
        kernel = self._kernel
        vectors = kernel.member("timer_base.vectors")
        lists = vectors.count or 0
        if not 0 < lists <= MAX_TIMER_LISTS:
            raise AbsentError(f"{kernel.image.path}: a timer_base has {lists} lists")
        start, size = kernel.symbol("timer_bases"), kernel.types.sizeof("timer_base")
        bases = [
            (cpu, name, start + self.areas[cpu] + size * i & kernel.last)
            for cpu in cpus
            for i, name in enumerate(self._base_names)
        ]
        structs = LinkedStructs(kernel, "timer_list.entry", MAX_TIMERS)
        found = []
        for cpu, name, base in bases:
            heads = [base + vectors.offset + kernel.word * i for i in range(lists)]
            problems: list[str] = []
            timers: list[Timer] = []
            what = f"the timers of CPU {cpu} in {name} are not complete"
            with isolated(what, problems.append), kernel.charging(self._budget):
                addresses: list[int] = []
                for one in structs.lists(heads, "null-terminated"):
                    addresses += one.entries
                    if one.problem is not None:
                        problems.append(f"{what}: {one.problem}")
                keys = "timer_list.expires", "timer_list.expires", "timer_list.function"
                timers = self._read(addresses, keys, problems, what)
            for text in dict.fromkeys(problems):
                kernel.warn(text)
            found.append(Base(cpu, name, base, timers, not problems, self.jiffies))
        return found

    def _read(
        self, addresses: Sequence[int], keys: Sequence[str], problems: list[str], what: str
    ) -> list[Timer]:
        """The timers at these addresses, by expiry."""
        found = []
        for batch in batches(addresses):
            structs = Structs(self._kernel, batch, keys)
            for at in batch:
                with isolated(what, problems.append):
                    expires, soft, function = (structs.read(at, key) for key in keys)
                    found.append(Timer(at, expires, soft, function, self._name(function)))
        return sorted(found, key=lambda timer: timer.expires)

    def _name(self, function: int) -> str | None:
        if function not in self._names:
            self._names[function] = code_names.name_of(self._kernel, function)
        return self._names[function]

    # High-resolution timers

    def high_resolution(self, cpus: Iterable[int]) -> list[CpuBase]:
        """The high-resolution timers of these CPUs, by clock."""
        kernel = self._kernel
        start = kernel.symbol("hrtimer_bases")
        clocks = kernel.member("hrtimer_cpu_base.clock_base")
        count, size = clocks.count or 0, kernel.types.sizeof("hrtimer_clock_base")
        if not 0 < count <= MAX_TIMER_BASES:
            raise AbsentError(f"{kernel.image.path}: a CPU has {count} clocks")
        now: int | None = None
        with isolated("the time is not known", kernel.warn):
            now = clock.monotonic(kernel)
        found = []
        for cpu in cpus:
            base = start + self.areas[cpu] & kernel.last
            clock_bases = [
                self._clock(cpu, i, base + clocks.offset + size * i & kernel.last, now)
                for i in range(count)
            ]
            found.append(CpuBase(cpu, base, clock_bases))
        return found

    def _clock(self, cpu: int, number: int, base: int, now: int | None) -> Base:
        kernel = self._kernel
        what = f"the timers of CPU {cpu} by clock {number} are not complete"
        root, _, expires = self._tree
        problems: list[str] = []
        timers: list[Timer] = []
        current, name = None, None
        with isolated(what, problems.append), kernel.charging(self._budget):
            if now is not None:
                current = now + kernel.read(base, "hrtimer_clock_base.offset")
            if kernel.has("hrtimer_clock_base.get_time"):
                name = self._name(kernel.read(base, "hrtimer_clock_base.get_time"))
            addresses: list[int] = []
            with isolated(what, problems.append):
                nodes = (entry.value for entry in trees.walk(kernel, "rbtree", base + root))
                for at in self._high_resolution.of(nodes):
                    addresses.append(at)  # noqa: PERF402 - those before an error are kept
            keys = expires, "hrtimer._softexpires", "hrtimer.function"
            timers = self._read(addresses, keys, problems, what)
        for text in dict.fromkeys(problems):
            kernel.warn(text)
        return Base(cpu, str(number), base, timers, not problems, current, name)

    @cached_property
    def _high_resolution(self) -> LinkedStructs:
        _, node, _ = self._tree
        return LinkedStructs(self._kernel, node, MAX_TIMERS)

    @cached_property
    def _tree(self) -> tuple[int, str, str]:
        """Offset of the root in a clock base; the paths of a node in an hrtimer, and of expires."""
        kernel = self._kernel
        active = "hrtimer_clock_base.active"
        # The root was ``head`` until 5.4 (511885d7061e), then one with its leftmost node; since 7.2
        # nodes are also linked. In each of them the root, or the node, is what comes first.
        for root in (f"{active}.rb_root.rb_root", f"{active}.head"):
            if kernel.has(root):
                path = "hrtimer.node.node"
                node = f"{path}.node" if kernel.has(f"{path}.node") else path
                return kernel.offset(root), node, "hrtimer.node.expires"
        raise AbsentError(f"{kernel.image.path}: the tree of an hrtimer_clock_base is not known")
