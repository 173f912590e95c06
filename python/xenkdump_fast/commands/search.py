"""``search``: finds numbers and text in memory."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from .. import progress
from .._native import AddressSpace
from .._typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict
from ..output.json_types import Count, Hex, Stream
from ..parsing import number
from ..session import Domain
from . import addresses
from .addresses import Program, Space
from .contract import Operands, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..xen.host import XenHost

OPERANDS = Operands(
    "VALUE|SYMBOL|TEXT",
    "numbers in hex, or symbols for their addresses; with --text, text",
    "+",
    hypervisor=True,
)
PAGE = 4096
#: arch/x86/include/asm/xen/interface_64.h: HYPERVISOR_VIRT_END.
PV_KERNEL_START = 0xFFFF_8800_0000_0000
#: Pages searched in one call.
_PAGES = 1024
#: Bytes of text searched in one call.
_TEXT_STEP = 64 << 20
#: Matches of text taken from one call.
_TEXT_MATCHES = 4096


class Options(NamedTuple):
    """What to find, and where."""

    #: Numbers in hex, symbols, or text.
    operands: Sequence[str] = ()
    pid: str | None = None
    physical: bool = False
    machine: bool = False
    #: Bytes of a number; None for the kernel's word.
    unit: int | None = None
    #: Bits that are not compared, in hex.
    mask: str | None = None
    #: The operands are text.
    text: bool = False
    #: The first address.
    start: str | None = None
    #: The end, which is not searched.
    end: str | None = None
    #: The size of the range, in bytes.
    length: str | None = None
    #: The most matches.
    limit: int | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``search``."""
    addresses.add_space_options(parser)
    units = addresses.add_unit_options(parser, "numbers of {} bits, aligned")
    units.add_argument(
        "-t", "--text", action="store_true", help="the operands are text, at any address"
    )
    parser.add_argument("--mask", metavar="BITS", help="ignore these bits (hex) of numbers")
    parser.add_argument(
        "-s", "--start", metavar="ADDRESS", help="from this address; the default is the kernel's"
    )
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("-e", "--end", metavar="ADDRESS", help="up to this address, exclusive")
    ends.add_argument("-l", "--length", metavar="BYTES", help="this many bytes")
    parser.add_argument("--limit", type=_positive, metavar="N", help="stop after N matches")


def _positive(text: str) -> int:
    found = number(text)
    if found is None or found <= 0:
        raise argparse.ArgumentTypeError(f"a number from 1 up is needed, not {text!r}")
    return found


def run(target: "Domain | XenHost", options: Options = Options()) -> "Matches":
    """Searches the kernel's memory, or that of a task, for each operand; finding none is no error.

    AbsentError if an operand is not a number or a symbol. Memory that is not in the dump is
    skipped, with a warning.
    """
    known = addresses.program(target, with_modules=False)
    space = Space(options.pid, options.physical, options.machine).of(target, known)
    start, end = _range(target, options, known, space)
    warnings: list[str] = []
    found: Iterator[Match]
    if options.text:
        if options.mask is not None:
            raise UsageError("argument --mask: not allowed with argument -t/--text")
        if space.kind == "pseudo-physical":
            raise UsageError(
                "argument -p/--physical: not allowed with argument -t/--text: frames that follow "
                "each other there do not in the machine; search the kernel's memory or -m"
            )
        found = _texts(space, options.operands, start, end)
    else:
        unit = options.unit or known.word
        values = [_value(known, operand, unit) for operand in options.operands]
        mask = 0 if options.mask is None else _bits(options.mask, unit)
        found = _numbers(space, values, unit, mask, (start, end), warnings)
    return Matches(known, options.text, islice(found, options.limit), warnings)


def _value(known: Program, operand: str, unit: int) -> int:
    value = known.address(operand)
    if value >> 8 * unit:
        raise UsageError(f"{operand}: more than {8 * unit} bits")
    return value


def _bits(text: str, unit: int) -> int:
    found = number(text, 16)
    if found is None or not 0 <= found < 1 << 8 * unit:
        raise UsageError(f"argument --mask: a number of {8 * unit} bits is needed, not {text!r}")
    return found


def _range(
    target: "Domain | XenHost", options: Options, known: Program, space: AddressSpace
) -> tuple[int, int]:
    """The range of addresses, the end exclusive."""
    if space.kind != "virtual":
        start, end = 0, 1 << 64
    elif isinstance(target, Domain):
        start, end = _kernel_start(target), known.last + 1
        if options.pid is not None:
            start, end = 0, start
    else:
        from ..xen.memory import virtual_range

        start, end = virtual_range(known.word)
    if options.start is not None:
        start = known.address(options.start)
    if options.end is not None:
        end = known.address(options.end)
    elif options.length is not None:
        length = number(options.length, 0)
        if length is None or length <= 0:
            raise UsageError(f"argument -l/--length: {options.length!r} is no number of bytes")
        end = min(start + length, 1 << 64)
    if start >= end:
        raise UsageError(f"the range from {start:#x} to {end:#x} is empty")
    return start, end


