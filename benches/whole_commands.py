"""The CPU time of commands from start to exit, in turn with the start of Python and argparse.

``python -m benches.whole_commands TURNS [VMCORE VMLINUX]...``. Without dumps a synthetic one is
measured. ``profile_bt`` shows where the time of ``bt -a`` goes.
"""

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from xenkdump_forge import write_dump

from .guests import folder
from .pairing import Pair, cores, emit, say
from .processes import run

#: What any command line tool in Python spends.
START = [sys.executable, "-c", "import argparse"]
#: The most times ``START`` that a command may take, and the commands without a target.
COMMANDS: dict[str, float | None] = {
    "bt -a": 2.5,
    "ps": None,
    "sys": None,
    "log": None,
    "mod": None,
    "domains": None,
}
#: Commands that take the dump alone.
WITHOUT_VMLINUX = ("domains",)


def commands(vmcore: str, vmlinux: str) -> Iterator[tuple[str, list[str], float | None]]:
    """The commands that the dump has an answer to, the last one ``bt -a`` without a vmlinux."""
    script = str(Path(sys.executable).with_name("xkdump"))
    for name, most in COMMANDS.items():
        files = [vmcore] if name in WITHOUT_VMLINUX else [vmlinux, vmcore]
        yield name, [script, *name.split(), *files], most
    yield "bt -a, without a vmlinux", [script, "bt", "-a", vmcore], None


def measured(turns: int, vmcore: str, vmlinux: str, name: str) -> Iterator[Pair]:
    """Each command in alternation with the start of Python."""
    for what, command, most in commands(vmcore, vmlinux):
        ours: list[float] = []
        theirs: list[float] = []
        try:
            for turn in range(turns + 1):
                mine, start = run(command, b"").cpu, run(START, b"").cpu
                if turn > 0:  # the first one compiles modules and fills the page cache
                    ours.append(mine)
                    theirs.append(start)
        except RuntimeError:
            continue  # the dump of a machine without Xen has no domains
        times = [a / b for a, b in zip(ours, theirs, strict=True)]
        middle, low, high = statistics.median(times), min(times), max(times)
        say(f"{what}, {name}: {middle:.1f} times import argparse ({low:.1f} to {high:.1f})")
        wanted = None if most is None else 1 / most
        text = f"{what}, {name}, CPU time of the process"
        yield Pair(text, "xkdump", "python -c 'import argparse'", 1, ours, theirs, wanted)


def main() -> None:
    """Measures the dumps, on one core."""
    turns, *files = sys.argv[1:]
    dumps = [(Path(vmcore).parent.name, vmcore, vmlinux) for vmcore, vmlinux in pairs(files)]
    if not dumps:
        made = write_dump(folder() / "whole-commands")
        dumps.append(("a synthetic host", str(made.vmcore), str(made.vmlinux)))
    with cores(1):
        for name, vmcore, vmlinux in dumps:
            emit(measured(int(turns), vmcore, vmlinux, name))


def pairs(files: list[str]) -> Iterator[tuple[str, str]]:
    """Dumps and their vmlinux."""
    yield from zip(files[::2], files[1::2], strict=True)


if __name__ == "__main__":
    main()
