"""The measurements as JSON and as Markdown tables."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from . import missed as missed_targets
from .pairing import Figure, Pair


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of the sweep over orders, guests and batches: the best time of a run."""

    #: "python" or "core".
    harness: str
    #: Operation, guest and order.
    group: str
    #: Implementation and number of threads.
    who: str
    #: The number of elements per call.
    batch: int
    #: Nanoseconds per element.
    ns: float


@dataclass(frozen=True, slots=True)
class Run:
    """When a part was measured, how long it took, and the load average before it."""

    date: str
    seconds: float
    load: float


@dataclass(slots=True)
class Results:
    """All measurements. Parts may have been measured at different times."""

    machine: dict[str, str] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    #: Instructions per element, by path and order.
    counts: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    #: Peers and parts that were not measured, and why, by part.
    missing: dict[str, list[str]] = field(default_factory=dict)
    #: By part.
    runs: dict[str, Run] = field(default_factory=dict)

    def take(self, part: str, found: Iterable[Pair | Figure]) -> None:
        """Stores a harness's results in place of those of an earlier run."""
        for one in found:
            if isinstance(one, Pair):
                kept = [pair for pair in self.pairs if key(pair) != key(one)]
                self.pairs = [*kept, replace(one, part=part)]
            else:
                figures = [figure for figure in self.figures if figure.what != one.what]
                self.figures = [*figures, replace(one, part=part)]

    def drop_others(self, part: str, found: Iterable[Pair | Figure]) -> None:
        """Drops results of a part that its last run, which ``found`` is of, no longer has."""
        kept = {key(one) for one in found}
        self.pairs = [one for one in self.pairs if one.part != part or key(one) in kept]
        self.figures = [one for one in self.figures if one.part != part or key(one) in kept]

    def write(self, path: Path) -> None:
        """Writes the results and a summary of the pairs."""
        found = asdict(self)
        for entry, pair in zip(found["pairs"], self.pairs, strict=True):
            entry["ratio"] = statistics.median(pair.ratios())
            entry["met"] = pair.met()
        path.write_text(json.dumps(found, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Reads the output of ``write``."""
        found = json.loads(path.read_text())
        for entry in found["pairs"]:
            del entry["ratio"], entry["met"]
        missing = found["missing"]
        return cls(
            found["machine"],
            [Pair(**entry) for entry in found["pairs"]],
            [Figure(**entry) for entry in found["figures"]],
            found["counts"],
            [Row(**entry) for entry in found["rows"]],
            # Results of an earlier version do not know their parts.
            {"": missing} if isinstance(missing, list) else missing,
            {part: Run(**entry) for part, entry in found.get("runs", {}).items()},
        )


def key(one: Pair | Figure) -> tuple[str, ...]:
    """What a measurement is of."""
    return (one.what, one.ours, one.theirs) if isinstance(one, Pair) else (one.what,)


def markdown(results: Results) -> str:
    """Tables of ratios."""
    lines = ["# Benchmarks", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += [f"- not measured: {what}" for each in results.missing.values() for what in each]
    lines += ["", *INTRODUCTION]
    plain = [pair for pair in results.pairs if pair.part != "shapes"]
    judged = [pair for pair in plain if pair.met() is not None]
    others = [pair for pair in plain if pair.met() is None]
    lines += section("Ratios with a target", [targets_table(judged)] if judged else [])
    missed = list(missed_targets.rows(results.pairs))
    lines += section("Missed targets", [missed_table(missed)] if missed else [])
    lines += section("Other ratios", [ratios_table(others)] if others else [])
    for title, table in shape_tables([one for one in results.pairs if one.part == "shapes"]):
        lines += section(title, [table])
    lines += section("Alone", [figures_table(results.figures)] if results.figures else [])
    if results.counts:
        table = ["| path | instructions |", "|---|---|"]
        table += [f"| {path} | {count:.1f} |" for path, count in results.counts.items()]
        lines += section("Instructions per element (callgrind)", [table])
    for harness, title in SWEEPS.items():
        rows = [row for row in results.rows if row.harness == harness]
        lines += section(title, [sweep_table(rows)] if rows else [])
    lines += section("Parts", [runs_table(results.runs)] if results.runs else [])
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "Written by `make bench`. Both sides of a ratio were measured in alternation (ours, theirs,",
    "ours, theirs), in one process or in two. Each turn has a ratio; the median and the extremes",
    "are shown. Times are medians for one element: an address, a pfn, an object, or a page of",
    "4 KiB. One thread is pinned to one core, two threads to two cores.",
)
SWEEPS = {
    "python": "By batch size, from Python (pytest-benchmark)",
    "core": "By batch size, only the core (criterion)",
}


def section(title: str, tables: list[list[str]]) -> list[str]:
    """A heading with its contents, or nothing if there are none."""
    return [line for table in tables for line in ("", f"## {title}", "", *table)]


def targets_table(pairs: list[Pair]) -> list[str]:
    """A line for each pair that has a target."""
    lines = [
        "| what | ours | time | against | time | wanted | got | from … to | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        if pair.most_more_ns is None:
            wanted, got, spread = f"{pair.wanted:g}x", *times(pair)
        else:
            more = pair.more_ns()
            wanted = f"≤ {pair.most_more_ns:g} ns more"
            got = f"{statistics.median(more):.0f} ns more"
            spread = f"{min(more):.0f} … {max(more):.0f}"
        mark = "met" if pair.met() else "**not met**"
        lines.append(f"{both(pair)} {wanted} | {got} | {spread} | {mark} |")
    return lines


def missed_table(rows: list[list[str]]) -> list[str]:
    """A line for each missed target, with a measurement that explains it."""
    lines = ["| what | against | target | measured | explanation |", "|---|---|---|---|---|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def ratios_table(pairs: list[Pair]) -> list[str]:
    """A line for each other pair."""
    lines = [
        "| what | ours | time | against | time | ratio | from … to |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        got, spread = times(pair)
        lines.append(f"{both(pair)} {got} | {spread} |")
    return lines


def both(pair: Pair) -> str:
    """Implementation and time."""
    ours, theirs = statistics.median(pair.ours_ns), statistics.median(pair.theirs_ns)
    return f"| {pair.what} | {pair.ours} | {duration(ours)} | {pair.theirs} | {duration(theirs)} |"


def times(pair: Pair) -> tuple[str, str]:
    """The median of the ratios, and the extremes."""
    ratios = pair.ratios()
    spread = f"{number(min(ratios))} … {number(max(ratios))}"
    return f"{number(statistics.median(ratios))}x", spread


def duration(ns: float) -> str:
    """Formats a value with a suitable unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{number(ns / size)} {unit}"
    return f"{number(ns)} ns"


def number(value: float) -> str:
    """Formats a number with three digits, or all digits of the integer part."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def shape_tables(pairs: list[Pair]) -> Iterable[tuple[str, list[str]]]:
    """The median ratios by order and peer: a line for each guest, a column for each batch."""
    sections: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for pair in pairs:
        guest, _, order = pair.what.rpartition(", ")
        rows = sections.setdefault((order, pair.theirs), {})
        cell = f"{statistics.median(pair.ratios()):.2f}"
        cells = rows.setdefault(guest.removeprefix("P2M shape: "), {})
        cells[pair.ours] = f"{cell} (!)" if pair.met() is False else cell
    for (order, peer), rows in sections.items():
        names = list(dict.fromkeys(name for cells in rows.values() for name in cells))
        lines = [f"| shape, size | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
        for guest, cells in rows.items():
            lines.append(f"| {guest} | {' | '.join(cells.get(name, '') for name in names)} |")
        yield f"P2Ms by shape, {order}: times as fast as {peer} (!: target missed)", lines


def runs_table(runs: dict[str, Run]) -> list[str]:
    """When each part was measured."""
    lines = ["| part | measured | seconds | load average before it |", "|---|---|---|---|"]
    for part, run in runs.items():
        lines.append(f"| {part} | {run.date} | {run.seconds:.0f} | {run.load:.1f} |")
    return lines


def figures_table(figures: list[Figure]) -> list[str]:
    """A line for each figure."""
    lines = ["| what | |", "|---|---|"]
    lines += [f"| {figure.what} | {number(figure.value)} {figure.unit} |" for figure in figures]
    return lines


def sweep_table(rows: list[Row]) -> list[str]:
    """A line for each group and batch, a column for each implementation."""
    names = list(dict.fromkeys(row.who for row in rows))
    lines = [f"| what | batch | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    found = {(row.group, row.batch, row.who): row.ns for row in rows}
    for group, batch in sorted({(row.group, row.batch) for row in rows}):
        cells = [found.get((group, batch, who)) for who in names]
        shown = " | ".join("" if ns is None else number(ns) for ns in cells)
        lines.append(f"| {group} | {batch} | {shown} |")
    return lines