def _kernel_start(domain: Domain) -> int:
    """Where the kernel's part of virtual memory starts; on i386 with the usual 3 GiB below it."""
    if domain.kernel.word == 4:
        return 0xC000_0000
    is_pv = domain.has_p2m and domain.p2m.nested_format is None
    # The first 8 TiB of it are Xen's then, which maps all of the machine's memory there.
    return PV_KERNEL_START if is_pv else 0xFFFF_8000_0000_0000


class Match(NamedTuple):
    """A place where memory has what was searched for."""

    address: int
    #: The number there; of text, which one it is.
    value: int | str


def _texts(space: AddressSpace, texts: Sequence[str], start: int, end: int) -> Iterator[Match]:
    for text in dict.fromkeys(texts):
        at: int | None = start
        while at is not None and at < end:
            progress.now.set("MiB", (at - start) >> 20, (end - start) >> 20)
            needle = text.encode("utf-8", "surrogateescape")
            result = space.search(needle, at, end, limit=_TEXT_MATCHES, most=_TEXT_STEP)
            for address in result.addresses:
                yield Match(address, text)
            at = result.next
    progress.now.set("", 0, 0)


def _numbers(
    space: AddressSpace,
    values: Sequence[int],
    unit: int,
    ignored: int,
    limits: tuple[int, int],
    warnings: list[str],
) -> Iterator[Match]:
    """Aligned numbers that equal one of ``values`` but for the bits in ``ignored``."""
    start, end = limits
    dtype = np.dtype(f"<u{unit}")
    keep = dtype.type(~ignored & (1 << 8 * unit) - 1)
    wanted = np.array(sorted({value & int(keep) for value in values}), dtype)
    status = np.empty(_PAGES, np.uint8)
    missing = 0
    for pages in _batches(space, start, end):
        some = status[: len(pages)]
        words = space.read_many(pages, PAGE, status=some).view(dtype)
        missing += int(np.count_nonzero(some))
        masked = words & keep if ignored else words
        equal = masked == wanted[0]
        for value in wanted[1:]:
            equal |= masked == value
        equal[some != 0] = False
        rows, columns = np.nonzero(equal)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            address = int(pages[row]) + column * unit
            if start <= address and address + unit <= end:
                yield Match(address, int(words[row, column]))
    if missing:
        warnings.append(f"{missing} pages in the range are not in the dump: not searched")


def _batches(space: AddressSpace, start: int, end: int) -> "Iterator[NDArray[np.uint64]]":
    """The addresses of the mapped pages of a range, some at a time."""
    waiting: list[NDArray[Any]] = []
    count = 0
    total = max(end - start, 1)
    for mapped in space.iter_mapped(start & -PAGE, end):
        first = mapped.address & -PAGE
        last = min(mapped.address + mapped.size, end)
        for at in range(first, last, _PAGES * PAGE):
            stop = min(at + _PAGES * PAGE, last)
            waiting.append(np.arange(at, stop, PAGE, dtype=np.uint64))
            count += len(waiting[-1])
            if count >= _PAGES:
                progress.now.set("percent", (at - start) * 100 // total, 100)
                pages = np.concatenate(waiting)
                for part in range(0, len(pages), _PAGES):
                    yield pages[part : part + _PAGES]
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
    progress.now.set("", 0, 0)


class MatchJson(TypedDict):
    """A match: ``value`` of a number, ``text`` of text. ``symbol`` if the address is in one."""

    address: Hex
    value: NotRequired[Hex]
    text: NotRequired[str]
    symbol: NotRequired[str]
    offset: NotRequired[Count]


class JSON(TypedDict):
    """What ``search --json`` prints."""

    matches: Stream[MatchJson]


HYPERVISOR_JSON = JSON


class Matches(NamedTuple):
    """Where memory has what was searched for."""

    program: Program
    is_text: bool
    matches: Iterator[Match]
    #: Complete after the last match.
    warnings: Sequence[str]

    def text(self) -> Iterator[str]:
        """A line for each: the address, and the number or the text there."""
        width = self.program.word * 2
        for address, value in self.matches:
            shown = value if isinstance(value, str) else f"{value:x}"
            yield f"{address:{width}x}: {shown}"

    def json(self) -> JSON:
        """The same, with symbols."""
        return {"matches": map(self._json, self.matches)}

    def _json(self, match: Match) -> MatchJson:
        found: MatchJson = {"address": hex(match.address)}
        if isinstance(match.value, str):
            found["text"] = match.value
        else:
            found["value"] = hex(match.value)
        label = self.program.label(match.address)
        if label is not None:
            found["symbol"], found["offset"] = label
        return found
