"""Columns."""

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> str:
    """The rows in columns as wide as they need; those in ``numbers`` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "".join(f"{line}\n" for line in lines)
