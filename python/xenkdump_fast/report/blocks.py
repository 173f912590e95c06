"""The parts of a document: what each format writes in its own way."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from .model import MemoryPicture, P2mPicture

#: What a text is: ordinary, an error, doubtful, missing from the dump, emphasised, secondary.
Mark = Literal["", "bad", "doubt", "missing", "strong", "dim"]


class Span(NamedTuple):
    """A piece of text; ``to`` is the id of what it links to, ``id`` its own."""

    text: str
    to: str | None = None
    mark: Mark = ""
    id: str | None = None


Cell = str | Span | Sequence[Span]


class Facts(NamedTuple):
    """Names with values."""

    rows: Sequence[tuple[str, Cell]]


class Table(NamedTuple):
    """Rows of cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    #: The ids of rows; empty without any.
    ids: Sequence[str] = ()
    #: Columns that are numbers.
    numbers: Sequence[int] = ()
    #: How many rows are left out.
    more: int = 0
    #: What it shows.
    caption: str = ""


class Line(NamedTuple):
    """A line of code, of a log or of a stack."""

    spans: Sequence[Span]
    mark: Mark = ""


class Lines(NamedTuple):
    """Lines of which spaces count."""

    lines: Sequence[Line]
    #: What is left out, in words.
    more: str = ""
    caption: str = ""


class Note(NamedTuple):
    """A paragraph."""

    text: str
    mark: Mark = ""


class Picture(NamedTuple):
    """A picture; ``table`` has the same data."""

    of: MemoryPicture | P2mPicture
    title: str
    table: Table


Block = Facts | Table | Lines | Note | Picture


class Section(NamedTuple):
    """A part with a title, and parts of it."""

    id: str
    title: str
    blocks: Sequence[Block] = ()
    sections: "Sequence[Section]" = ()
    #: What it is about.
    domain: int | None = None
    pcpu: int | None = None
    #: Whether it is long and need not be seen at first.
    folded: bool = False


class Document(NamedTuple):
    """A report."""

    title: str
    summary: str
    died: Section
    sections: Sequence[Section]

    def ids(self) -> set[str]:
        """The ids that links may refer to: only those of parts that the report contains."""
        found: set[str] = set()
        left = [self.died, *self.sections]
        while left:
            section = left.pop()
            found.add(section.id)
            for block in section.blocks:
                if isinstance(block, Table):
                    found.update(block.ids)
            left += section.sections
        return found


def spans(cell: Cell) -> Sequence[Span]:
    """A cell as spans."""
    if isinstance(cell, str):
        return (Span(cell),)
    return (cell,) if isinstance(cell, Span) else cell


def plain(cell: Cell) -> str:
    """The text of a cell."""
    return "".join(span.text for span in spans(cell))
