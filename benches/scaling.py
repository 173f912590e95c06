"""The cost of commands as a host grows: its memory, domains, tasks, modules or vCPUs.

    python -m benches.scaling TURNS FOLDER [AXIS ...]

measures, and writes ``scaling.jsonl``, ``scaling.md`` and ``scaling.svg`` into FOLDER. Points of
other axes that the folder has are kept; ``TURNS`` of 0 measures nothing. Each host is a sparse file
of at most 2 GB on disk, which is removed after its measurements. All of them take ten
minutes on two shared cores with one turn, and an hour where these are busy.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .pairing import Figure, emit, say
from .report import number

if TYPE_CHECKING:
    from xenkdump_forge.hosts.scaled import Scale, ScaledHost

MIB, GIB = 1 << 20, 1 << 30
#: Growth above this exponent is flagged.
MOST = 1.1
#: Costs below these, without start-up, are not judged: seconds, and bytes.
LEAST_CPU, LEAST_PEAK = 0.1, 32 * MIB

#: The commands of every axis, and those of some. "open" is a program of its own.
OPEN = "open"
COMMANDS = (OPEN, "bt -a", "domains", "ps")


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a host."""

    name: str
    #: The member of ``Scale`` that it is, the values, and the unit of these.
    member: str
    values: tuple[int, ...]
    unit: int = 1
    #: Further commands.
    commands: tuple[str, ...] = ()
    #: Bytes of memory of all its hosts.
    memory: int = GIB
    #: Values above which only the commands of every axis run.
    most: int = 1 << 62

    def scale(self, value: int) -> "Scale":
        """The host of a value."""
        from xenkdump_forge.hosts.scaled import Scale

        return Scale(**{"memory": self.memory, self.member: value * self.unit})

    def commands_at(self, value: int) -> tuple[str, ...]:
        """The commands that are measured."""
        return COMMANDS + (self.commands if value <= self.most else ())


AXES = (
    Axis("dump size, GiB", "memory", (1, 16, 128, 1024), unit=GIB),
    Axis("domains", "domains", (1, 10, 100, 1000), commands=("vcpus",), memory=128 * GIB),
    Axis(
        "tasks",
        "tasks",
        (100, 1000, 10_000, 100_000, 1_000_000),
        commands=("bt --all",),
        most=100_000,
    ),
    Axis("modules", "modules", (10, 100, 1000, 5000), commands=("mod",)),
    # Linux and Xen can be built for 8192 and 16383 CPUs; distributions have up to 8192 and 4095.
    Axis("vCPUs", "cpus", (1, 16, 128, 512, 4095), commands=("vcpus", "pcpus")),
)


class Sample(NamedTuple):
    """The cost of one command on one host: the least of all turns."""

    axis: str
    value: int
    command: str
    #: CPU seconds, bytes of peak memory, bytes of output.
    cpu: float
    peak: int
    output: int


class Growth(NamedTuple):
    """Exponents from one point to the next: 1 is linear. None if the cost is too small."""

    cpu: float | None
    peak: float | None

    @property
    def is_flagged(self) -> bool:
        """Whether either is more than linear."""
        return any(one is not None and one > MOST for one in self)


def growth(before: Sample, after: Sample, start: Sample) -> Growth:
    """The growth between neighbouring points, without the cost of start-up.

    It is relative to the axis or to the output, whichever grows more.
    """
    ratio = after.value / before.value
    if before.output and after.output:
        ratio = max(ratio, after.output / before.output)
    return Growth(
        exponent(before.cpu - start.cpu, after.cpu - start.cpu, ratio, LEAST_CPU),
        exponent(before.peak - start.peak, after.peak - start.peak, ratio, LEAST_PEAK),
    )


def exponent(before: float, after: float, ratio: float, least: float) -> float | None:
    """The logarithm of a cost's growth to the base ``ratio``. Costs below ``least`` count as it."""
    if after <= least or ratio <= 1:
        return None
    return math.log(after / max(before, least)) / math.log(ratio)


