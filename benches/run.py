"""Runs every benchmark side by side and writes what came of it: JSON, Markdown, a picture.

``python benches/run.py`` forges the guests, builds the extension and the core's benches as a
release would, measures both and the peers that are there (drgn from PyPI in this Python; Debian's
python3-libkdumpfile in the system's), counts instructions where valgrind is, and writes
``benches/results``. Only ratios within one run mean anything.
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
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if __package__ in (None, ""):
    sys.path.insert(0, str(ROOT))

from benches import forge, report  # noqa: E402
from benches.report import Results, Row  # noqa: E402

#: A core of the system's own, for peers that only a distribution packages.
SYSTEM_PYTHON = "/usr/bin/python3"
COUNTED = {
    "resolve": ("sequential", "random", "kernel"),
    "translate-4k": ("sequential", "random", "kernel"),
    "translate-2m": ("sequential", "random"),
    "walk": ("random",),
}


def say(text: str) -> None:
    """Tells what is being done."""
    print(f"benches: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program that has to succeed."""
    return subprocess.run([*map(str, command)], check=True, text=True, **options)


def build(environment: dict[str, str]) -> None:
    """Builds what is measured as a release is built."""
    say("building the extension")
    run(sys.executable, "-m", "maturin", "develop", "--release", "--quiet", cwd=ROOT)
    say("building the core's benches")
    run("cargo", "build", "--quiet", "--release", cwd=HERE / "core", env=environment)


