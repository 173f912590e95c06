"""What was measured, as JSON, as Markdown tables of ratios, and as a picture."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import picture as drawing


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: the best time of a run."""

    #: "python", "core", "peers" or "process".
    harness: str
    #: What was done, to which guest, in which order.
    group: str
    #: Who did it, and on how many threads.
    who: str
    #: How many elements a call had.
    batch: int
    #: Nanoseconds an element.
    ns: float


@dataclass(slots=True)
class Results:
    """All that was measured."""

    machine: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    #: Instructions an element, by path and order.
    counts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Results":
        """What an earlier run wrote; nothing if there was none."""
        if not path.is_file():
            return cls()
        found = json.loads(path.read_text())
        return cls(found["machine"], [Row(**row) for row in found["rows"]], found["counts"])

    def write(self, path: Path) -> None:
        """Writes all of it, and the targets."""
        found = asdict(self)
        found["targets"] = [asdict(target) for target in targets(self)]
        path.write_text(json.dumps(found, indent=1) + "\n")

    def put(self, harness: str, rows: Iterable[Row]) -> None:
        """Puts a harness's rows in the place of its earlier ones."""
        self.rows = [row for row in self.rows if row.harness != harness] + list(rows)

    def ns(self, group: str, who: str, batch: int | None = None) -> float | None:
        """The time of one measurement, of the longest batch if none is named."""
        fit = [
            row
            for row in self.rows
            if (row.group, row.who) == (group, who) and batch in (None, row.batch)
        ]
        return max(fit, key=lambda row: row.batch).ns if fit else None


@dataclass(frozen=True, slots=True)
class Target:
    """What was to be reached, and what was."""

    what: str
    #: How many times as fast, or how many nanoseconds at most.
    wanted: str
    got: str
    met: bool


def targets(results: Results) -> list[Target]:
    """The targets of which both sides were measured."""
    found = []

    def times(what: str, wanted: float, ours: tuple[str, str], theirs: tuple[str, str]) -> None:
        mine, other = results.ns(*ours), results.ns(*theirs)
        if mine and other:
            ratio = other / mine
            found.append(Target(what, f"{wanted:g}x", f"{ratio:.2f}x", ratio >= wanted))

    for order, one, two in (("random", 1.5, 2.5), ("sequential", 2, None)):
        group = f"resolve/64g/{order}"
        title = f"P2M, {order}, against numpy's take"
        times(f"{title}, 1 thread", one, (group, "xenkdump-1"), (group, "numpy"))
        if two is not None:
            times(f"{title}, 2 threads", two, (group, "xenkdump-2"), (group, "numpy"))
    for pages in ("4k", "2m"):
        for order in ("sequential", "random"):
            group = f"translate-{pages}/64g/{order}"
            title = f"virtual addresses, {pages} pages, {order}, against memflow"
            times(title, 2, (group, "xenkdump"), (group, "memflow"))
    for order, wanted in (("sequential", 300), ("random", 60)):
        for kind in ("physical/64g", "virtual/bare-x86_64"):
            group = f"read-8-{kind}/{order}"
            for peer in ("libkdumpfile", "drgn"):
                title = f"8 bytes, {kind.split('/')[0]}, {order}, against {peer}"
                times(title, wanted, (group, "xenkdump-2"), (group, peer))
    empty = results.ns("single/4g", "empty")
    for what in ("resolve", "translate-4k", "u64"):
        one_call = results.ns("single/4g", what)
        if one_call and empty:
            more = one_call - empty
            title = f"one {what} from Python, beyond an empty call"
            found.append(Target(title, "300 ns", f"{more:.0f} ns", more <= 300))
    times("a domain, against memcpy", 0.8, ("domain/4g", "readinto-1"), ("domain/4g", "memcpy"))
    title = "objects of 64 bytes at random, read_many against a loop over read"
    times(title, 50, ("objects/4g/random", "read_many-2"), ("objects/4g/random", "loop"))
    return found


def markdown(results: Results) -> str:
    """Tables of ratios."""
    lines = ["# Benchmarks", ""]
    lines += [f"- {name}: {value}" for name, value in results.machine.items()]
    lines += [
        "",
        "Times are the best of a run, in nanoseconds an element; only ratios within one run mean",
        "anything. Made by `python benches/run.py`.",
        "",
        "## Targets",
        "",
        "| what | wanted | got | |",
        "|---|---|---|---|",
    ]
    for target in targets(results):
        mark = "met" if target.met else "**not met**"
        lines.append(f"| {target.what} | {target.wanted} | {target.got} | {mark} |")
    for harness, title in TITLES.items():
        rows = [row for row in results.rows if row.harness == harness]
        if rows:
            lines += ["", f"## {title}", "", *table(rows)]
    if results.counts:
        lines += ["", "## Instructions an element", "", "| path | instructions |", "|---|---|"]
        lines += [f"| {path} | {count:.1f} |" for path, count in results.counts.items()]
    return "\n".join(lines) + "\n"


TITLES = {
    "python": "From Python",
    "core": "The core alone",
    "peers": "Peers, reading the same dump",
    "process": "Whole processes",
}


def table(rows: list[Row]) -> list[str]:
    """A line for each group and batch: our times, and others' in times of ours."""
    lines = ["| what | batch | who | ns | times ours |", "|---|---|---|---|---|"]
    ours: dict[tuple[str, int], float] = {}
    for row in rows:
        if mine(row.who):
            ours.setdefault((row.group, row.batch), row.ns)
    newest = {group: ns for (group, _), ns in ours.items()}
    for row in sorted(rows, key=lambda row: (row.group, row.batch)):
        base = ours.get((row.group, row.batch)) or newest.get(row.group)
        ratio = "" if base is None else f"{row.ns / base:.2f}"
        lines.append(f"| {row.group} | {row.batch} | {row.who} | {row.ns:.2f} | {ratio} |")
    return lines


def mine(who: str) -> bool:
    """Whether a measurement is this package's own, in bulk."""
    return who.startswith(("xenkdump", "xkdump", "read_many", "readinto"))


def picture(results: Results) -> str:
    """Nanoseconds an address against the size of a batch."""
    panels = (
        ("P2M at random, from Python", "python", "resolve/64g/random"),
        ("virtual addresses at random, the core", "core", "translate-4k/64g/random"),
    )
    pick: Callable[[str, str], list[Row]] = lambda harness, group: [  # noqa: E731
        row for row in results.rows if (row.harness, row.group) == (harness, group)
    ]
    return drawing.draw(
        [
            drawing.Panel(title, [(row.who, row.batch, row.ns) for row in pick(harness, group)])
            for title, harness, group in panels
        ]
    )
