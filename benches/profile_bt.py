"""Where the CPU time of ``bt -a`` goes, from the start of the process to its end.

``python -m benches.profile_bt TURNS FILE [VMCORE VMLINUX]`` writes the profile as Markdown to FILE.
Without a dump, a synthetic one is read. ``checkpoints.py`` notes the CPU time at each import and
step; perf, if it may be used, says which part of it was spent in Python, in Rust, in libraries and
in the system. The processes are pinned to one core, and alternate with ``import argparse``.
"""

import bisect
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from xenkdump_forge import write_dump

from .guests import folder
from .pairing import cores, say
from .processes import run
from .whole_commands import START

CHECKPOINTS = str(Path(__file__).with_name("checkpoints.py"))
#: Steps of the command: module, function or cached property, label.
STEPS = (
    ("xenkdump_fast.arguments", "parse", "parse the command line"),
    ("xenkdump_fast.session.dump", "open", "open the dump"),
    ("xenkdump_fast.session.formats", "open_image", "open the vmlinux"),
    ("xenkdump_fast.session.dump", "Dump.domain", "open the domain"),
    ("xenkdump_fast.linux.boot.locate", "locate", "find the kernel in the dump"),
    ("xenkdump_fast.commands.bt", "run", "choose the tasks"),
    ("xenkdump_fast.linux.system", "Linux.active", "find what the CPUs ran"),
    ("xenkdump_fast.linux.system", "Linux.contexts", "find the registers"),
    ("xenkdump_fast.linux.system", "Linux.unwinder", "prepare the unwinder"),
    ("xenkdump_fast.output.writer", "Writer.text", "unwind, format and write"),
)
#: Samples per second of CPU time.
FREQUENCY = 10_000
#: The most modules and functions that are listed.
MOST = 25
PYTHON, RUST, SYSTEM, LIBRARIES = "Python", "Rust", "system", "libraries"


@dataclass
class Turn:
    """One run: milliseconds by label, and by label and kind of code."""

    total: float
    own: dict[str, float]
    missing: list[str]
    #: Shares of samples, by label and kind; empty without perf.
    shares: dict[tuple[str, str], float] = field(default_factory=dict)
    #: The same by label and function of the native module.
    functions: dict[tuple[str, str], float] = field(default_factory=dict)


def checked(text: str, total: float) -> tuple[list[int], list[str], Turn]:
    """The checkpoints of a run: their times, their labels, and the CPU time by label."""
    times, labels, cpu, missing = [], [], [], []
    for line in text.splitlines():
        cells = line.split("\t")
        if cells[0] == "missing":
            missing.append(cells[1])
        else:
            times.append(int(cells[0]))
            cpu.append(int(cells[1]))
            labels.append(cells[2])
    own: dict[str, float] = defaultdict(float)
    own["start of the interpreter"] = cpu[0] / 1e6
    for label, at, after in zip(labels, cpu, [*cpu[1:], total * 1e6], strict=True):
        own[label] += (after - at) / 1e6
    return times, labels, Turn(total, dict(own), missing)


def one_turn(words: list[str], perf: str | None) -> Turn:
    """Runs the command once, by perf if it is given."""
    with tempfile.TemporaryDirectory() as where:
        points, samples = Path(where, "points"), Path(where, "perf")
        steps = "\n".join("\t".join(step) for step in STEPS)
        command = [sys.executable, CHECKPOINTS, str(points), steps, *words]
        if perf is None:
            total = run(command, b"").cpu / 1e6
            return checked(points.read_text(), total)[2]
        record = [perf, "record", "-q", "-k", "CLOCK_MONOTONIC", "-e", "cpu-clock"]
        record += ["-F", str(FREQUENCY), "-o", str(samples), "--"]
        run([*record, *command], b"")
        script = [perf, "script", "-i", str(samples), "-F", "time,ip,sym,dso"]
        text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
        # perf itself takes CPU time: only shares are used.
        times, labels, turn = checked(points.read_text(), 0.0)
        sampled(turn, times, labels, text)
        return turn


