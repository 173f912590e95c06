"""``bt -a`` from start to exit, by crash and by xkdump in alternation.

``python -m benches.processes TURNS CRASH VMCORE VMLINUX``; crash needs a vmlinux with DWARF.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .pairing import Figure, Pair, cores, emit


class Used(NamedTuple):
    """The cost of a process: elapsed and CPU time in nanoseconds, peak memory in KiB."""

    clock: float
    cpu: float
    peak: float


def environment() -> dict[str, str]:
    """That of a user: Python keeps the modules that it has compiled."""
    return {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(command: list[str], text: bytes) -> Used:
    """Runs a command to completion."""
    start = time.perf_counter_ns()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    clock = time.perf_counter_ns() - start
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return Used(clock, (usage.ru_utime + usage.ru_stime) * 1e9, usage.ru_maxrss)


def measured(turns: int, crash: str, files: list[str]) -> Iterator[Pair | Figure]:
    """Runs both in alternation."""
    script = str(Path(sys.executable).with_name("xkdump"))
    ours: list[Used] = []
    theirs: list[Used] = []
    for turn in range(turns + 1):
        ours.append(run([script, "bt", "-a", *files], b""))
        theirs.append(run([crash, "-s", *files], b"bt -a\nquit\n"))
        if turn == 0:
            ours.clear()
            theirs.clear()
    for name, unit in (("clock", "elapsed time"), ("cpu", "CPU time")):
        mine, other = ([getattr(used, name) for used in both] for both in (ours, theirs))
        yield Pair(f"bt -a, whole process, {unit}", "xkdump", "crash", 1, mine, other)
    for who, used in (("xkdump", ours), ("crash", theirs)):
        peak = max(one.peak for one in used) / 1024
        yield Figure(f"bt -a, whole process, {who}: peak memory", peak, "MiB")


def main() -> None:
    """Measures both on one core."""
    turns, crash, vmcore, vmlinux = sys.argv[1:]
    with cores(1):
        emit(measured(int(turns), crash, [vmlinux, vmcore]))


if __name__ == "__main__":
    main()
