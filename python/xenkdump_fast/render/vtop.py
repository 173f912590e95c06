"""``vtop`` as crash prints it, and as JSON."""

from collections.abc import Iterator
from typing import Any

from .._native import Mapping
from ..commands.vtop import Translation, Translations

_PAGE_SIZES = {1 << 21: "  (2MB)", 1 << 22: "  (4MB)", 1 << 30: "  (1GB)"}
#: Bytes of an entry, and what its levels are called from the lowest up.
_ENTRY = {"x86": 4, "x86-pae": 8, "x86_64": 8, "x86_64-la57": 8}
_LEVELS = ("PTE", "PMD", "PUD", "P4D", "PGD")


def lines(result: Translations) -> Iterator[str]:
    """Address by address, an empty line between them."""
    for i, translation in enumerate(result.translations):
        if i:
            yield ""
        yield from _translation(result, translation)


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


def _walk_32(result: Translations, mapping: Mapping) -> Iterator[str]:
    """The walk of i386, in which crash names the top entries by their virtual address."""
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
    if result.directory is not None:
        yield f"PGD DIRECTORY: {result.directory:x}"
    top, *others = mapping.levels
    yield f"PAGE DIRECTORY: {top[3]:x}{machine}"
    for level, table, index, entry in others:
        yield f"   {_LEVELS[level - 1]}: {table + index * 8:x} => {entry:x}{machine}"


def _pages(result: Translations, translation: Translation, mapping: Mapping) -> Iterator[str]:
    """The page, by its machine address too where that is another."""
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
    """The last entry, taken apart."""
    kind = "MACHINE" if result.is_xen else "PHYSICAL"
    pte = f"{mapping.levels[-1][3]:x}"
    page = f"{mapping.machine & ~(mapping.page_size - 1):x}"
    width = max(len(pte), 3)
    page_width = max(len(page), len(kind))
    yield f"{_centred('PTE', width)}  {_centred(kind, page_width)}  FLAGS"
    yield (
        f"{pte:>{width}}  {_centred(page, page_width, right=True)}  "
        f"({'|'.join(mapping.flag_names) or 'no mapping'})"
    )


def _centred(title: str, width: int, right: bool = False) -> str:
    """``title`` in the middle of ``width``; a column that is left over goes to one side."""
    left = (width - len(title) + right) // 2
    return (" " * left + title).ljust(width)


def json(result: Translations) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {
        "domain": result.domain,
        "paging": result.paging,
        "addresses": [_json(translation) for translation in result.translations],
    }


def _json(translation: Translation) -> dict[str, Any]:
    mapping = translation.mapping
    if mapping is None:
        return {"virtual": hex(translation.address), "mapped": False, "why": translation.why}
    physical = translation.physical
    return {
        "virtual": hex(translation.address),
        "mapped": True,
        "physical": None if physical is None else hex(physical),
        "machine": hex(mapping.machine),
        "page_size": mapping.page_size,
        "flags": mapping.flag_names,
        "levels": [
            {"level": level, "table": hex(table), "index": index, "entry": hex(entry)}
            for level, table, index, entry in mapping.levels
        ],
    }