def command_of(name: str, host: "ScaledHost") -> list[str]:
    """The command line."""
    if name == OPEN:
        program = "import sys, xenkdump_fast; xenkdump_fast.open(sys.argv[1])"
        return [sys.executable, "-c", program, str(host.vmcore)]
    with_image = name.split(maxsplit=1)[0] in ("bt", "ps", "mod")
    files = [host.vmlinux, host.vmcore] if with_image else [host.vmcore]
    return [sys.executable, "-m", "xenkdump_fast", *name.split(), *map(str, files)]


def run(command: Sequence[str]) -> tuple[float, int, int]:
    """Runs a command: its CPU seconds, its peak memory and its output, both in bytes."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    output = 0
    while piece := process.stdout.read(1 << 20):
        output += len(piece)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output


def least(axis: str, value: int, name: str, command: Sequence[str], turns: int) -> Sample:
    """The least cost of a command in several turns."""
    used = [run(command)]
    # A first run brings the file into the system's cache; long ones need no repetition.
    if used[0][0] < 5:
        used = [run(command) for _ in range(turns)]
    return Sample(axis, value, name, *(min(column) for column in zip(*used, strict=True)))


def startup(turns: int) -> Sample:
    """The cost of a command that does nothing."""
    command = [sys.executable, "-m", "xenkdump_fast", "--version"]
    return least("start-up", 1, "--version", command, turns)


def forge(where: Path, axis: Axis, value: int) -> "ScaledHost":
    """Writes the host of a value."""
    from xenkdump_forge.hosts.scaled import write_scaled_host

    return write_scaled_host(where, axis.scale(value))


def measured(axis: Axis, turns: int, folder: Path) -> Iterator[Sample]:
    """The costs of all points of an axis."""
    for value in axis.values:
        where = folder / f"scaled-{axis.member}-{value}"
        try:
            with ProcessPoolExecutor(1) as other:
                # The memory of this process counts as a child's before it runs its program: it
                # must stay small.
                host = other.submit(forge, where, axis, value).result()
            for name in axis.commands_at(value):
                yield least(axis.name, value, name, command_of(name, host), turns)
        finally:
            shutil.rmtree(where, ignore_errors=True)


def figures(sample: Sample) -> Iterator[Figure]:
    """The measurements for ``run.py``."""
    what = f"{sample.command}, {sample.value:,} {sample.axis}"
    yield Figure(f"{what}: CPU time", sample.cpu, "s")
    yield Figure(f"{what}: peak memory", sample.peak / MIB, "MiB")


def read(path: Path) -> list[Sample]:
    """The samples in a file of JSON lines."""
    if not path.is_file():
        return []
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


def merged(old: Iterable[Sample], new: Iterable[Sample]) -> list[Sample]:
    """The samples by axis, command and value; newer ones replace older ones."""
    names = ["start-up", *(axis.name for axis in AXES)]
    found = {(one.axis, one.command, one.value): one for one in (*old, *new)}
    first = {command: i for i, command in enumerate(COMMANDS)}

    def order(one: Sample) -> tuple[int, int, str, int]:
        return names.index(one.axis), first.get(one.command, 99), one.command, one.value

    return sorted((one for one in found.values() if one.axis in names), key=order)


def lines(samples: Sequence[Sample]) -> Iterator[tuple[str, str, list[Sample]]]:
    """The points of each axis and command, ascending."""
    for (axis, command), points in groupby(samples, lambda one: (one.axis, one.command)):
        if axis != "start-up":
            yield axis, command, list(points)


def markdown(samples: Sequence[Sample]) -> str:
    """A table for each axis."""
    start = next(one for one in samples if one.axis == "start-up")
    out = ["# Scaling", "", *INTRODUCTION, ""]
    out += [f"Start-up alone takes {start.cpu:.2f} s and {start.peak / MIB:.0f} MiB."]
    axis = ""
    for name, command, points in lines(samples):
        if name != axis:
            axis = name
            out += ["", f"## {axis[0].upper()}{axis[1:]}", "", f"| command | {axis} {HEAD}"]
        before: Sample | None = None
        for point in points:
            grown = Growth(None, None) if before is None else growth(before, point, start)
            out.append(row(command, point, grown))
            before = point
    return "\n".join(out) + "\n"


INTRODUCTION = (
    "Written by `python -m benches.scaling`: synthetic hosts that differ in one dimension. Each",
    "row is a whole process; output is in bytes. The exponents are the logarithm of the growth of",
    "CPU time and of peak memory since the row above, without those of start-up, over that of the",
    "growth of the axis or of the output, whichever grew more: 1 is linear. Those above",
    f"{MOST} are bold. CPU time below {LEAST_CPU} s and memory below {LEAST_PEAK // MIB} MiB are",
    "not judged. Peak memory includes mapped pages of the dump.",
    "",
    "![CPU time](scaling.svg)",
)
HEAD = "| CPU, s | memory, MiB | output | exponents of both |\n|---|---|---|---|---|---|"


def row(command: str, point: Sample, grown: Growth) -> str:
    """A row of the table."""
    shown = " / ".join("–" if one is None else f"{one:.2f}" for one in grown)
    if grown == Growth(None, None):
        shown = ""
    elif grown.is_flagged:
        shown = f"**{shown}**"
    cells = (command, f"{point.value:,}", number(point.cpu), number(point.peak / MIB))
    return f"| {' | '.join(cells)} | {point.output:,} | {shown} |"


def svg(samples: Sequence[Sample]) -> str:
    """CPU time: a plot for each axis, a line for each command."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure as Plot

    from .picture import COLOURS

    every = list(lines(samples))
    axes_names = list(dict.fromkeys(axis for axis, _, _ in every))
    commands = list(dict.fromkeys(command for _, command, _ in every))
    colours = dict(zip(commands, (*COLOURS, "#e69f00", "#999999", "#b39b00"), strict=False))
    with mpl.rc_context():
        mpl.rc("svg", fonttype="none", hashsalt="xenkdump_fast")
        # A grey that is legible on white and on black; the background is transparent.
        grey = "#808080"
        mpl.rc("font", size=9)
        mpl.rc("text", color=grey)
        mpl.rc("axes", edgecolor=grey, labelcolor=grey, titlecolor=grey)
        mpl.rc("xtick", color=grey)
        mpl.rc("ytick", color=grey)
        columns = min(len(axes_names), 3)
        rows = -(-len(axes_names) // columns)
        figure = Plot(figsize=(3.6 * columns, 3 * rows), layout="constrained")
        for i, name in enumerate(axes_names):
            axes = figure.add_subplot(rows, columns, i + 1)
            axes.set(title=name, ylabel="CPU seconds" if i % columns == 0 else "")
            for axis, command, points in every:
                if axis == name:
                    x, y = [one.value for one in points], [one.cpu for one in points]
                    axes.loglog(x, y, "o-", markersize=3, color=colours[command], label=command)
            axes.grid(color=grey, alpha=0.25)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.legend(frameon=False, fontsize=8)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def keep(into: Path, samples: Sequence[Sample]) -> None:
    """Writes the samples."""
    into.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one._asdict()) + "\n" for one in samples)
    (into / "scaling.jsonl").write_text(text)


def write(into: Path, samples: Sequence[Sample]) -> None:
    """Writes the samples, the table and the picture."""
    keep(into, samples)
    (into / "scaling.md").write_text(markdown(samples))
    (into / "scaling.svg").write_text(svg(samples))


def main() -> None:
    """Measures the chosen axes."""
    turns, into = int(sys.argv[1]), Path(sys.argv[2])
    chosen = sys.argv[3:] or [axis.member for axis in AXES]
    folder = Path(os.environ.get("XKDUMP_BENCH", into))
    samples = read(into / "scaling.jsonl")
    if turns:
        samples = merged(samples, [startup(turns)])
    for axis in AXES:
        if turns and axis.member in chosen:
            say(f"scaling: {axis.name}")
            for sample in measured(axis, turns, folder):
                emit(figures(sample))
                samples = merged(samples, [sample])
                keep(into, samples)
    write(into, merged(samples, []))


if __name__ == "__main__":
    main()
