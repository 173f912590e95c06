"""Pieces of text within a line. Macros of the template would take several times as long."""

from markupsafe import Markup, escape

from ...output.escape import printable, visible
from ..blocks import Cell, Line, Span


class Inline:
    """Writes spans; links lead to ``ids`` only."""

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def cell(self, cell: Cell) -> Markup:
        """A cell of a table, or a value."""
        if isinstance(cell, str):
            return escape(text(cell))
        if isinstance(cell, Span):
            return self._span(cell)
        return Markup("").join(map(self._span, cell))

    def line(self, line: Line) -> Markup:
        """A line of code, of a log or of a stack."""
        found = Markup("").join(map(self._span, line.spans))
        if line.mark:
            return Markup('<span class="{}">{}</span>').format(line.mark, found)
        return found

    def _span(self, span: Span) -> Markup:
        shown = escape(text(span.text))
        if span.to is not None and span.to in self._ids:
            if span.mark:
                link = Markup('<a href="#{}" class="{}">{}</a>')
                return link.format(span.to, span.mark, shown)
            return _LINK % (span.to, shown)
        return _MARKED % (span.mark, shown) if span.mark else shown


_LINK = Markup('<a href="#%s">%s</a>')
_MARKED = Markup('<span class="%s">%s</span>')


def text(found: str) -> str:
    """A text with what is not printable escaped, apart from line feeds and tabs."""
    if found.isprintable():
        return found
    if "\n" in found or "\t" in found:
        return "\n".join(map(printable, found.split("\n")))
    return visible(found)