def sampled(turn: Turn, times: list[int], labels: list[str], text: str) -> None:
    """Attributes samples to what ran at their time."""
    kinds: Counter[tuple[str, str]] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    count = 0
    for line in text.splitlines():
        stamp, _, rest = line.strip().partition(": ")
        _, _, rest = rest.strip().partition(" ")
        symbol, _, library = rest.rpartition(" (")
        if not library:
            continue
        seconds, _, fraction = stamp.partition(".")
        at = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        number = bisect.bisect(times, at) - 1
        label = labels[number] if number >= 0 else "start of the interpreter"
        kind = kind_of(library.rstrip(")"))
        kinds[label, kind] += 1
        if kind == RUST:
            functions[label, symbol.partition("+0x")[0]] += 1
        count += 1
    turn.shares = {key: n / count for key, n in kinds.items()}
    turn.functions = {key: n / count for key, n in functions.items()}


def kind_of(library: str) -> str:
    """The kind of code in a file."""
    name = library.rpartition("/")[2]
    if name.startswith("_native"):
        return RUST
    if name.startswith(("libpython", "python")):
        return PYTHON
    return SYSTEM if name.startswith("[kernel") else LIBRARIES


def group(label: str) -> str:
    """The row of the table that a label belongs to."""
    if not label.startswith("import "):
        return label
    name = label.removeprefix("import ")
    top = name.partition(".")[0]
    if name == "xenkdump_fast._native":
        return "imports: the native module"
    if top == "xenkdump_fast":
        return "imports: xenkdump_fast"
    return "imports: standard library" if top in sys.stdlib_module_names else f"imports: {top}"


def grouped(own: dict[str, float]) -> dict[str, float]:
    """Sums by row."""
    sums: dict[str, float] = defaultdict(float)
    for label, value in own.items():
        sums[group(label)] += value
    return dict(sums)


def medians(each: Iterable[dict[str, float]]) -> dict[str, float]:
    """The median of each key; 0 where it is missing."""
    all_of = list(each)
    keys = dict.fromkeys(key for one in all_of for key in one)
    return {key: statistics.median(one.get(key, 0.0) for one in all_of) for key in keys}


