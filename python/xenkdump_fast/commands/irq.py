"""``irq``: interrupts and their handlers."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict
from ..linux.interrupts import Action, Function, Interrupt, Interrupts
from ..output.escape import visible
from ..output.json_types import Count, Hex, Stream
from ..parsing import number
from ..session import Domain
from . import cpu_lists
from .contract import Operands, UsageError
from .selection import for_each

OPERANDS = Operands("IRQ", "the number of an interrupt; all without an operand")


class Options(NamedTuple):
    """What to show."""

    #: Numbers of interrupts.
    operands: Sequence[str] = ()
    #: Only those with a descriptor.
    used: bool = False
    #: How often they occurred on each CPU.
    counts: bool = False
    #: Which CPUs may handle them.
    affinity: bool = False
    #: The handlers of softirqs.
    softirqs: bool = False
    #: The interrupt descriptor table.
    vectors: bool = False
    #: CPUs whose counts are shown, as in "0,3-4"; None for all.
    cpus: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``irq``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-u", "--used", action="store_true", help="only those with a descriptor")
    what.add_argument(
        "-s", "--counts", action="store_true", help="how often they occurred on each CPU"
    )
    what.add_argument("-a", "--affinity", action="store_true", help="the CPUs that may handle them")
    what.add_argument("-b", "--softirqs", action="store_true", help="the handlers of softirqs")
    what.add_argument("-d", "--vectors", action="store_true", help="the interrupt descriptor table")
    parser.add_argument(
        "-c", "--cpus", metavar="CPUS", help="with -s: only these CPUs, as in 0,3-4"
    )


def run(target: Domain, options: Options = Options()) -> "Descriptors | Counts | Affinity | Table":
    """Reads interrupts. AbsentError if the types are not known or no chosen interrupt exists."""
    kernel = target.kernel
    interrupts = Interrupts(kernel)
    if sum(options[1:6]) > 1:
        raise UsageError("only one of -u, -s, -a, -b and -d")
    if options.cpus is not None and not options.counts:
        raise UsageError("argument -c/--cpus: only with -s/--counts")
    if options.softirqs or options.vectors:
        if options.operands:
            raise UsageError("-b and -d take no number of an interrupt")
        _ = kernel.unwinder  # loads the symbols of modules, which name addresses
        if options.softirqs:
            return Table(target.id, "softirqs", kernel.word, interrupts.softirqs())
        return Table(target.id, "vectors", kernel.word, interrupts.vectors())
    numbers, failure = _numbers(interrupts, options.operands)
    found = interrupts.read(numbers)
    if options.counts:
        cpus = cpu_lists.chosen(options.cpus, interrupts.areas)
        read = [(one, interrupts.counts(one, cpus)) for one in found if one.actions]
        return Counts(target.id, cpus, read, failure)
    if options.affinity:
        return Affinity(target.id, list(_affinities(interrupts, found)), failure)
    if options.used:
        return Descriptors(target.id, kernel.word, None, list(found), failure)
    return Descriptors(target.id, kernel.word, numbers, list(found), failure)


def _numbers(interrupts: Interrupts, operands: Sequence[str]) -> tuple[Sequence[int], str | None]:
    """The numbers that the operands name, all without any; and why some name none."""
    if not operands:
        return range(interrupts.count), None
    found: dict[int, None] = {}

    def add(text: str) -> None:
        value = number(text) if text.isascii() and text.isdecimal() else None
        if value is None or value >= interrupts.count:
            raise AbsentError(
                f"there is no interrupt {text}: the largest number is {interrupts.count - 1}"
            )
        found[value] = None

    failure = for_each(operands, add)
    return list(found), failure


def _affinities(
    interrupts: Interrupts, found: Iterator[Interrupt]
) -> Iterator[tuple[Interrupt, list[int] | None]]:
    for one in found:
        if one.actions:
            cpus = None
            with suppress(AbsentError):
                cpus = interrupts.affinity(one)
            yield one, cpus


class ActionJson(TypedDict):
    """A handler of an interrupt."""

    irqaction: Hex
    handler: Hex
    name: str | None


class InterruptJson(TypedDict):
    """An interrupt. ``counts`` with ``-s``, one for each of ``cpus``; ``affinity`` with ``-a``."""

    irq: Count
    irq_desc: Hex
    chip: str | None
    flow: str | None
    actions: list[ActionJson]
    counts: NotRequired[list[Count | None]]
    affinity: NotRequired[list[Count] | None]


class FunctionJson(TypedDict):
    """The function of a softirq or a vector. ``name`` is null without a symbol."""

    number: Count
    address: Hex
    name: str | None


class JSON(TypedDict):
    """What ``irq --json`` prints. ``cpus`` with ``-s``; ``functions`` with ``-b`` and ``-d``."""

    domain: Count
    cpus: NotRequired[list[Count]]
    interrupts: NotRequired[Stream[InterruptJson]]
    functions: NotRequired[list[FunctionJson]]


class Descriptors(NamedTuple):
    """Interrupts and their handlers."""

    domain: int
    word: int
    #: The numbers to list, also of those without a descriptor; None for ``interrupts``.
    numbers: Sequence[int] | None
    interrupts: Sequence[Interrupt]
    failure: str | None

    def text(self) -> Iterator[str]:
        """A line per handler, as crash."""
        width = 2 * self.word
        unused = f"{'(unused)':^{width}}"
        yield f" IRQ  {'IRQ_DESC/_DATA':^{width}}  {'IRQACTION':^{width}}  NAME"
        known = {one.number: one for one in self.interrupts}
        for irq in known if self.numbers is None else self.numbers:
            one = known.get(irq)
            if one is None:
                yield f"{irq:3}   {unused}  {unused}".rstrip()
                continue
            start = f"{irq:3}   {one.address:{width}x}"
            if not one.actions:
                yield f"{start}  {unused}".rstrip()
            for action in one.actions:
                name = "" if action.name is None else f'"{visible(action.name)}"'
                yield f"{start}  {action.address:{width}x}  {name}".rstrip()
                start = " " * len(start)

    def json(self) -> JSON:
        """Those with a descriptor."""
        return {"domain": self.domain, "interrupts": map(_interrupt, self.interrupts)}


class Counts(NamedTuple):
    """How often interrupts occurred."""

    domain: int
    cpus: Sequence[int]
    interrupts: Sequence[tuple[Interrupt, list[int | None]]]
    failure: str | None

    def text(self) -> Iterator[str]:
        """As crash and /proc/interrupts."""
        yield "     " + " ".join(f"{f'CPU{cpu}':>10}" for cpu in self.cpus)
        chips = [_chip(one) for one, _ in self.interrupts]
        width = max([15, *map(len, chips)])
        for (one, counts), chip in zip(self.interrupts, chips, strict=True):
            shown = " ".join(f"{'?' if count is None else count:>10}" for count in counts)
            yield f"{one.number:3}: {shown}  {chip:<{width}}  {_names(one)}".rstrip()

    def json(self) -> JSON:
        """The same."""
        return {
            "domain": self.domain,
            "cpus": list(self.cpus),
            "interrupts": (
                {**_interrupt(one), "counts": counts} for one, counts in self.interrupts
            ),
        }


class Affinity(NamedTuple):
    """Which CPUs may handle interrupts."""

    domain: int
    interrupts: Sequence[tuple[Interrupt, list[int] | None]]
    failure: str | None

    def text(self) -> Iterator[str]:
        """As crash."""
        yield f"IRQ {'NAME':<20} AFFINITY"
        for one, cpus in self.interrupts:
            shown = "?" if cpus is None else cpu_lists.ranges(cpus)
            yield f"{one.number:3} {_names(one):<20} {shown}"

    def json(self) -> JSON:
        """The same."""
        return {
            "domain": self.domain,
            "interrupts": ({**_interrupt(one), "affinity": cpus} for one, cpus in self.interrupts),
        }


class Table(NamedTuple):
    """The functions of softirqs or of vectors."""

    domain: int
    #: ``softirqs`` or ``vectors``.
    what: str
    word: int
    functions: Sequence[Function]

    def text(self) -> Iterator[str]:
        """As crash."""
        width = 2 * self.word
        if self.what == "vectors":
            for one in self.functions:
                yield f"{f'[{one.number}]':>5} {visible(one.name or f'{one.address:0{width}x}')}"
            return
        yield f"SOFTIRQ_VEC {'ACTION':^{width}}".rstrip()
        for one in self.functions:
            name = "" if one.name is None else f"<{visible(one.name)}>"
            yield f"{f'[{one.number}]':^11} {f'{one.address:x}':^{width}}  {name}".rstrip()

    def json(self) -> JSON:
        """The same."""
        return {
            "domain": self.domain,
            "functions": [
                {"number": one.number, "address": hex(one.address), "name": one.name}
                for one in self.functions
            ],
        }


def _chip(interrupt: Interrupt) -> str:
    """The controller and how it is handled, as crash."""
    return "-".join(visible(name) for name in (interrupt.chip, interrupt.flow) if name)


def _names(interrupt: Interrupt) -> str:
    """The names of its handlers."""
    return ",".join(visible(action.name) for action in interrupt.actions if action.name)


def _interrupt(one: Interrupt) -> InterruptJson:
    return {
        "irq": one.number,
        "irq_desc": hex(one.address),
        "chip": one.chip,
        "flow": one.flow,
        "actions": [_action(action) for action in one.actions],
    }


def _action(action: Action) -> ActionJson:
    return {
        "irqaction": hex(action.address),
        "handler": hex(action.handler),
        "name": action.name,
    }
