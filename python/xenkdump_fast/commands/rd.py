"""``rd``: reads memory."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError, AddressSpace, MemoryFault
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..limits import MAX_RD_SIZE
from ..output.json_types import Count, Hex, Stream
from . import addresses
from .addresses import Program, Space
from .contract import Operands, UsageError

if TYPE_CHECKING:
    from ..session import Domain
    from ..xen.host import XenHost

OPERANDS = Operands(
    f"{addresses.ADDRESS} [COUNT]",
    f"{addresses.ADDRESS_HELP}; then how many units to read (1)",
    "+",
    hypervisor=True,
)
#: Bytes of a line of text.
LINE = 16
#: Characters of a line of ``--ascii``.
ASCII_LINE = 60
#: Bytes read at a time.
_CHUNK = 1 << 16


class Options(NamedTuple):
    """What to read."""

    #: The address, and a count of units.
    operands: Sequence[str] = ()
    pid: str | None = None
    physical: bool = False
    machine: bool = False
    #: Bytes of a unit; None for the kernel's word.
    unit: int | None = None
    #: Only the characters.
    ascii: bool = False
    #: The end of the memory, in place of a count.
    end: str | None = None
    #: Words that are addresses by their symbols.
    symbols: bool = False
    #: Without characters.
    hex: bool = False
    #: Only the bytes, as they are.
    raw: bool = False
    #: The shell's current task, whose memory is read.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``rd``."""
    addresses.add_space_options(parser)
    addresses.add_unit_options(parser, "units of {} bits")
    parser.add_argument("-e", "--end", metavar="ADDRESS", help="read up to this address")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "-a", "--ascii", action="store_true", help="characters only; without a count up to a NUL"
    )
    shown.add_argument(
        "-s", "--symbols", action="store_true", help="words that are addresses by their symbols"
    )
    shown.add_argument("-x", "--hex", action="store_true", help="without the characters")
    shown.add_argument(
        "-r", "--raw", action="store_true", help="write the bytes to stdout as they are"
    )


def run(target: "Domain | XenHost", options: Options = Options()) -> "Words | Characters | Raw":
    """Reads memory; AbsentError (MemoryFault) if not even the first unit can be read."""
    known = addresses.program(target, with_modules=options.symbols)
    name, *rest = options.operands
    start = known.address(name)
    task = addresses.task_for(known.virtual, [start], options.task)
    space = Space(options.pid, options.physical, options.machine, task).of(target, known)
    unit = 1 if options.ascii else options.unit or known.word
    if options.symbols:
        if options.unit not in (None, known.word):
            raise UsageError("argument -s/--symbols: needs units of the kernel's word")
        unit = known.word
    if options.end is not None:
        if rest:
            raise UsageError("argument -e/--end: not allowed with a count")
        size = known.address(options.end) - start
        if size <= 0:
            raise UsageError(f"argument -e/--end: {options.end} is not after {name}")
        count = -(-size // unit)
    else:
        count = addresses.count(rest, 0)
        if options.ascii and not count:
            return _string(space, start)
    count = count or 1
    size = count * unit
    if size > MAX_RD_SIZE:
        raise UsageError(f"{size:#x} bytes: more than {MAX_RD_SIZE:#x} are not read at once")
    if options.raw:
        return Raw(space.read(start, size))
    data, failure = _readable(space, start, size, unit)
    if not data:
        raise AbsentError(failure)
    if options.ascii:
        return Characters(start, data, failure)
    return Words(known, options, start, unit, data, failure)


def _string(space: AddressSpace, start: int) -> "Characters":
    """The C string at an address, as far as it can be read."""
    return Characters(start, space.cstring(start, _CHUNK), None)


def _readable(space: AddressSpace, start: int, size: int, unit: int) -> tuple[bytes, str | None]:
    """The memory up to the first unit that cannot be read, and why that cannot be."""
    parts = []
    at, end = start, start + size
    while at < end:
        # Chunks end at multiples of their size, so that one which fails is not read twice.
        length = min(_CHUNK - at % _CHUNK, end - at)
        try:
            parts.append(space.read(at, length))
        except MemoryFault as fault:
            readable = max(fault.address - at, 0) // unit * unit
            if readable and readable < length:
                parts.append(space.read(at, readable))
            data = b"".join(parts)
            return data[: len(data) // unit * unit], str(fault)
        at += length
    return b"".join(parts), None


class ValueJson(TypedDict):
    """A unit of memory. ``symbol`` only with ``--symbols``, if the value is an address in one."""

    address: Hex
    value: Hex
    symbol: NotRequired[str]
    offset: NotRequired[Count]


class JSON(TypedDict):
    """What ``rd --json`` prints: ``text`` with ``--ascii``, else the other two."""

    unit: NotRequired[Count]
    values: NotRequired[Stream[ValueJson]]
    text: NotRequired[str]


HYPERVISOR_JSON = JSON


class Words(NamedTuple):
    """Memory in units."""

    program: Program
    options: Options
    start: int
    unit: int
    memory: bytes
    failure: str | None

    def _values(self) -> Iterator[tuple[int, int]]:
        for at in range(0, len(self.memory), self.unit):
            yield self.start + at, int.from_bytes(self.memory[at : at + self.unit], "little")

    def text(self) -> Iterator[str]:
        """Lines of 16 bytes as crash prints them: the address, the units, the characters."""
        width = self.program.word * 2
        digits = self.unit * 2
        values = self._values()
        units = LINE // self.unit
        for at in range(0, len(self.memory), LINE):
            line = self.memory[at : at + LINE]
            some = [next(values)[1] for _ in range(-(-len(line) // self.unit))]
            address = f"{self.start + at:{width}x}:"
            if self.options.symbols:
                names = (f"{self._named(value):<{width}}" for value in some)
                yield f"{address}  {' '.join(names)}".rstrip()
                continue
            shown = " ".join(f"{value:0{digits}x}" for value in some)
            if self.options.hex:
                yield f"{address}  {shown}"
            else:
                full = units * (digits + 1) - 1
                yield f"{address}  {shown:<{full}}   {_characters(line)}"

    def _named(self, value: int) -> str:
        label = self.program.label(value)
        if label is None:
            return f"{value:0{self.unit * 2}x}"
        return f"{label[0]}+{label[1]}" if label[1] else label[0]

    def json(self) -> JSON:
        """Every unit with its address."""
        return {"unit": self.unit, "values": map(self._json, self._values())}

    def _json(self, one: tuple[int, int]) -> ValueJson:
        address, value = one
        found: ValueJson = {"address": hex(address), "value": hex(value)}
        label = self.program.label(value) if self.options.symbols else None
        if label is not None:
            found["symbol"], found["offset"] = label
        return found


class Characters(NamedTuple):
    """Memory as text."""

    start: int
    memory: bytes
    failure: str | None

    def text(self) -> Iterator[str]:
        """Lines of 60 characters with their addresses."""
        for at in range(0, len(self.memory), ASCII_LINE):
            yield f"{self.start + at:x}:  {_characters(self.memory[at : at + ASCII_LINE])}"

    def json(self) -> JSON:
        """The text; bytes that are not UTF-8 are escaped."""
        return {"text": self.memory.decode("utf-8", "backslashreplace")}


class Raw(NamedTuple):
    """Memory as it is."""

    data: bytes

    def text(self) -> Iterator[str]:
        """No text: ``data`` is written."""
        yield from ()

    def json(self) -> JSON:
        """None: the bytes are not JSON."""
        return {}


def _characters(data: bytes) -> str:
    """Printable ASCII characters, dots for others."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
