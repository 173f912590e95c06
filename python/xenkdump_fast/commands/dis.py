"""``dis``: disassembles code as it is in memory."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError, MemoryFault, disassemble
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..limits import MAX_DIS_SIZE
from ..output.escape import visible
from ..output.json_types import Count, Hex
from . import addresses, source_lines
from .addresses import Program
from .contract import Operands, UsageError
from .source_lines import Line

if TYPE_CHECKING:
    from ..session import Domain
    from ..xen.host import XenHost

OPERANDS = Operands(
    f"{addresses.ADDRESS} [COUNT]",
    f"{addresses.ADDRESS_HELP}; then how many instructions. A symbol without an offset and a "
    "count is the whole function",
    "+",
    hypervisor=True,
)
#: The longest x86 instruction, in bytes.
_LONGEST = 15


class Options(NamedTuple):
    """What to disassemble."""

    #: The address, and a count of instructions.
    operands: Sequence[str] = ()
    #: From the start of the function up to the address.
    reverse: bool = False
    #: From the address to the end of the function.
    forward: bool = False
    #: Intel's notation in place of AT&T's.
    intel: bool = False
    #: With the bytes of each instruction.
    bytes: bool = False
    #: With source lines.
    lines: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``dis``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "-r", "--reverse", action="store_true", help="from the start of the function to the address"
    )
    which.add_argument(
        "-f", "--forward", action="store_true", help="from the address to the end of the function"
    )
    parser.add_argument("-i", "--intel", action="store_true", help="in Intel's notation")
    parser.add_argument("-b", "--bytes", action="store_true", help="with the bytes")
    parser.add_argument(
        "-l", "--lines", action="store_true", help="with source lines, if there is DWARF"
    )


class Instruction(NamedTuple):
    """One instruction."""

    address: int
    code: bytes
    text: str
    #: Where it jumps, or what it refers to relative to the program counter.
    target: int | None
    #: Its line in a source file, if that is asked for and known.
    line: Line | None = None


def run(target: "Domain | XenHost", options: Options = Options()) -> "Code":
    """Disassembles a function or some instructions; AbsentError if no code can be read there."""
    known = addresses.program(target)
    name, *rest = options.operands
    address = known.address(name)
    count = addresses.count(rest, 0)
    start, end = address, address + count * _LONGEST
    if not count:
        function = _function(known, address)
        if function is not None and (options.forward or options.reverse or address == function[0]):
            start, end = function
            start = address if options.forward else start
        elif options.forward or options.reverse:
            raise AbsentError(f"{name}: no function of known size is at this address")
        else:
            count, end = 1, address + _LONGEST
    elif options.reverse:
        raise UsageError("argument -r/--reverse: not allowed with a count")
    if end - start > MAX_DIS_SIZE:
        if count:
            raise UsageError(f"{count} instructions are too many at once")
        raise AbsentError(f"{name}: its function has {end - start:#x} bytes, which is too much")
    data, failure = _code(known, start, min(end, known.last))
    lines = disassemble(
        data,
        start,
        known.word,
        notation="intel" if options.intel else "att",
        limit=count or len(data),
    )
    found = []
    for at, size, text, to in lines:
        if options.reverse and at > address:
            break
        found.append(Instruction(at, data[at - start : at - start + size], text, to))
    if not found:
        raise AbsentError(failure or f"{name}: no whole instruction is there")
    if count and len(found) == count:
        failure = None
    if options.lines:
        try:
            finder = source_lines.finder(target)
        except AbsentError as error:
            return Code(known, found, options, failure, [str(error)])
        at_lines = finder.find([one.address for one in found])
        found = [one._replace(line=line) for one, line in zip(found, at_lines, strict=True)]
        return Code(known, found, options, failure, finder.warnings, has_lines=True)
    return Code(known, found, options, failure)


def _function(known: Program, address: int) -> tuple[int, int] | None:
    """The bounds of the function at an address, or right before it: a call may end a function."""
    symbol = None if known.code is None else known.code.lookup(address)
    if symbol is None or not symbol.address <= address <= symbol.address + symbol.size:
        return None
    return symbol.address, symbol.address + symbol.size


def _code(known: Program, start: int, end: int) -> tuple[bytes, str | None]:
    """Code, up to what cannot be read."""
    try:
        return known.virtual.read(start, end - start), None
    except MemoryFault as fault:
        if fault.address <= start:
            raise
        return known.virtual.read(start, fault.address - start), str(fault)


class InstructionJson(TypedDict):
    """An instruction. ``target`` and its symbol only if it has one; ``file`` with ``--lines``."""

    address: Hex
    bytes: str
    text: str
    symbol: NotRequired[str]
    offset: NotRequired[Count]
    target: NotRequired[Hex]
    target_symbol: NotRequired[str]
    target_offset: NotRequired[Count]
    file: NotRequired[str]
    line: NotRequired[Count]


class JSON(TypedDict):
    """What ``dis --json`` prints."""

    instructions: list[InstructionJson]


HYPERVISOR_JSON = JSON


class Code(NamedTuple):
    """Instructions."""

    program: Program
    instructions: Sequence[Instruction]
    options: Options
    failure: str | None
    warnings: Sequence[str] = ()
    #: Whether source lines are known; an instruction may be of none.
    has_lines: bool = False

    def text(self) -> Iterator[str]:
        """A line for each as crash prints it: address, place in the function, instruction.

        The source line is before the first instruction of each.
        """
        last: str | None = None
        for address, code, text, target, line in self.instructions:
            source = "(no source line)" if line is None else str(line)
            if self.has_lines and source != last:
                yield source
            last = source
            shown = f"{code.hex(' '):<{3 * _LONGEST}}" if self.options.bytes else ""
            yield f"{address:#x}{self._place(address)}:\t{shown}{self._text(text, target)}"

    def _place(self, address: int) -> str:
        label = self.program.label(address)
        return "" if label is None else f" <{visible(label[0])}+{label[1]}>"

    def _text(self, text: str, target: int | None) -> str:
        if target is None:
            return text
        place = self._place(target).replace("+0>", ">")
        # What is relative to the program counter is explained as a comment, as by objdump.
        return f"{text}        # {target:#x}{place}" if "rip" in text else f"{text}{place}"

    def json(self) -> JSON:
        """The same."""
        return {"instructions": list(map(self._json, self.instructions))}

    def _json(self, one: Instruction) -> InstructionJson:
        found: InstructionJson = {
            "address": hex(one.address),
            "bytes": one.code.hex(),
            "text": one.text,
        }
        label = self.program.label(one.address)
        if label is not None:
            found["symbol"], found["offset"] = label
        if one.target is not None:
            found["target"] = hex(one.target)
            label = self.program.label(one.target)
            if label is not None:
                found["target_symbol"], found["target_offset"] = label
        if one.line is not None:
            found["file"], found["line"] = one.line
        return found
