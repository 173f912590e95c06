"""A report as Markdown (CommonMark with GitHub's tables)."""

import re
from collections.abc import Iterator

from ..output.escape import visible
from .blocks import Block, Cell, Document, Facts, Lines, Note, Picture, Section, Span, Table, spans

#: What could be markup: text from the dump is shown as it is. Some is markup at the start of a line
#: only, and addresses of web pages become links.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&@^$]|^[-+=:]|(?<=:)/(?=/)|(?<=www)\.)", re.I)
_NUMBER = re.compile(r"^(\d+)([.)])")
_STARTS = {"bad": "**", "strong": "**", "doubt": "*", "missing": "*"}


def lines(document: Document) -> Iterator[str]:
    """The lines of a document."""
    yield f"# {escaped(document.title)}"
    yield ""
    yield escaped(document.summary)
    writer = _Writer(document.ids())
    for section in (document.died, *document.sections):
        yield from writer.section(section, 2)


def escaped(text: str) -> str:
    """A text without markup, on one line."""
    line = visible(text.replace("\n", " ").replace("\t", " "))
    return _NUMBER.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line))


class _Writer:
    """Writes sections; links lead to ``ids`` only."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def section(self, section: Section, level: int) -> Iterator[str]:
        yield ""
        yield f'{"#" * min(level, 6)} <a id="{section.id}"></a>{escaped(section.title)}'
        for block in section.blocks:
            found = list(self._block(block))
            if found:
                yield ""
                yield from found
        for part in section.sections:
            yield from self.section(part, level + 1)

    def _block(self, block: Block) -> Iterator[str]:
        match block:
            case Facts():
                for name, value in block.rows:
                    # Without a name it is another value of the row before it.
                    head = f"- {escaped(name)}: " if name else "  - "
                    yield f"{head}{self._cell(value)}"
            case Note():
                yield self._span(Span(block.text, mark=block.mark))
            case Table():
                yield from self._table(block)
            case Lines():
                yield from self._lines(block)
            case Picture():
                yield from self._table(block.table)

    def _cell(self, cell: Cell) -> str:
        return "".join(map(self._span, spans(cell)))

    def _span(self, span: Span) -> str:
        text = escaped(span.text)
        mark = _STARTS.get(span.mark, "")
        bare = text.strip()
        if mark and bare:
            text = text.replace(bare, f"{mark}{bare}{mark}", 1)
        return text if span.to not in self._ids else f"[{text}](#{span.to})"

    def _table(self, block: Table) -> Iterator[str]:
        if block.caption:
            yield f"{escaped(block.caption)}:"
            yield ""
        width = max([len(block.head), *(len(row) for row in block.rows)], default=0)
        if not width:
            return
        head = [*map(escaped, block.head)] or [" "] * width
        yield f"| {' | '.join(head)} |"
        yield f"|{'|'.join('---:' if i in block.numbers else '---' for i in range(width))}|"
        for i, row in enumerate(block.rows):
            cells = [self._cell(cell) for cell in row]
            if i < len(block.ids):
                cells[0] = f'<a id="{block.ids[i]}"></a>{cells[0]}'
            yield f"| {' | '.join(cells)} |"
        if block.more:
            yield ""
            yield f"*{block.more} more*"

    def _lines(self, block: Lines) -> Iterator[str]:
        if block.caption:
            yield f"{escaped(block.caption)}:"
            yield ""
        if block.more:
            yield f"*{escaped(block.more)}*"
            yield ""
        # No text can end an indented block, as it could end a fenced one.
        for line in block.lines:
            for part in "".join(span.text for span in line.spans).split("\n"):
                yield f"    {visible(part)}"
