"""``vtop``: translates virtual addresses, and shows the page walk."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress

from .._native import P2M, AbsentError, AddressSpace, Mapping, MemoryFault
from .._typing import NamedTuple, NotRequired, TypedDict
from ..linux import mm
from ..linux.boot.image import first_symbol
from ..output.json_types import Count, Hex
from ..session import Domain
from . import addresses
from .contract import Operands
from .selection import for_each

PAGE = 4096
OPERANDS = Operands(addresses.ADDRESS, addresses.ADDRESS_HELP, "+")
_PAGE_SIZES = {1 << 21: "  (2MB)", 1 << 22: "  (4MB)", 1 << 30: "  (1GB)"}
#: Bytes of an entry, and the names of the levels, lowest first.
_ENTRY = {"x86": 4, "x86-pae": 8, "x86_64": 8, "x86_64-la57": 8}
_LEVELS = ("PTE", "PMD", "PUD", "P4D", "PGD")


class Options(NamedTuple):
    """What to translate."""

    #: Virtual addresses in hex, or names of symbols.
    operands: Sequence[str] = ()
    #: Translates by the page tables of this task: a pid, an address in hex, or a name.
    pid: str | None = None
    #: The shell's current task, for user addresses.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``vtop``."""
    parser.add_argument(
        "-c",
        "--pid",
        metavar="PID|TASK|COMM",
        help="by the page tables of this task: translates addresses of its user space too",
    )


class Nested(NamedTuple):
    """The second stage of a translated guest: Xen's page tables of the guest's memory."""

    #: The layout of the tables.
    format: str
    pfn: int
    #: Xen's type of the page; None if there is none.
    type: str | None
    #: Level, machine address of the table, index, entry.
    levels: list[tuple[int, int, int, int]]
    #: Machine addresses of the entries of the first stage; None if not in the guest's memory.
    entries: list[int | None]


class Translation(NamedTuple):
    """The translation of one virtual address."""

    address: int
    #: None if it is not mapped; ``why`` has the reason.
    mapping: Mapping | None
    #: Pseudo-physical; None for a frame that is not the domain's own.
    physical: int | None
    why: str | None
    #: None unless the domain is a translated guest.
    nested: Nested | None = None


def run(target: Domain, options: Options = Options()) -> "Translations":
    """Walks the page tables of the kernel, or of a task, for each operand.

    AbsentError if the task does not exist or has no user space, or if no operand is an address or a
    symbol. Addresses that are not mapped are in the result, and in its ``failure``.
    """
    kernel, known = target.kernel, addresses.program(target, with_modules=False)
    found: list[Translation] = []
    space, paging, task = target.virtual, kernel.location.paging, None
    directory = first_symbol(kernel.symbols, "swapper")
    wanted = options.pid
    if wanted is None and options.task is not None:
        given = []
        for name in options.operands:
            with suppress(AbsentError):  # reported below
                given.append(known.address(name))
        wanted = addresses.task_for(space, given, options.task)
    if wanted is not None:
        task = addresses.process(target, wanted)
        try:
            space, directory = target.user(task), mm.page_table(kernel, task)
        except AbsentError:
            if options.pid is not None:
                raise
            task = None  # the current task is a kernel thread: by the kernel's page tables
        else:
            paging = space.paging or paging

    def translate(name: str) -> None:
        translation = _translate(target, space, known.address(name))
        found.append(translation)
        if translation.mapping is None:
            raise AbsentError(f"{translation.address:#x} is not mapped: {translation.why}")

    try:
        failure = for_each(options.operands, translate)
    except AbsentError as error:
        if not found:
            raise
        failure = str(error)
    return Translations(
        domain=target.id,
        word=kernel.word,
        paging=paging,
        directory=directory,
        is_xen=target.page_tables_hold_mfns,
        translations=found,
        pid=None if task is None else task.pid,
        failure=failure,
    )


