"""Compressed dumps: passes over memory, reads at random, whole processes, a dump of 1 TiB.

``python -m benches.containers TURNS PROGRAM SYSTEM_PYTHON [CRASH VMCORE VMLINUX]``. The program is
the core's ``containers``, which reads in sequence. The dump must be that of a Linux kernel without
Xen; makedumpfile converts it into the folder XKDUMP_BENCH, by default ``.cache/bench``. Without one
only the dump of 1 TiB is measured. XKDUMP_MAKEDUMPFILE names another build of makedumpfile: that of
Debian 12 has neither snappy nor zstd.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from xenkdump_fast._native import Dump

from . import large_kdump
from .guests import folder
from .opening import memory
from .pairing import CORES, Figure, Pair, cores, emit, missing, parse, say
from .peer_pairs import Job, peer_of
from .processes import Used, run
from .synthetic import PAGE, Words

#: Options of makedumpfile, by format, and the flag of the format in the header of its files.
FORMATS = {"zlib": ("-c", 1), "LZO": ("-l", 2), "snappy": ("-p", 4), "zstd": ("-z", 0x20)}
#: The offset of the flags, on x86-64.
FLAGS_AT = 424
COUNT = 1 << 17
#: The most turns of reads at random, and of whole processes: the peers take seconds.
MOST_TURNS = 5
#: The most turns of crash, which takes ten seconds for each, and the formats for which it runs.
CRASH_TURNS, CRASH_FORMATS = 3, 1
#: Formats of which reads at random, and whole processes, are measured.
COMPARED = 2
#: Pages that fit into libkdumpfile's cache of 1,024 pages.
FEW = 512
#: Names in the output of the core's ``containers``.
TWO = "2 threads"
BARE_ONE, BARE_TWO = "the decoder alone, 1 thread", "the decoder alone, 2 threads"
#: ``bt -a`` on every CPU, by drgn.
DRGN_BT = """
import sys
from drgn import Program
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.sched import cpu_curr
program = Program()
program.set_core_dump(sys.argv[1])
program.load_debug_info([sys.argv[2]])
for cpu in for_each_online_cpu(program):
    try:
        print(program.stack_trace(cpu_curr(program, cpu)))
    except Exception as error:
        print(error)