def mean(each: Iterable[dict[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """The mean of each key: most are rare."""
    all_of = list(each)
    keys = {key for one in all_of for key in one}
    return {key: sum(one.get(key, 0.0) for one in all_of) / len(all_of) for key in keys}


def usable_perf() -> str | None:
    """perf, if this user may sample."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    with tempfile.TemporaryDirectory() as where:
        test = [perf, "record", "-q", "-e", "cpu-clock", "-o", f"{where}/perf", "--", "true"]
        return None if subprocess.run(test, capture_output=True, check=False).returncode else perf


def profile(turns: int, name: str, words: list[str]) -> str:
    """The profile as Markdown."""
    perf = usable_perf()
    starts: list[float] = []
    found: list[Turn] = []
    plain: list[float] = []
    by_perf: list[Turn] = []
    whole = [str(Path(sys.executable).with_name("xkdump")), *words]
    for turn in range(turns + 1):
        started, alone, one = run(START, b"").cpu, run(whole, b"").cpu, one_turn(words, None)
        sample = one_turn(words, perf) if perf else None
        if turn == 0:
            continue  # it compiles modules and fills the page cache
        starts.append(started / 1e6)
        plain.append(alone / 1e6)
        found.append(one)
        if sample is not None:
            by_perf.append(sample)
    start, alone = statistics.median(starts), statistics.median(plain)
    times = statistics.median(a / b for a, b in zip(plain, starts, strict=True))
    total = statistics.median(one.total for one in found)
    say(f"bt -a, {name}: {alone:.1f} ms, {times:.2f} times import argparse")
    lines = [
        "# Profile of `bt -a`",
        "",
        f"CPU time of the whole process on {name}, medians of {turns} turns on one core. Written",
        "by `make bench` (`python -m benches.profile_bt`). Time in one row is not in another:",
        "a step does not include its imports, nor the steps within it.",
        "",
        f"- `xkdump bt -a`: {alone:.1f} ms, {times:.2f} times `python -c 'import argparse'`",
        f"  ({start:.1f} ms)",
        f"- the same with checkpoints, which the table is about: {total:.1f} ms",
    ]
    lines += [f"- not found in this version: {label}" for label in found[0].missing]
    if perf is None:
        lines.append("- not measured: Python and Rust apart (no perf, or this user may not sample)")
    lines += ["", *steps_table(found, by_perf, total)]
    lines += ["", "## Imports by package", "", *packages_table(found)]
    lines += ["", f"## The {MOST} modules that take longest to import", "", *modules_table(found)]
    if by_perf:
        lines += ["", "## Functions of the native module", "", *functions_table(by_perf, total)]
    return "\n".join(lines) + "\n"


def steps_table(found: list[Turn], by_perf: list[Turn], total: float) -> list[str]:
    """A line for each row, with the kinds of code in it."""
    own = medians(grouped(one.own) for one in found)
    first = grouped(found[0].own)
    rows = sorted(own, key=lambda row: (ORDER.get(row, 1), list(first).index(row)))
    kinds = (PYTHON, RUST, LIBRARIES, SYSTEM) if by_perf else ()
    shares: dict[tuple[str, str], float] = defaultdict(float)
    for (label, kind), share in mean(one.shares for one in by_perf).items():
        shares[group(label), kind] += share
    lines = [
        f"| step | ms | share |{''.join(f' {kind} |' for kind in kinds)}",
        "|---|---|---|" + "---|" * len(kinds),
    ]
    parts: dict[str, dict[str, float]] = {}
    for row in rows:
        in_row = sum(shares[row, kind] for kind in kinds) or 1
        parts[row] = {kind: own[row] * shares[row, kind] / in_row for kind in kinds}
        cells = "".join(f" {value:.1f} |" for value in parts[row].values())
        lines.append(f"| {row} | {own[row]:.1f} | {own[row] / total:.0%} |{cells}")
    sums = [f" {sum(part[kind] for part in parts.values()):.1f} |" for kind in kinds]
    return [*lines, f"| **all** | {sum(own.values()):.1f} | |{''.join(sums)}"]


#: Rows that are first and last.
ORDER = {"start of the interpreter": 0, "other": 2, "exit": 3}


def packages_table(found: list[Turn]) -> list[str]:
    """Imports by package: those of the standard library as a whole."""

    def package(name: str) -> str:
        parts = name.split(".")
        if parts[0] in sys.stdlib_module_names:
            return "standard library"
        return ".".join(parts[:2])

    def of_turn(one: Turn) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for label, value in one.own.items():
            if label.startswith("import "):
                sums[package(label.removeprefix("import "))] += value
        return dict(sums)

    modules = [label.removeprefix("import ") for label in found[0].own if "import " in label]
    numbers = Counter(map(package, modules))
    own = medians(map(of_turn, found))
    lines = ["| package | modules | ms |", "|---|---|---|"]
    order = sorted(own, key=lambda name: -own[name])
    lines += [f"| {name} | {numbers[name]} | {own[name]:.1f} |" for name in order]
    return [*lines, f"| **all** | {len(modules)} | {sum(own.values()):.1f} |"]


def modules_table(found: list[Turn]) -> list[str]:
    """The modules with the longest imports, without the imports in them."""
    own = medians(one.own for one in found)
    names = [label for label in own if label.startswith("import ")]
    names.sort(key=lambda label: -own[label])
    lines = ["| module | ms |", "|---|---|"]
    return lines + [f"| {n.removeprefix('import ')} | {own[n]:.2f} |" for n in names[:MOST]]


def functions_table(by_perf: list[Turn], total: float) -> list[str]:
    """The functions of the native module with most samples."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for (label, symbol), share in mean(one.functions for one in by_perf).items():
        sums[group(label), symbol] += share
    lines = ["| step | function | ms |", "|---|---|---|"]
    for (row, symbol), share in sorted(sums.items(), key=lambda one: -one[1])[:MOST]:
        lines.append(f"| {row} | `{symbol}` | {share * total:.2f} |")
    return lines


def main() -> None:
    """Writes the profile."""
    turns, target, *files = sys.argv[1:]
    if files:
        vmcore, vmlinux = files
        name = Path(vmcore).parent.name
    else:
        made = write_dump(folder() / "whole-commands")
        vmcore, vmlinux, name = str(made.vmcore), str(made.vmlinux), "a synthetic host"
    with cores(1):
        Path(target).write_text(profile(int(turns), name, ["bt", "-a", vmlinux, vmcore]))


if __name__ == "__main__":
    main()