def _translate(domain: Domain, space: AddressSpace, address: int) -> Translation:
    try:
        mapping = space.mapping(address)
    except MemoryFault as fault:
        return Translation(address, None, None, str(fault))
    if mapping.physical is not None:
        nested = _nested(domain.p2m, mapping, _ENTRY[space.paging or "x86_64"])
        return Translation(address, mapping, mapping.physical, None, nested)
    physical: int | None = None if domain.page_tables_hold_mfns else mapping.machine
    if domain.has_p2m:
        try:
            physical = domain.p2m.reverse(mapping.machine // PAGE) * PAGE + address % PAGE
        except MemoryFault:
            physical = None
    return Translation(address, mapping, physical, None)


def _nested(p2m: P2M, mapping: Mapping, size: int) -> Nested | None:
    """The walk of Xen's tables for the page that the guest's lead to."""
    if p2m.nested_format is None or mapping.physical is None:
        return None
    entries: list[int | None] = []
    for _, table, index, _ in mapping.levels:
        at = table + index * size
        mfn = p2m.entry(at // PAGE)[1]
        entries.append(None if mfn is None else mfn * PAGE + at % PAGE)
    pfn = mapping.physical // PAGE
    levels, kind = p2m.walk(pfn)
    return Nested(p2m.nested_format, pfn, kind, levels, entries)


class LevelJson(TypedDict):
    """One level of a page walk. ``machine`` only in a translated guest: of the entry."""

    level: Count
    table: Hex
    index: Count
    entry: Hex
    machine: NotRequired[Hex | None]


class NestedJson(TypedDict):
    """The second stage of a translated guest."""

    format: str
    pfn: Hex
    type: str | None
    levels: list[LevelJson]


class AddressJson(TypedDict):
    """One address. ``why`` only if it is not mapped, the others only if it is."""

    virtual: Hex
    mapped: bool
    physical: NotRequired[Hex | None]
    machine: NotRequired[Hex]
    page_size: NotRequired[Count]
    flags: NotRequired[list[str]]
    levels: NotRequired[list[LevelJson]]
    nested: NotRequired[NestedJson]
    why: NotRequired[str | None]


class JSON(TypedDict):
    """What ``vtop --json`` prints."""

    domain: Count
    paging: str
    pid: NotRequired[int]
    addresses: list[AddressJson]


class Translations(NamedTuple):
    """Translated addresses."""

    domain: int
    word: int
    paging: str
    #: Virtual address of the top page table; None if it is not known.
    directory: int | None
    #: Under Xen the page tables hold machine addresses.
    is_xen: bool
    translations: list[Translation]
    #: The task that the page tables are of; None for the kernel's.
    pid: int | None = None
    #: Which operands are neither an address nor a symbol, and which addresses are not mapped.
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """The addresses as crash prints them, separated by empty lines."""
        for i, translation in enumerate(self.translations):
            if i:
                yield ""
            yield from _translation(self, translation)

    def json(self) -> JSON:
        """The domain, its paging format, and every address."""
        found: JSON = {
            "domain": self.domain,
            "paging": self.paging,
            "addresses": [_json(translation) for translation in self.translations],
        }
        if self.pid is not None:
            found["pid"] = self.pid
        return found


def _translation(result: Translations, translation: Translation) -> Iterator[str]:
    width = result.word * 2
    yield f"{'VIRTUAL':{width}}  {'PHYSICAL':{width}}".rstrip(" " if width == 8 else "")
    mapping = translation.mapping
    if mapping is None:
        yield f"{translation.address:<{width}x}  (not mapped)"
        yield ""
        yield f"({translation.why})"
        return
    if translation.physical is None:
        where = "(page not available)"
    else:
        where = f"{translation.physical:<{width}x}"
    yield f"{translation.address:<{width}x}  {where}"
    yield ""
    yield from _walk_32(result, mapping) if result.word == 4 else _walk_64(result, mapping)
    yield from _pages(result, translation, mapping)
    yield ""
    yield from _flags(result, mapping)
    if translation.nested is not None:
        yield ""
        yield from _second_stage(translation, translation.nested, mapping)


def _second_stage(translation: Translation, nested: Nested, mapping: Mapping) -> Iterator[str]:
    """The machine addresses of the first stage, and the walk of Xen's tables."""
    yield f"GUEST FRAME: {nested.pfn:x}  {nested.type or '(no page)'}"
    where = ("-" if at is None else f"{at:x}" for at in nested.entries)
    yield f"  GUEST ENTRIES AT: {' '.join(where)} [machine]"
    yield f"{nested.format.upper()} ROOT: {nested.levels[0][1]:x} [machine]"
    for level, table, index, entry in nested.levels:
        yield f"    L{level}: {table + index * 8:x} => {entry:x} [machine]"
    yield f"  PAGE: {mapping.machine - translation.address % PAGE:x} [machine]"


def _walk_32(result: Translations, mapping: Mapping) -> Iterator[str]:
    """The walk of i386, for which crash prints the virtual addresses of the top entries."""
    machine = " [machine]" if result.is_xen else ""
    size = _ENTRY[result.paging]
    if result.directory is not None:
        yield f"PAGE DIRECTORY: {result.directory:x}"
    names = ("PGD", "PTE") if result.paging == "x86" else ("PGD", "PMD", "PTE")
    levels = mapping.levels[-3:]  # a 64-bit Xen's own level above a 32-bit guest's is left out
    for i, (name, (_, table, index, entry)) in enumerate(zip(names, levels, strict=False)):
        at = table + index * size
        if i == 0 and result.directory is not None:
            at = result.directory + index * size
        yield f"  {name}: {at:>8x} => {entry:x}{machine}"
        if name == "PGD" and result.paging == "x86" and len(levels) > 1:
            yield f"  PMD: {at:>8x} => {entry:x}{machine}"  # folded into the level above


def _walk_64(result: Translations, mapping: Mapping) -> Iterator[str]:
    machine = " [machine]" if result.is_xen else ""
    levels = mapping.levels
    top = levels[0][0]
    if result.pid is None:  # of a task's page tables, crash prints the top entry like the others
        if result.directory is not None:
            yield f"PGD DIRECTORY: {result.directory:x}"
        yield f"PAGE DIRECTORY: {levels[0][3]:x}{machine}"
        levels = levels[1:]
    for level, table, index, entry in levels:
        name = "PGD" if level == top else _LEVELS[level - 1]
        yield f"   {name}: {table + index * 8:x} => {entry:x}{machine}"


def _pages(result: Translations, translation: Translation, mapping: Mapping) -> Iterator[str]:
    """The page, with its machine address if that differs."""
    size = _PAGE_SIZES.get(mapping.page_size, "")
    at = translation.address % mapping.page_size
    pages = [(mapping.machine - at, " [machine]")] if result.is_xen else []
    if translation.physical is not None:
        pages.append((translation.physical - at, ""))
    for page, kind in pages:
        yield f"{' PAGE' if result.word == 4 else '  PAGE'}: " + (
            f"{page:>8x}{size}{kind}" if result.word == 4 else f"{page:x}{size}{kind}"
        )


def _flags(result: Translations, mapping: Mapping) -> Iterator[str]:
    """The last entry, its frame, and the flags that the whole walk leaves."""
    kind = "MACHINE" if result.is_xen else "PHYSICAL"
    pte = f"{mapping.levels[-1][3]:x}"
    target = mapping.machine if mapping.physical is None else mapping.physical
    page = f"{target & ~(mapping.page_size - 1):x}"
    width = max(len(pte), 3)
    page_width = max(len(page), len(kind))
    yield f"{_centred('PTE', width)}  {_centred(kind, page_width)}  FLAGS"
    yield (
        f"{pte:>{width}}  {_centred(page, page_width, right=True)}  "
        f"({'|'.join(mapping.flag_names) or 'no mapping'})"
    )


def _centred(title: str, width: int, right: bool = False) -> str:
    """``title`` centred in ``width``; ``right`` is the side of an odd column."""
    left = (width - len(title) + right) // 2
    return (" " * left + title).ljust(width)


def _json(translation: Translation) -> AddressJson:
    mapping = translation.mapping
    if mapping is None:
        return {"virtual": hex(translation.address), "mapped": False, "why": translation.why}
    physical = translation.physical
    found: AddressJson = {
        "virtual": hex(translation.address),
        "mapped": True,
        "physical": None if physical is None else hex(physical),
        "machine": hex(mapping.machine),
        "page_size": mapping.page_size,
        "flags": mapping.flag_names,
        "levels": list(map(_level_json, mapping.levels)),
    }
    nested = translation.nested
    if nested is not None:
        for level, at in zip(found["levels"], nested.entries, strict=True):
            level["machine"] = None if at is None else hex(at)
        found["nested"] = {
            "format": nested.format,
            "pfn": hex(nested.pfn),
            "type": nested.type,
            "levels": list(map(_level_json, nested.levels)),
        }
    return found


def _level_json(step: tuple[int, int, int, int]) -> LevelJson:
    level, table, index, entry = step
    return {"level": level, "table": hex(table), "index": index, "entry": hex(entry)}
