"""Instruction counts of the core's paths by callgrind, which do not vary between runs.

``python -m benches.counts`` compares them with ``core/counts.json`` and fails if one has grown.
``--write`` rewrites that file.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import synthetic

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "core" / "counts.json"
#: The paths to count, with the access orders of each.
PATHS = {
    "resolve": ("sequential", "random", "kernel"),
    "translate-4k": ("sequential", "random", "kernel"),
    "translate-2m": ("sequential", "random"),
    "translate-pae-4k": ("random",),
    "walk": ("random",),
    "read": ("random",),
    "guard": ("random",),
}
#: As in core/src/counts.rs.
ELEMENTS = 65_536
#: The relative increase over the baseline that is a regression.
TOLERANCE = 0.03


def program(build: bool) -> Path:
    """The program to count."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target" / "benches"))
    if build:
        command = ["cargo", "build", "--quiet", "--release", "--locked", "--bin", "counts"]
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        subprocess.run(command, cwd=HERE / "core", env=environment, check=True)
    return target / "release" / "counts"


def count(path: Path, what: str, order: str) -> float:
    """Instructions per element."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--toggle-collect=counted",
                f"--callgrind-out-file={folder}/out",
                path,
                what,
                order,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    assert found is not None, done.stderr
    return round(int(found[1]) / ELEMENTS, 2)


def counts(path: Path) -> dict[str, float]:
    """The counts of all paths."""
    return {
        f"{what}/{order}": count(path, what, order)
        for what, orders in PATHS.items()
        for order in orders
    }


def compiler() -> str:
    """The compiler version, which the counts depend on."""
    done = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> int:
    """Counts, then compares or writes the baseline."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the counts as the new baseline")
    parser.add_argument("--no-build", action="store_true", help="use the existing build")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("counts: valgrind is not installed", file=sys.stderr)
        return 2
    folder = os.environ.setdefault("XKDUMP_BENCH", str(HERE.parent / ".cache" / "bench"))
    synthetic.write_guest(Path(folder), "4g")
    found = counts(program(not options.no_build))
    if options.write:
        text = json.dumps({"compiler": compiler(), "instructions": found}, indent=1)
        BASELINE.write_text(text + "\n")
        return 0
    baseline = json.loads(BASELINE.read_text())
    if baseline["compiler"] != compiler():
        print(f"counts: the baseline is of {baseline['compiler']}, this is {compiler()}")
    grown = False
    for what, now in found.items():
        was = baseline["instructions"].get(what)
        more = was is None or now > was * (1 + TOLERANCE)
        grown |= more
        print(f"{what:28} {now:8.2f}  was {was}{'  MORE' if more else ''}")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