def from_python(environment: dict[str, str]) -> list[Row]:
    """What Python sees, by pytest-benchmark."""
    say("measuring from Python")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "benchmark.json"
        run(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--benchmark-enable",
            "--benchmark-only",
            "--benchmark-disable-gc",
            f"--benchmark-json={target}",
            "--timeout=0",
            HERE,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        found = json.loads(target.read_text())
    rows = []
    for one in found["benchmarks"]:
        elements = one["extra_info"]["elements"]
        params = one["params"] or {}
        who = params.get("who") or f"xenkdump-{params.get('threads', 1)}"
        rows.append(
            Row("python", one["group"], who, elements, one["stats"]["min"] / elements * 1e9)
        )
    return rows


def from_core(environment: dict[str, str]) -> list[Row]:
    """What the core does without Python, by criterion."""
    say("measuring the core")
    target = Path(environment["CARGO_TARGET_DIR"]) / "criterion"
    shutil.rmtree(target, ignore_errors=True)
    run(
        "cargo",
        "bench",
        "--quiet",
        cwd=HERE / "core",
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    rows = []
    for path in sorted(target.glob("**/new/benchmark.json")):
        about = json.loads(path.read_text())
        samples = json.loads(path.with_name("sample.json").read_text())
        who, batch = about["function_id"].rsplit("/", 1)
        each = [t / n for t, n in zip(samples["times"], samples["iters"], strict=True)]
        rows.append(Row("core", about["group_id"], who, int(batch), min(each) / int(batch)))
    return rows


def from_peers(folder: Path, dumps: Path | None) -> list[Row]:
    """Numbers of 8 bytes at many addresses of one dump, by this package and by its peers."""
    jobs = [("physical", "64g", *physical_job(folder))]
    if dumps is not None:
        jobs.append(("virtual", "bare-x86_64", *virtual_job(dumps)))
    rows = []
    for kind, name, path, space, pages in jobs:
        for order in ("sequential", "random"):
            group = f"read-8-{kind}/{name}/{order}"
            say(f"measuring peers: {group}")
            addresses = pages.copy()
            if order == "random":
                np.random.default_rng(1).shuffle(addresses)
            ours = time_ours(space, addresses)
            rows += [Row("peers", group, who, len(addresses), ns) for who, ns in ours.items()]
            few = addresses[:20_000]
            job = {"path": path, "kind": kind, "addresses": few.tolist(), "rounds": 3}
            for peer, python in (("drgn", sys.executable), ("libkdumpfile", SYSTEM_PYTHON)):
                answer = ask_peer({**job, "peer": peer}, python)
                if answer is None:
                    say(f"{peer} is not there, or cannot read {path}")
                    continue
                assert answer["first"] == space.u64(int(few[0])), f"{peer} reads something else"
                rows.append(Row("peers", group, peer, len(few), answer["ns"]))
    return rows


def physical_job(folder: Path) -> tuple[str, Any, Any]:
    """Machine addresses of the 64 GiB guest's tables: what of it has bytes on disk."""
    from xenkdump_fast._native import Dump

    about = forge.forge(folder, "64g")
    space = Dump(about.path).machine
    pages = np.arange(forge.TABLES, forge.TABLES + 60_000, dtype=np.uint64)
    return about.path, space, pages * np.uint64(forge.PAGE) + np.uint64(8)


def virtual_job(dumps: Path) -> tuple[str, Any, Any]:
    """Every page of its memory that a real kernel maps, by its own addresses."""
    import xenkdump_fast

    path = str(dumps / "bare-x86_64" / "vmcore")
    domain = xenkdump_fast.open(path).domain(0, str(dumps / "vmlinux-6.1.0-56-amd64"))
    ranges = domain.virtual.iter_mapped(1 << 63)
    pages = np.concatenate(
        [np.arange(r.address, r.address + r.size, forge.PAGE, dtype=np.uint64) for r in ranges]
    )
    status = np.empty(len(pages), np.uint8)
    domain.virtual.read_many(pages, 8, status=status)
    return path, domain.virtual, pages[status == 0] + np.uint64(8)


def time_ours(space: Any, addresses: Any) -> dict[str, float]:
    """The same reads through this package: in bulk, and one a call."""
    out = np.empty((len(addresses), 8), np.uint8)
    few = addresses[:20_000].tolist()

    def loop() -> None:
        for address in few:
            space.u64(address)

    calls = {
        "xenkdump-1": (len(addresses), lambda: space.read_many(addresses, 8, out=out, threads=1)),
        "xenkdump-2": (len(addresses), lambda: space.read_many(addresses, 8, out=out, threads=2)),
        "xenkdump, one a call": (len(few), loop),
    }
    found = {}
    for who, (count, call) in calls.items():
        best = float("inf")
        for _ in range(15):
            start = time.perf_counter_ns()
            call()
            best = min(best, (time.perf_counter_ns() - start) / count)
        found[who] = best
    return found


def ask_peer(job: dict[str, Any], python: str) -> dict[str, float] | None:
    """Has a peer do the job in a Python that has it; None if there is none."""
    if not Path(python).exists():
        return None
    done = subprocess.run(
        [python, HERE / "peers.py"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return None
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def whole_process(environment: dict[str, str]) -> list[Row]:
    """``bt -a`` from start to exit, by crash and by xkdump: XKDUMP_CRASH="vmlinux vmcore"."""
    files = environment.get("XKDUMP_CRASH", "").split()
    if len(files) != 2 or shutil.which("crash") is None:
        return []
    say("measuring whole processes")
    script = str(Path(sys.executable).with_name("xkdump"))
    commands = {
        "crash": (["crash", "-s", *files], "bt -a\nquit\n"),
        "xkdump": ([script, "bt", "-a", *files], ""),
    }
    rows = []
    for who, (command, text) in commands.items():
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter_ns()
            subprocess.run(command, input=text, capture_output=True, text=True, check=True)
            best = min(best, time.perf_counter_ns() - start)
        rows.append(Row("process", "bt -a", who, 1, best))
    return rows


def counts(environment: dict[str, str]) -> dict[str, float]:
    """Instructions an element, by callgrind: the difference of a long and a short run."""
    if shutil.which("valgrind") is None:
        say("no valgrind: instructions are not counted")
        return {}
    say("counting instructions")
    program = Path(environment["CARGO_TARGET_DIR"]) / "release" / "counts"
    found = {}
    few, many = 65_536, 5 * 65_536
    for path, orders in COUNTED.items():
        for order in orders:
            total = {n: instructions(program, path, order, n, environment) for n in (few, many)}
            found[f"{path}/{order}"] = (total[many] - total[few]) / (many - few)
    return found


def instructions(
    program: Path, path: str, order: str, elements: int, environment: dict[str, str]
) -> int:
    """All instructions of one run."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder}/out",
            program,
            path,
            order,
            str(elements),
            env=environment,
            capture_output=True,
        )
    line = next(line for line in done.stderr.splitlines() if "Collected" in line)
    return int(line.rsplit(":", 1)[1])


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}, numpy {np.__version__}",
        "load": load,
    }


def main() -> None:
    """Does all that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--dumps", type=Path, help="a folder with bare-x86_64/vmcore, unpacked")
    parser.add_argument(
        "--only", action="append", choices=["python", "core", "peers", "process", "counts"]
    )
    parser.add_argument("--no-build", action="store_true", help="measure what is installed")
    options = parser.parse_args()
    folder = options.folder.resolve()
    only = options.only or ["python", "core", "peers", "process", "counts"]
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target" / "benches"))
    environment = {**os.environ, "XKDUMP_BENCH": str(folder), "CARGO_TARGET_DIR": target}
    for name in forge.SHAPES:
        say(f"forging {name}")
        forge.forge(folder, name)
    if not options.no_build:
        build(environment)
    options.results.mkdir(parents=True, exist_ok=True)
    results = Results.read(options.results / "results.json")
    results.machine = machine()
    steps = {
        "python": lambda: from_python(environment),
        "core": lambda: from_core(environment),
        "peers": lambda: from_peers(folder, options.dumps),
        "process": lambda: whole_process(environment),
    }
    for name in only:
        if name == "counts":
            results.counts = counts(environment)
        else:
            results.put(name, steps[name]())
        results.write(options.results / "results.json")
    (options.results / "results.md").write_text(report.markdown(results))
    (options.results / "batches.svg").write_text(report.picture(results))
    say(f"wrote {options.results}")


if __name__ == "__main__":
    main()
