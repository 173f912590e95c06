"""A report as text."""

from collections.abc import Iterator, Sequence

from ..output.escape import printable
from ..output.table import table
from .blocks import Block, Document, Facts, Lines, Note, Picture, Section, Table, plain

_RULES = "=-~"
_MARKS = {"doubt": "?", "missing": "-", "bad": "!"}


def lines(document: Document) -> Iterator[str]:
    """The lines of a document; the caller escapes what is not printable."""
    yield document.title
    yield "=" * len(document.title)
    yield ""
    yield document.summary
    for section in (document.died, *document.sections):
        yield from of_section(section)


def of_section(section: Section, level: int = 0) -> Iterator[str]:
    """A section with its parts."""
    yield ""
    title = printable(section.title)
    yield title
    yield _RULES[min(level, len(_RULES) - 1)] * len(title)
    for block in section.blocks:
        found = list(of_block(block))
        if found:
            yield ""
            yield from found
    for part in section.sections:
        yield from of_section(part, level + 1)


def of_block(block: Block) -> Iterator[str]:
    """A block."""
    match block:
        case Facts():
            width = max((len(name) for name, _ in block.rows), default=0)
            for name, value in block.rows:
                yield f"{name:>{width}}{':' if name else ' '} {printable(plain(value))}"
        case Note():
            yield (f"{_MARKS[block.mark]} " if block.mark in _MARKS else "") + block.text
        case Table():
            yield from _table(block)
        case Lines():
            yield from _lines(block)
        case Picture():
            yield from _table(block.table)


def _table(block: Table) -> Iterator[str]:
    if block.caption:
        yield f"{block.caption}:"
    rows: list[Sequence[str]] = [block.head] if block.head else []
    rows += [[printable(plain(cell)) for cell in row] for row in block.rows]
    if rows:
        yield from table([tuple(row) for row in rows], tuple(block.numbers))
    if block.more:
        yield f"({block.more} more)"


def _lines(block: Lines) -> Iterator[str]:
    if block.caption:
        yield f"{block.caption}:"
    if block.more:
        yield f"({block.more})"
    for line in block.lines:
        for part in "".join(span.text for span in line.spans).split("\n"):
            yield f"  {part}"
