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
