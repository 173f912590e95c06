"""Runs every benchmark and writes the results: a table, the same as JSON, and a picture.

``make bench`` runs it after a release build of the extension. It writes the guests (400 MB on
disk), builds the core's benches, and alternates with the available peers: numpy; memflow (a crate);
drgn from PyPI in this Python; python3-libkdumpfile in the system's Python; crash, if a dump is
given. The table names absent peers. Only ratios within one run are meaningful. It takes three
quarters of an hour; with ``--quick``, a quarter after the build.

``--only PART`` measures a part again, and keeps what ``--into`` has of the others. Results are
written after each part. A part that fails is named in the table, and the others go on.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if __package__ in (None, ""):
    sys.path.insert(0, str(ROOT))

from benches import counts, many_cores, picture, report, synthetic  # noqa: E402
from benches.pairing import CORES, Figure, Pair, cores, parse, say  # noqa: E402
from benches.report import Results, Row, Run  # noqa: E402

#: crash, or the build of it that the environment variable names.
CRASH = os.environ.get("XKDUMP_CRASH", "crash")
PAIRS = ("single", "resolving", "objects", "whole-domain")
PARTS = (
    *PAIRS,
    "shapes",
    "many-cores",
    "core",
    "peers",
    "opening",
    "nested",
    "large-hosts",
    "scaling",
    "whole-commands",
    "profile",
    "processes",
    "containers",
    "counts",
    "sweeps",
)


class Bench:
    """One run: its options and the results so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.turns = options.turns or (3 if options.quick else 9)
        self.target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target" / "benches"))
        self.environment = {
            **os.environ,
            "XKDUMP_BENCH": str(options.folder.resolve()),
            "CARGO_TARGET_DIR": str(self.target),
        }
        # Python keeps the modules that it has compiled, as for a user.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.update(self.environment)
        earlier = options.into / "table.json"
        if options.only and earlier.is_file():
            self.results = Results.read(earlier)
        else:
            self.results = Results()
        self.results.machine = machine()
        #: The part that is being measured, and its results so far.
        self.part = ""
        self.found: list[Pair | Figure] = []

    def run(self, part: str) -> bool:
        """Measures a part; False if it fails."""
        say(f"part {part}")
        self.part, self.found = part, []
        self.results.missing.pop(part, None)
        load, start = os.getloadavg()[0], time.monotonic()
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        try:
            if part in PAIRS:
                self.from_pairs(part)
            else:
                getattr(self, part.replace("-", "_"))()
        except (SystemExit, OSError, subprocess.CalledProcessError) as error:
            say(str(error))
            self.missing(f"part {part}: it failed")
            return False
        self.results.drop_others(part, self.found)
        seconds = time.monotonic() - start
        self.results.runs[part] = Run(date, seconds, load)
        say(f"part {part} took {seconds:.0f} s")
        return True

    def missing(self, what: str) -> None:
        """Names something that this part does not measure."""
        known = self.results.missing.setdefault(self.part, [])
        if what not in known:
            known.append(what)

    def build(self) -> None:
        """Builds everything except the extension, which is already installed."""
        say("building the core's benches")
        for crate in ("core", "empty", "floors"):
            command = ("cargo", "build", "--quiet", "--release", "--locked")
            subprocess.run(command, cwd=HERE / crate, env=self.environment, check=True)

    def module(self, name: str, *arguments: str | Path) -> None:
        """Collects the measurements of a module of this package."""
        self.program([sys.executable, "-m", f"benches.{name}", str(self.turns), *arguments])

    def program(self, command: Iterable[str | Path], one_core: bool = False) -> None:
        """Collects the measurements of a program, one per line."""
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        if one_core:
            os.sched_setaffinity(process.pid, CORES[:1])
        assert process.stdout is not None
        for line in process.stdout:
            found = json.loads(line)
            if "missing" in found:
                self.missing(found["missing"])
            else:
                one = parse(line)
                self.found.append(one)
                self.results.take(self.part, [one])
        if process.wait() != 0:
            raise SystemExit(f"benches: {process.args!r} failed")

    def write(self, into: Path) -> None:
        """Writes the results so far."""
        into.mkdir(parents=True, exist_ok=True)
        self.results.write(into / "table.json")
        (into / "table.md").write_text(report.markdown(self.results))
        (into / "picture.svg").write_text(picture.svg(self.results.rows))

    def from_pairs(self, part: str) -> None:
        """This package from Python, numpy, and empty calls."""
        self.module("pairs", self.target / "release" / library("empty"), part)

    def shapes(self) -> None:
        """P2Ms of different shapes, and of real dumps."""
        self.module("p2m_shapes", self.target / "release" / library("floors"))

    def many_cores(self) -> None:
        """Batches on more than two threads."""
        if len(CORES) < many_cores.LEAST_CORES:
            self.missing(f"more than two threads: there are {len(CORES)} cores")
            return
        self.module("many_cores")

    def core(self) -> None:
        """The core and memflow."""
        say("measuring the core")
        # memflow is slow.
        turns = str(max(self.turns // 2, 3))
        self.program([self.target / "release" / "pairs", turns], one_core=True)

    def peers(self) -> None:
        """drgn and libkdumpfile."""
        dump = self.options.kernel or []
        floor = self.target / "release" / "loads"
        self.module("peer_pairs", self.options.system_python, floor, *dump)
        if not dump:
            self.missing("drgn and libkdumpfile by virtual addresses (--kernel)")
        measured = {pair.theirs for pair in self.found if isinstance(pair, Pair)}
        for peer in ("drgn", "libkdumpfile"):
            if peer not in measured:
                self.missing(f"{peer}: not installed, or it cannot read the dump")

    def opening(self) -> None:
        """Opening, first batches, passes."""
        self.module("opening")

    def nested(self) -> None:
        """Translated guests and PV guests."""
        self.module("nested")

    def large_hosts(self) -> None:
        """Commands on a host with 200 domains."""
        self.module("large_hosts")

    def scaling(self) -> None:
        """Commands as a host grows. It takes an hour: only ``--only scaling`` measures it."""
        if self.options.only:
            self.module("scaling", self.options.into)

    def whole_commands(self) -> None:
        """Commands from start to exit, and the start of Python."""
        dumps = [self.options.kernel, self.options.crash, *(self.options.whole or ())]
        unique = dict.fromkeys(tuple(dump) for dump in dumps if dump)
        self.module("whole_commands", *(path for dump in unique for path in dump))

    def profile(self) -> None:
        """Where the CPU time of ``bt -a`` goes."""
        self.options.into.mkdir(parents=True, exist_ok=True)
        target = self.options.into.resolve() / "profile.md"
        self.module("profile_bt", target, *(self.options.kernel or self.options.crash or ()))

    def processes(self) -> None:
        """crash and xkdump."""
        crash = shutil.which(CRASH)
        if crash is None or not self.options.crash:
            self.missing("crash: not installed, or no dump for it (--crash)")
            return
        turns = "1" if self.options.quick else "5"
        command = [sys.executable, "-m", "benches.processes", turns, crash, *self.options.crash]
        self.program(command)

    def containers(self) -> None:
        """Compressed dumps: their decoders alone, libkdumpfile, drgn, crash."""
        dump = self.options.kernel or self.options.crash or []
        if not dump:
            self.missing("compressed dumps of a kernel: no dump for them (--kernel)")
        elif shutil.which(CRASH) is None:
            self.missing(f"compressed dumps, crash: no {CRASH} (XKDUMP_CRASH)")
        program = self.target / "release" / "containers"
        arguments = [CRASH, *dump] if dump else []
        self.module("containers", program, self.options.system_python, *arguments)

    def counts(self) -> None:
        """Instructions."""
        if shutil.which("valgrind") is None:
            self.missing("instruction counts: no valgrind")
            return
        say("counting instructions")
        self.results.counts = counts.counts(self.target / "release" / "counts")

    def sweeps(self) -> None:
        """All batch sizes: pytest-benchmark and criterion."""
        self.results.rows = [*self.from_python(), *self.from_core()]

    def from_python(self) -> Iterable[Row]:
        """By pytest-benchmark."""
        say("measuring batches from Python")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "benchmark.json"
            command = [sys.executable, "-m", "pytest", "-q", "--benchmark-enable"]
            command += ["--benchmark-only", "--benchmark-disable-gc", "--timeout=0", str(HERE)]
            command += [f"--benchmark-json={target}", "-p", "no:cacheprovider"]
            if self.options.quick:
                command += ["-k", "64g and random"]
            subprocess.run(
                command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, check=True
            )
            found = json.loads(target.read_text())
        for one in found["benchmarks"]:
            elements = one["extra_info"]["elements"]
            best = one["stats"]["min"] / elements * 1e9
            yield Row("python", one["group"], one["params"]["who"], elements, best)

    def from_core(self) -> Iterable[Row]:
        """By criterion."""
        say("measuring batches in the core")
        target = self.target / "criterion"
        shutil.rmtree(target, ignore_errors=True)
        command = ["cargo", "bench", "--quiet", "--locked", "--bench", "engine"]
        if self.options.quick:
            command += ["--", "64g/random"]
        with cores(1):
            done = subprocess.run(
                command, cwd=HERE / "core", env=self.environment, capture_output=True, check=False
            )
        if done.returncode != 0:
            raise SystemExit(done.stderr.decode(errors="replace"))
        for path in sorted(target.glob("**/new/benchmark.json")):
            about = json.loads(path.read_text())
            samples = json.loads(path.with_name("sample.json").read_text())
            who, batch = about["function_id"].rsplit("/", 1)
            each = [t / n for t, n in zip(samples["times"], samples["iters"], strict=True)]
            yield Row("core", about["group_id"], who, int(batch), min(each) / int(batch))


def library(name: str) -> str:
    """The file name of a shared library."""
    return f"lib{name}.dylib" if sys.platform == "darwin" else f"lib{name}.so"


def machine() -> dict[str, str]:
    """The system that the benchmarks run on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processor": f"{model}, {len(CORES)} cores",
        "system": f"{platform.system()} {platform.release()}",
        "compiler": counts.compiler(),
        "Python": f"{platform.python_version()}, numpy {np.__version__}",
        "load before the run": f"{load} (1, 5, 15 minutes)",
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="few turns, and batches of one guest only")
    add("--folder", type=Path, default=ROOT / ".cache" / "bench", help="directory of the guests")
    add("--into", type=Path, default=ROOT / "target" / "bench", help="directory of the results")
    add("--turns", type=int, help="number of turns per pair")
    add("--only", action="append", choices=PARTS, help="measure only this part")
    add("--no-build", action="store_true", help="use the existing build")
    add(
        "--system-python",
        default="/usr/bin/python3",
        help="a Python that has libkdumpfile, which only distributions package",
    )
    for name, what in (
        (
            "--kernel",
            "a dump of Linux without Xen, for drgn and libkdumpfile; a vmlinux with DWARF",
        ),
        ("--crash", "a dump for crash, and a vmlinux with DWARF"),
    ):
        add(name, nargs=2, metavar=("VMCORE", "VMLINUX"), help=what)
    what = "another dump for whole-commands; may be repeated"
    add("--whole", action="append", nargs=2, metavar=("VMCORE", "VMLINUX"), help=what)
    return parser


def main() -> int:
    """Runs the requested benchmarks."""
    bench = Bench(parser().parse_args())
    for name in synthetic.SHAPES:
        synthetic.write_guest(bench.options.folder, name)
    if not bench.options.no_build:
        bench.build()
    good = True
    for name in bench.options.only or PARTS:
        good &= bench.run(name)
        bench.write(bench.options.into)
    say(f"wrote {bench.options.into}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