"""


def converted(
    vmcore: str, vmlinux: str | None = None, formats: Iterable[str] = FORMATS
) -> Iterator[tuple[str, Path]]:
    """The dump in each of these formats that this build of makedumpfile writes.

    With a vmlinux, without the pages that dump level 31 leaves out; else all pages.
    """
    level = "0" if vmlinux is None else "31"
    program = os.environ.get("XKDUMP_MAKEDUMPFILE", "").split(":")[0] or "makedumpfile"
    if shutil.which(program) is None:
        missing(f"compressed dumps: no {program}")
        return
    for name in formats:
        option, flag = FORMATS[name]
        target = folder() / f"kernel-{name}-{level}.kdump"
        source = Path(vmcore).stat().st_mtime
        if not target.is_file() or target.stat().st_mtime < source:
            say(f"converting the dump: {name}, level {level}")
            # Reading a vmlinux takes minutes, and most dumps have a note of VMCOREINFO instead.
            for of_kernel in ([], [] if vmlinux is None else ["-x", vmlinux]):
                command = [program, "-f", option, "-d", level, *of_kernel, vmcore, str(target)]
                if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                    break
                target.unlink(missing_ok=True)
        # A build without the library writes pages as they are.
        if not target.is_file() or not flags_of(target) & flag:
            missing(f"dumps compressed by {name}, level {level}: {program} cannot write them")
            target.unlink(missing_ok=True)
            continue
        yield name if vmlinux is None else f"{name} without what level {level} excludes", target


def flags_of(path: Path) -> int:
    """The flags in the header of a kdump-compressed dump: how its pages are compressed."""
    with path.open("rb") as file:
        head = file.read(FLAGS_AT + 4)
    return int.from_bytes(head[FLAGS_AT:], "little")


def sequence(turns: int, program: str, files: list[tuple[str, Path]]) -> Iterator[Pair | Figure]:
    """A pass over all memory by the core, and its decoder alone."""
    command = [program, str(turns), str(len(CORES)), *(f"{name}={path}" for name, path in files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pairs = [one for one in map(parse, process.stdout) if isinstance(one, Pair)]
    if process.returncode != 0:
        raise SystemExit(f"benches: {process.args!r} failed")
    for pair in pairs:
        yield pair
        if pair.ours == TWO and pair.theirs == BARE_ONE and "elapsed" in pair.what:
            limits = [one for one in pairs if (one.what, one.ours) == (pair.what, BARE_TWO)]
            for limit in limits:
                yield from quietest_turn(pair, limit)


def quietest_turn(pair: Pair, limit: Pair) -> Iterator[Figure]:
    """What two threads gained in the turn that took least, and what the decoder alone gained in it.

    Two cores that others use, or that are threads of one core, limit both in the same way.
    """
    times = list(zip(pair.ours_ns, pair.theirs_ns, limit.ours_ns, strict=True))
    turn = times.index(min(times, key=sum))
    what = f"{pair.what.removesuffix(', elapsed time')}, the quietest turn"
    for one in (pair, limit):
        yield Figure(f"{what}: {one.ours}, to {BARE_ONE}", one.ratios()[turn], "times as fast")


def instructions(program: str, files: list[tuple[str, Path]]) -> Iterator[Figure]:
    """Instructions for each page of a part of a dump, which do not depend on other load."""
    if shutil.which("valgrind") is None:
        missing("instructions for a page of a compressed dump: no valgrind")
        return
    for name, path in files:
        for who, shown in (("ours", "xkdump"), ("decoder", "the decoder alone")):
            with tempfile.TemporaryDirectory() as folder:
                command = ["valgrind", "--tool=callgrind", "--toggle-collect=counted"]
                command += [
                    f"--callgrind-out-file={folder}/out",
                    program,
                    "--count",
                    who,
                    str(path),
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            collected = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
            assert collected is not None, done.stderr
            what = f"a whole dump in sequence, {name}, instructions for a page, {shown}"
            yield Figure(what, int(collected[1]) / int(done.stdout), "instructions")


def backtraces(
    turns: int, crash: str, vmcore: str, vmlinux: str, files: list[tuple[str, Path]]
) -> Iterator[Pair]:
    """``bt -a`` of the raw dump and of compressed ones, in alternation with the peers."""
    script = str(Path(sys.executable).with_name("xkdump"))
    for number, (name, path) in enumerate(files):
        compressed = str(path)
        commands: dict[str, tuple[list[str], bytes]] = {
            "xkdump": ([script, "bt", "-a", vmlinux, compressed], b""),
            "xkdump, the raw dump": ([script, "bt", "-a", vmlinux, vmcore], b""),
            "drgn": ([sys.executable, "-c", DRGN_BT, compressed, vmlinux], b""),
            "the start of Python and argparse": ([sys.executable, "-c", "import argparse"], b""),
        }
        of_crash = {"crash": ([crash, "-s", vmlinux, compressed], b"bt -a\nquit\n")}
        yield from processes(turns, name, commands)
        if number < CRASH_FORMATS and shutil.which(crash) is not None:
            of_crash["xkdump"] = commands["xkdump"]
            yield from processes(min(turns, CRASH_TURNS), name, of_crash)


def processes(
    turns: int, name: str, commands: dict[str, tuple[list[str], bytes]]
) -> Iterator[Pair]:
    """Our process and those of the peers in alternation, by CPU time."""
    # At most 1.5 times the CPU time of the raw dump.
    wanted = {"xkdump, the raw dump": 1 / 1.5, "drgn": 10, "crash": 100}
    used: dict[str, list[Used]] = {who: [] for who in commands}
    for turn in range(turns + 1):
        for who in list(used):
            try:
                one = run(*commands[who])
            except RuntimeError as error:
                say(f"without {who}, {name}: {error}")
                # Its later turns would fail in the same way.
                del used[who]
                continue
            # The first turn fills the page cache.
            if turn > 0:
                used[who].append(one)
    if "xkdump" not in used:
        raise SystemExit(f"benches: xkdump cannot read the dump, {name}")
    ours = [one.cpu for one in used.pop("xkdump")]
    what = f"bt -a, {name}, CPU time of the process"
    for who, theirs in used.items():
        yield Pair(what, "xkdump", who, 1, ours, [one.cpu for one in theirs], wanted.get(who))


def at_random(
    turns: int, system_python: str, vmcore: str, files: list[tuple[str, Path]]
) -> Iterator[Pair]:
    """8 bytes at addresses at random: of few pages, and of all. CPU time of both."""
    rng = np.random.default_rng(1)
    for name, path in files:
        dump = Dump(str(path))
        pages = pages_of(vmcore, dump)
        few = rng.choice(pages, FEW, replace=False)
        for what, some in ((f"of {FEW} pages", few), (f"of all {len(pages):,} pages", pages)):
            words: Words = rng.choice(some, COUNT) + rng.integers(
                0, PAGE // 8, COUNT, dtype=np.uint64
            ) * np.uint64(8)
            job = Job("physical", name, str(path), dump.machine, some)
            out = np.empty((COUNT, 8), np.uint8)
            for peer_name, python in (("libkdumpfile", system_python), ("drgn", sys.executable)):
                with peer_of(peer_name, python, job, words.tolist()) as peer:
                    if peer.first is None:
                        say(f"without {peer_name}: {peer.why()}")
                        continue
                    assert peer.first == dump.machine.u64(int(words[0]))
                    methods: dict[str, float | None] = {"opened anew": 2.0}
                    if some is few:
                        # The pages of the call before are in both caches.
                        methods = {"pages in the cache": 20.0, "opened anew": None}
                    ours: dict[str, list[float]] = {how: [] for how in methods}
                    theirs: list[float] = []
                    kept = Dump(str(path)).machine
                    for turn in range(turns + 1):
                        mine = {}
                        for how in methods:
                            space = Dump(str(path)).machine if how == "opened anew" else kept
                            start = time.process_time_ns()
                            space.read_many(words, 8, out=out, threads=1)
                            mine[how] = (time.process_time_ns() - start) / COUNT
                        other = peer.request("CPU time")
                        # The first turn fills the caches.
                        if turn > 0:
                            theirs.append(other)
                            for how, took in mine.items():
                                ours[how].append(took)
                for how, wanted in methods.items():
                    target = wanted if peer_name == "libkdumpfile" else None
                    text, who = f"8 bytes at random {what}, {name}", f"read_many, 1 thread, {how}"
                    yield Pair(text, who, peer_name, COUNT, ours[how], theirs, target)


def pages_of(vmcore: str, dump: Dump) -> Words:
    """The address of every page that both dumps hold."""
    runs = [
        np.arange(-(-start // PAGE) * PAGE, (start + size) // PAGE * PAGE, PAGE, dtype=np.uint64)
        for start, size, _ in Dump(vmcore).segments
    ]
    pages: Words = np.unique(np.concatenate(runs))
    status = np.empty(len(pages), np.uint8)
    dump.machine.read_many(pages, 1, status=status)
    held: Words = pages[status == 0]
    return held


def open_large(path: str) -> None:
    """Opens the dump of 1 TiB in this process, and prints the cost."""
    before = memory("RssAnon")
    start = time.process_time_ns()
    dump = Dump(path)
    opened = time.process_time_ns() - start
    kept = memory("RssAnon") - before
    start = time.process_time_ns()
    last = int(large_kdump.regions()[-1])
    number = last % large_kdump.CONTENTS
    assert dump.machine.read(last * PAGE, PAGE) == large_kdump.content(number)
    first = time.process_time_ns() - start
    print(json.dumps([opened / 1e6, kept / 1024, first / 1e6, (memory("RssAnon") - before) / 1024]))


def large(turns: int) -> Iterator[Figure]:
    """Opening a dump of 1 TiB, and the first read, which counts the bits of the bitmap."""
    path = large_kdump.write(folder() / "1t.kdump")
    command = [sys.executable, "-m", "benches.containers", "--only", str(path)]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(turns)
    ]
    names = ("opening: CPU time", "opening: memory", "first read: CPU time", "first read: memory")
    for i, name in enumerate(names):
        unit = "ms" if name.endswith("time") else "MiB"
        middle = float(np.median([one[i] for one in found]))
        yield Figure(f"a kdump-compressed dump of 1 TiB, {name}", middle, unit)


def main() -> None:
    """Runs all measurements, or a single one in this process."""
    if sys.argv[1] == "--only":
        open_large(sys.argv[2])
        return
    os.environ.setdefault("XKDUMP_BENCH", str(Path(__file__).parent.parent / ".cache" / "bench"))
    folder().mkdir(parents=True, exist_ok=True)
    turns, program, system_python, *dump = sys.argv[1:]
    count = int(turns)
    with cores(1):
        emit(large(count))
    if not dump:
        return
    crash, vmcore, vmlinux = dump
    files = list(converted(vmcore))
    emit(sequence(count, program, files))
    with cores(1):
        emit(instructions(program, files))
        count = min(count, MOST_TURNS)
        emit(at_random(count, system_python, vmcore, files[:COMPARED]))
        filtered = converted(vmcore, vmlinux, list(FORMATS)[:1])
        emit(backtraces(count, crash, vmcore, vmlinux, [*files[:COMPARED], *filtered]))


if __name__ == "__main__":
    main()
