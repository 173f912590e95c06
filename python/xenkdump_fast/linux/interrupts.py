"""Interrupts: their descriptors and handlers, softirqs, and the interrupt descriptor table."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .._native import AbsentError, MemoryFault
from ..isolation import isolated
from ..limits import MAX_CPUS, MAX_INTERRUPT_READ, MAX_IRQ_ACTIONS, MAX_IRQS, MAX_SOFTIRQS
from . import code_names, percpu, trees
from .kernel import Kernel
from .layouts import Number
from .structs import Structs, batches
from .typed import types

#: Gates of the interrupt descriptor table: one for each vector.
_VECTORS = 256
_MAX_NAME = 128


class Action(NamedTuple):
    """A handler of an interrupt."""

    #: Address of its struct irqaction.
    address: int
    #: None if it has none, as that of a chained interrupt.
    name: str | None
    handler: int


class Interrupt(NamedTuple):
    """An interrupt descriptor."""

    number: int
    #: Address of its struct irq_desc.
    address: int
    actions: Sequence[Action]
    #: The name of its controller; None if it has none.
    chip: str | None
    #: How it is handled: ``edge``, ``fasteoi``, ...; None if it has no name.
    flow: str | None


class Function(NamedTuple):
    """The function of a softirq or of a vector."""

    number: int
    address: int
    #: Its symbol; None if there is none.
    name: str | None


class Interrupts:
    """Reads the interrupts of a kernel. Symbols of modules are known once it has an unwinder."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @cached_property
    def count(self) -> int:
        """The number of interrupts that there can be."""
        # 7.2, b99dc723b12e: renamed.
        new = "total_nr_irqs" in self._kernel.symbols
        count = self._kernel.variable("total_nr_irqs" if new else "nr_irqs", 4)
        if count > MAX_IRQS:
            raise AbsentError(f"the number of interrupts is {count}, more than {MAX_IRQS}")
        return count

    @cached_property
    def descriptors(self) -> dict[int, int]:
        """The address of the descriptor of each interrupt that has one.

        A damaged tree ends with a warning.
        """
        kernel = self._kernel
        # 6.5, 721255b9826b: a maple tree in place of a radix tree.
        if "sparse_irqs" in kernel.symbols:
            kind, root = "maple", kernel.symbol("sparse_irqs")
        elif "irq_desc_tree" in kernel.symbols:
            kind, root = "xarray", kernel.symbol("irq_desc_tree")
        else:
            raise kernel.missing("sparse_irqs", "irq_desc_tree")
        found: dict[int, int] = {}
        with (
            kernel.budget("interrupt descriptors", MAX_INTERRUPT_READ),
            isolated("the interrupts are not complete", kernel.warn),
        ):
            for entry in trees.walk(kernel, kind, root):
                if entry.first is None or entry.first >= self.count or entry.first != entry.last:
                    raise AbsentError(f"the tree has {entry.value:#x} at {entry.first}")
                found[entry.first] = entry.value
        return found

    def read(self, numbers: Iterable[int]) -> Iterator[Interrupt]:
        """The descriptors of these interrupts, of those that have one."""
        kernel, known = self._kernel, self.descriptors
        members = ["irq_desc.action", "irq_desc.irq_data.chip", "irq_desc.name"]
        actions = kernel.object_budget("handlers of interrupts", kernel.types.sizeof("irqaction"))
        names: dict[int, str | None] = {0: None}
        for batch in batches(number for number in numbers if number in known):
            structs = Structs(kernel, [known[number] for number in batch], members)
            for number in batch:
                at = known[number]
                with isolated(f"the interrupt {number} cannot be read", kernel.warn):
                    first, chip, flow = (structs.read(at, member) for member in members)
                    handlers = []
                    what = f"the handlers of the interrupt {number} are not complete"
                    with isolated(what, kernel.warn):
                        for action in actions.take(self._linked(first)):
                            handlers.append(self._action(action))  # noqa: PERF401 - kept
                    for pointer, member in ((chip, "irq_chip.name"), (flow, None)):
                        if pointer not in names:
                            names[pointer] = self._name(pointer, member)
                    yield Interrupt(number, at, handlers, names[chip], names[flow])

    def _linked(self, address: int) -> Iterator[int]:
        """The actions from one on."""
        seen: set[int] = set()
        while address:
            if address in seen or len(seen) >= MAX_IRQ_ACTIONS:
                raise AbsentError(f"the list continues with {address:#x} after {len(seen)}")
            seen.add(address)
            yield address
            address = self._kernel.read(address, "irqaction.next")

    def _action(self, at: int) -> Action:
        kernel = self._kernel
        handler = kernel.read(at, "irqaction.handler")
        return Action(at, self._name(at, "irqaction.name"), handler)

    def _name(self, address: int, member: str | None) -> str | None:
        """The string at an address, or that a member of the struct there points to."""
        kernel = self._kernel
        with isolated("a name of an interrupt is not known", kernel.warn):
            if member is not None:
                address = kernel.read(address, member)
            return kernel.string(address, _MAX_NAME) if address else None
        return "?"

    # Counts and CPUs

    @cached_property
    def areas(self) -> dict[int, int]:
        """The offset of the per-CPU area of each CPU."""
        return percpu.offsets(self._kernel)

    def counts(self, interrupt: Interrupt, cpus: Sequence[int]) -> list[int | None]:
        """How often it occurred on each of these CPUs; None if that cannot be read."""
        kernel = self._kernel
        base = kernel.read(interrupt.address, "irq_desc.kstat_irqs")
        # 6.10, 86d2a2f51fba: a struct in place of the number.
        offset = kernel.offset("irqstat.cnt") if kernel.has("irqstat.cnt") else 0
        count = Number(offset, 4)
        found: list[int | None] = []
        places = [base + self.areas[cpu] & kernel.last for cpu in cpus]
        structs = Structs(kernel, places if base else [], [count])
        for at in places:
            try:
                found.append(structs.read(at, count) if base else 0)
            except MemoryFault:
                found.append(None)
        return found

    def affinity(self, interrupt: Interrupt) -> list[int]:
        """The CPUs that may handle it."""
        kernel = self._kernel
        at, of, size = self._affinity
        start = interrupt.address + at & kernel.last
        if of == "ptr":
            start = kernel.pointer(start)
        data = np.frombuffer(kernel.data(start, size), np.uint8)
        bits = np.nonzero(np.unpackbits(data, bitorder="little"))[0].tolist()
        return [cpu for cpu in bits if cpu < self._cpu_count]

    @cached_property
    def _cpu_count(self) -> int:
        kernel = self._kernel
        count = max(percpu.possible(kernel), default=0) + 1
        if "nr_cpu_ids" in kernel.symbols:
            count = kernel.variable("nr_cpu_ids", 4)
        return min(max(count, 1), MAX_CPUS)

    @cached_property
    def _affinity(self) -> tuple[int, str, int]:
        """Offset and kind of the mask in a descriptor, and its size in bytes.

        It is a pointer with CONFIG_CPUMASK_OFFSTACK, else an array of one.
        """
        kernel = self._kernel
        struct = kernel.types.graph.find("struct irq_desc")
        outer = types.member(struct, "irq_common_data")
        place = types.member(outer.type, "affinity")
        kind = types.kind(place.type)
        size = (self._cpu_count + 8 * kernel.word - 1) // (8 * kernel.word) * kernel.word
        if kind != "ptr":
            size = min(size, types.sizeof(place.type, kernel.word))
        return (outer.bits + place.bits) // 8, kind, size

    # Softirqs and vectors

    def softirqs(self) -> list[Function]:
        """The handlers of softirqs."""
        kernel = self._kernel
        native = kernel.types.native
        if native is None:
            raise kernel.untyped("neither BTF nor DWARF")
        count = native.enumerator("NR_SOFTIRQS")
        if not 0 <= count <= MAX_SOFTIRQS:
            raise AbsentError(f"the number of softirqs is {count}")
        step, vector = kernel.types.sizeof("softirq_action"), kernel.symbol("softirq_vec")
        return [
            self._function(i, kernel.read(vector + i * step, "softirq_action.action"))
            for i in range(count)
        ]

    def vectors(self) -> list[Function]:
        """The functions of the interrupt descriptor table."""
        kernel = self._kernel
        size = 16 if kernel.word == 8 else 8
        data = kernel.data(kernel.symbol("idt_table"), _VECTORS * size)
        found = []
        for i in range(_VECTORS):
            gate = data[i * size : (i + 1) * size]
            # The offset is in three parts (two on i386).
            found.append(
                self._function(i, int.from_bytes(gate[:2] + gate[6:12], "little") & kernel.last)
            )
        return found

    def _function(self, number: int, address: int) -> Function:
        return Function(number, address, code_names.name_of(self._kernel, address))
