"""Plots time per address against the batch size, from the sweep.

    python -m benches.picture docs/benchmarks/table.json docs/benchmarks/picture.svg

redraws the picture without measuring.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from .report import Results, Row

#: Title, harness and group of each plot.
PLOTS = (
    ("P2M at random, 64 GiB, from Python", "python", "resolve/64g/random"),
    ("virtual addresses at random, the core", "core", "translate-4k/64g/random"),
)
#: Distinct without colour vision (Okabe and Ito).
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7")


def svg(rows: Sequence[Row]) -> str:
    """The plots that have rows, side by side."""
    selected = {
        title: [row for row in rows if (row.harness, row.group) == (harness, group)]
        for title, harness, group in PLOTS
    }
    selected = {title: found for title, found in selected.items() if found}
    with mpl.rc_context():
        # Keep text as text, and make the output reproducible.
        mpl.rc("svg", fonttype="none", hashsalt="xenkdump_fast")
        mpl.rc("font", size=9)
        figure = Figure(figsize=(4.8 * max(len(selected), 1), 3.4), layout="constrained")
        for i, (title, found) in enumerate(selected.items()):
            axes = figure.add_subplot(1, len(selected), i + 1)
            axes.set(title=title, xlabel="addresses per batch", ylabel="ns per address")
            # This package first, so that it has the same colours in every plot.
            names = {row.who for row in found}
            ordered = sorted(names, key=lambda who: (not who.startswith("xenkdump"), who))
            for who, colour in zip(ordered, COLOURS, strict=False):
                line = sorted((row.batch, row.ns) for row in found if row.who == who)
                axes.loglog(*zip(*line, strict=True), "o-", color=colour, markersize=4, label=who)
            batches = sorted({row.batch for row in found})
            axes.set_xticks(batches, [short(batch) for batch in batches])
            axes.xaxis.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(axis="y", color="#ddd")
            axes.legend(frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def short(number: int) -> str:
    """4096 as 4K."""
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if number >= size and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)


if __name__ == "__main__":
    table, target = map(Path, sys.argv[1:])
    target.write_text(svg(Results.read(table).rows))
