"""Aligns rows of text in columns."""

from collections.abc import Collection, Iterator, Sequence


def table(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> Iterator[str]:
    """Lines with columns as wide as they need to be; those in ``numbers`` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def columns(rows: Sequence[Sequence[str]], alignment: str, gap: str = " ") -> Iterator[str]:
    """Lines with columns as crash aligns them; the first row is the heading.

    ``alignment`` has a character per column: ``<`` or ``>``, or ``^`` for a centered heading with
    the cells below it on the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = (
            f"{cell:{side if side != '^' or not number else '<'}{width}}"
            for cell, side, width in zip(row, alignment, widths, strict=True)
        )
        yield gap.join(cells).rstrip()
