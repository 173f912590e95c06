"""Rows of tables and lines of text, which are most of a page.

All text goes through ``escape`` of markupsafe. What is added to it are tags of this module, ids of
the document (which have no characters that need escaping) and names of marks.
"""

from collections.abc import Iterator
from functools import lru_cache

from markupsafe import Markup, escape

from ...output.escape import printable, visible
from ..blocks import Cell, Line, Lines, Span, Table


class Inline:
    """Writes spans; links lead to ``ids`` only."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def cell(self, cell: Cell) -> Markup:
        """A value."""
        return Markup(self._cell(cell))

    def rows(self, table: Table) -> Markup:
        """The rows of a table."""
        return Markup("".join(self._rows(table)))

    def lines(self, lines: Lines) -> Markup:
        """Lines of which spaces count."""
        return Markup("\n".join(map(self._line, lines.lines)))

    def _rows(self, table: Table) -> Iterator[str]:
        starts = [
            '<td class="n"' if column in table.numbers else "<td"
            for column in range(max(map(len, table.rows), default=0))
        ]
        # The name of the column, for narrow windows: see style.css.
        for column, name in enumerate(table.head[: len(starts)]):
            starts[column] += f' data-of="{escape(name)}"'
        for i, row in enumerate(table.rows):
            yield f'<tr id="{table.ids[i]}">' if i < len(table.ids) else "<tr>"
            for start, cell in zip(starts, row, strict=False):
                yield f"{start}>{self._cell(cell)}</td>"
            yield "</tr>\n"

    def _cell(self, cell: Cell) -> str:
        if isinstance(cell, str):
            return _escaped(cell)
        if isinstance(cell, Span):
            return self._span(cell)
        return "".join(map(self._span, cell))

    def _line(self, line: Line) -> str:
        found = "".join(map(self._span, line.spans))
        return f'<span class="{line.mark}">{found}</span>' if line.mark else found

    def _span(self, span: Span) -> str:
        shown = _escaped(span.text)
        if span.to is not None and span.to in self._ids:
            mark = f' class="{span.mark}"' if span.mark else ""
            return f'<a href="#{span.to}"{mark}>{shown}</a>'
        return f'<span class="{span.mark}">{shown}</span>' if span.mark else shown


#: Different texts whose escaped form is kept.
_KEPT = 1 << 12


@lru_cache(_KEPT)
def _escaped(found: str) -> str:
    """A text as HTML. Names of functions, states and numbers are in a page many times."""
    return str(escape(text(found)))


def text(found: str) -> str:
    """A text with what is not printable escaped, apart from line feeds and tabs."""
    if found.isprintable():
        return found
    if "\n" in found or "\t" in found:
        return "\n".join(map(printable, found.split("\n")))
    return visible(found)
