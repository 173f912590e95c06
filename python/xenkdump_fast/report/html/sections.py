"""Sections and their blocks. As in ``inline``, all text goes through ``escape`` of markupsafe."""

from collections.abc import Iterator

from markupsafe import escape

from ..blocks import Block, Document, Facts, Lines, Note, Picture, Section, Table
from . import pictures
from .inline import Inline, text

#: The most sections of a document whose parts are in the contents.
_LISTED = 40
_LAST_LEVEL = 6
#: The start of the heads of columns, of which some are numbers.
_HEADS = ('<th scope="col">', '<th scope="col" class="n">')


def contents(document: Document) -> Iterator[str]:
    """The entries of the contents."""
    yield f'<li><a href="#died">{escape(document.died.title)}</a></li>\n'
    is_short = len(document.sections) < _LISTED
    for section in document.sections:
        parts = ""
        if section.sections and section.domain is not None and is_short:
            parts = f"<ul>{''.join(f'<li>{_link(inner)}</li>' for inner in section.sections)}</ul>"
        yield f"<li>{_link(section)}{parts}</li>\n"


def _link(section: Section) -> str:
    return f'<a href="#{section.id}">{escape(text(section.title))}</a>'


def section(inline: Inline, of: Section, level: int = 2) -> Iterator[str]:
    """A section with its parts, whose headings are one level below."""
    heading = f"<h{level}>{escape(text(of.title))}</h{level}>"
    if of.folded:
        yield f'<details id="{of.id}"><summary>{heading}</summary>\n'
    else:
        yield f'<section id="{of.id}">{heading}\n'
    for block in of.blocks:
        yield f"{_block(inline, block)}\n"
    for inner in of.sections:
        yield from section(inline, inner, min(level + 1, _LAST_LEVEL))
        yield "\n"
    yield "</details>\n" if of.folded else "</section>\n"


def _block(inline: Inline, block: Block) -> str:
    if isinstance(block, Facts):
        rows = (
            f"<div><dt>{escape(label)}</dt><dd>{inline.cell(value)}</dd></div>\n"
            for label, value in block.rows
        )
        return f"<dl>\n{''.join(rows)}</dl>\n"
    if isinstance(block, Note):
        start = f'<p class="{block.mark}">' if block.mark else "<p>"
        return f"{start}{escape(text(block.text))}</p>\n"
    if isinstance(block, Lines):
        caption = f'<p class="caption">{escape(text(block.caption))}</p>' if block.caption else ""
        more = f'<p class="missing">{escape(block.more)}</p>' if block.more else ""
        return f'{caption}{more}<pre tabindex="0">{inline.lines(block)}</pre>\n'
    if isinstance(block, Picture):
        start = f"<figure>{_scrolled(block.title)}{pictures.svg(block)}</div>"
        return f"{start}<figcaption>{_table(inline, block.table)}</figcaption></figure>\n"
    return f"{_table(inline, block)}\n"


def _table(inline: Inline, table: Table) -> str:
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    head = ""
    if table.head:
        cells = (
            _HEADS[i in table.numbers] + f"{escape(name)}</th>" for i, name in enumerate(table.head)
        )
        head = f"<thead><tr>{''.join(cells)}</tr></thead>"
    more = f'<p class="missing">{table.more} more are left out.</p>' if table.more else ""
    start = "<table>" if table.head else '<table class="plain">'
    return (
        f"{_scrolled(table.caption or 'table')}{start}\n{caption}{head}<tbody>\n"
        f"{inline.rows(table)}</tbody></table></div>\n{more}"
    )


def _scrolled(label: str) -> str:
    """The start of a part that is scrolled where the page is narrow."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
