"""Addresses in operands, and the memory that they are addresses of."""

import argparse
from collections.abc import Sequence
from contextlib import suppress

from .._native import AbsentError, AddressSpace, MemoryFault, Symbol, Symbols
from .._typing import TYPE_CHECKING, NamedTuple
from ..linux import tasks
from ..parsing import number
from ..session import Domain
from ..suggestions import UnknownNameError
from .selection import select

if TYPE_CHECKING:
    from argparse import _MutuallyExclusiveGroup as _Group

    from .._native import WordSize
    from ..xen.host import XenHost

#: Pids in an error.
MAX_SHOWN = 8
#: The operand and its help.
ADDRESS = "ADDRESS|SYMBOL[+OFFSET]"
ADDRESS_HELP = "an address in hex, or a symbol and an offset (decimal, or hex with 0x)"


class Program(NamedTuple):
    """A kernel or hypervisor: what addresses and names mean in it."""

    #: What messages name: the file of the symbols, else the dump.
    name: str
    #: Bytes of a word.
    word: "WordSize"
    #: Virtual memory.
    virtual: AddressSpace
    #: None of a hypervisor without xen-syms.
    symbols: Symbols | None
    #: The same with those of modules.
    code: Symbols | None

    @property
    def last(self) -> int:
        """The last address."""
        return (1 << 8 * self.word) - 1

    def address(self, operand: str) -> int:
        """The address that an operand denotes. Raises AbsentError."""
        symbol = self._symbol(operand)
        if symbol is not None:
            return symbol
        base, sign, text = operand.partition("+") if "+" in operand else operand.partition("-")
        symbol = self._symbol(base)
        if symbol is not None:
            offset = number(text, 0)
            if offset is None or offset < 0:
                problem = f"{text!r} is no offset: decimal, or hex with 0x"
                raise AbsentError(f"{operand}: {problem}")
            address: int | None = symbol + offset if sign == "+" else symbol - offset
        else:
            address = number(operand, 16)
        if address is None or not 0 <= address <= self.last:
            text = f"{operand}: neither an address nor a symbol of {self.name}"
            raise UnknownNameError(text, base, lambda: self.code.table().names if self.code else ())
        return address

    def _symbol(self, name: str) -> int | None:
        for symbols in (self.symbols, self.code):
            found = None if symbols is None else symbols.get(name)
            if found is not None:
                return found
        return None

    def symbol(self, address: int) -> Symbol | None:
        """The nearest symbol of the code or data at an address; None if no symbol covers it.

        It may be a label within a function, as in backtraces and in crash. The address behind a
        function is the return address of a call at its end, which does not return.
        """
        if self.code is None:
            return None
        covering = self.code.lookup(address)
        if covering is None or (covering.size and address - covering.address > covering.size):
            return None
        return self.code.nearest(address) or covering

    def label(self, address: int) -> tuple[str, int] | None:
        """The name of ``symbol`` and the offset from it."""
        found = self.symbol(address)
        return None if found is None else (found.name, address - found.address)


def program(target: "Domain | XenHost", *, with_modules: bool = True) -> Program:
    """The kernel of a domain, or the hypervisor."""
    if not isinstance(target, Domain):
        symbols = target.symbols
        name = target.symbols_path or target.dump.path
        word: WordSize = 8 if target.word == 8 else 4
        return Program(name, word, target.memory.virtual, symbols, symbols)
    kernel = target.kernel
    if with_modules:
        _ = kernel.unwinder  # which loads the symbols of modules
    return Program(kernel.image.path, kernel.word, target.virtual, kernel.symbols, kernel.code)


def add_space_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose the memory: of a task, pseudo-physical, machine."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "-c",
        "--pid",
        metavar="PID|TASK|COMM",
        help="addresses in the memory of this task, with its user space",
    )
    which.add_argument(
        "-p", "--physical", action="store_true", help="addresses in the domain's physical memory"
    )
    which.add_argument(
        "-m", "--machine", action="store_true", help="addresses in the machine's memory"
    )


def add_unit_options(parser: argparse.ArgumentParser, what: str) -> "_Group":
    """Adds the options for the size of ``what``, in bits; returns their exclusive group."""
    units = parser.add_mutually_exclusive_group()
    for bits in (8, 16, 32, 64):
        units.add_argument(
            f"-{bits}",
            dest="unit",
            action="store_const",
            const=bits // 8,
            help=f"{what.format(bits)}; the default is the kernel's word",
        )
    return units


class Space(NamedTuple):
    """The options of ``add_space_options``."""

    pid: str | None = None
    physical: bool = False
    machine: bool = False
    #: The shell's current task, whose memory is used if no option selects another one.
    task: str | None = None

    def of(self, target: "Domain | XenHost", known: Program) -> AddressSpace:
        """The memory that the options choose. Raises AbsentError, UsageError."""
        if self.machine:
            return target.dump.machine
        if not isinstance(target, Domain):
            from .contract import UsageError

            for option, is_given in (("--pid", self.pid is not None), ("-p", self.physical)):
                if is_given:
                    raise UsageError(f"argument {option}: not allowed with argument --hypervisor")
            return known.virtual
        if self.physical:
            return target.physical
        if self.pid is not None:
            return target.user(process(target, self.pid))
        if self.task is not None:
            with suppress(AbsentError):  # a kernel thread: the kernel's memory
                return target.user(process(target, self.task))
        return known.virtual


def task_for(space: AddressSpace, found: Sequence[int], task: str | None) -> str | None:
    """The shell's current task, if ``space``, the kernel's, does not map all of the addresses.

    Those that it maps need no task, whose page tables may be damaged.
    """
    if task is not None:
        for address in found:
            try:
                space.mapping(address)
            except MemoryFault:
                return task
    return None


def process(domain: Domain, wanted: str) -> tasks.Task:
    """The task that an operand names; AbsentError unless it names exactly one process."""
    (first, *others) = select(domain, domain.kernel.tasks(), [wanted]).tasks
    if any(task.tgid != first.tgid for task in others):
        pids = ", ".join(str(task.pid) for task in [first, *others][:MAX_SHOWN])
        more = "" if len(others) < MAX_SHOWN else ", ..."
        raise AbsentError(f"{wanted} names more than one process, with the pids {pids}{more}")
    return first


def count(words: Sequence[str], default: int) -> int:
    """The count in the last of the operands; UsageError if it is not one."""
    if not words:
        return default
    from .contract import UsageError

    found = number(words[0], 0)
    if len(words) > 1 or found is None or found <= 0:
        raise UsageError(f"COUNT: a number from 1 up is needed, not {' '.join(words)!r}")
    return found
