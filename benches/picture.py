"""Lines on two logarithmic axes, as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 28, 40, 52
#: Distinct without colour vision, too (Okabe and Ito).
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7")


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: who took how many nanoseconds an element with batches of what size."""

    title: str
    points: list[tuple[str, int, float]]


class Measured(Protocol):
    """A row of the report."""

    @property
    def harness(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def who(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def ns(self) -> float: ...


def of(rows: Sequence[Measured]) -> str:
    """Nanoseconds an address against the size of a batch, from what was measured."""
    wanted = (
        ("P2M at random, 64 GiB, from Python", "python", "resolve/64g/random"),
        ("virtual addresses at random, the core", "core", "translate-4k/64g/random"),
    )
    panels = []
    for title, harness, group in wanted:
        found = [row for row in rows if (row.harness, row.group) == (harness, group)]
        # The same colours in both: this package first.
        found.sort(key=lambda row: (not row.who.startswith("xenkdump"), row.who))
        panels.append(Panel(title, [(row.who, row.batch, row.ns) for row in found]))
    return draw(panels)


def draw(panels: list[Panel]) -> str:
    """All panels, side by side."""
    parts = [plot(panel, i * WIDTH) for i, panel in enumerate(panels) if panel.points]
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" '
        f'font-size="12"><rect {size} fill="white"/>{"".join(parts)}</svg>\n'
    )


def plot(panel: Panel, shift: int) -> str:
    """One panel."""
    batches = [batch for _, batch, _ in panel.points]
    times = [ns for _, _, ns in panel.points]
    low = 10 ** math.floor(math.log10(min(times)))
    high = 10 ** math.ceil(math.log10(max(times)))

    def x(batch: float) -> float:
        span = math.log(max(batches) / min(batches)) or 1
        return LEFT + math.log(batch / min(batches)) / span * (WIDTH - LEFT - RIGHT)

    def y(ns: float) -> float:
        span = math.log(high / low) or 1
        return HEIGHT - BOTTOM - math.log(ns / low) / span * (HEIGHT - TOP - BOTTOM)

    out = [f'<g transform="translate({shift} 0)">']
    out.append(f'<text x="{LEFT}" y="20" font-weight="bold">{escape(panel.title)}</text>')
    ns = low
    while ns <= high:
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(ns):.1f}" y2="{y(ns):.1f}" '
            f'stroke="#ddd"/><text x="{LEFT - 8}" y="{y(ns) + 4:.1f}" '
            f'text-anchor="end">{ns:g}</text>'
        )
        ns *= 10
    out.extend(
        f'<text x="{x(batch):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
        f"{short(batch)}</text>"
        for batch in sorted(set(batches))
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
        f'addresses in a batch</text><text transform="translate(16 {middle}) rotate(-90)" '
        f'text-anchor="middle">ns an address</text>'
    )
    for i, who in enumerate(dict.fromkeys(who for who, _, _ in panel.points)):
        line = sorted((batch, ns) for name, batch, ns in panel.points if name == who)
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x(batch):.1f},{y(ns):.1f}" for batch, ns in line)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [
            f'<circle cx="{x(batch):.1f}" cy="{y(ns):.1f}" r="3" fill="{colour}"/>'
            for batch, ns in line
        ]
        out.append(
            f'<text x="{WIDTH - RIGHT - 4}" y="{TOP + 14 + 16 * i}" text-anchor="end" '
            f'fill="{colour}">{escape(who)}</text>'
        )
    return "".join(out) + "</g>"


def short(number: int) -> str:
    """4096 as 4K."""
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if number >= size and number % size == 0:
            return f"{number // size}{unit}"
    return str(number)
