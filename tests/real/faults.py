"""Damages a copy of a real dump thousands of times, and runs the commands on each.

    python -m tests.real.faults vmcore vmlinux --count 10000 --seed 1 --jobs 2 --combined 1

Single bits and blocks of up to 512 bytes, in headers, notes, page tables and P2M pages, and words
of the kernel's and of Xen's data (``tests.fuzz.words``). Each fault (or ``--combined`` of them) is
written into a private copy, every command is run in a child process, and the copy is restored. A
command must end by itself within 5 s of CPU time and 1 GiB, with an exit status that ``xkdump``
documents, and with clean text. An exception from outside the package counts as a finding.

Memory is limited by RLIMIT_DATA, which counts all private writable memory: memory that is not
touched and the interpreter's memory, but not the dump, which is mapped read-only. The address
space may grow by the size of the dump and 1 GiB, which limits memory that is made read-only later.

Each child is forked from a parent that has run the commands on the intact dump: modules are loaded,
and the intact vmlinux is open with its symbol and type tables. No state of a dump outlives a
command.
"""

import argparse
import contextlib
import functools
import gc
import io
import mmap
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests.fuzz import words
from xenkdump_fast import _native, cli, isolation
from xenkdump_fast.session import formats

COMMANDS = (
    *("bt --all", "bt -a", "sys", "ps", "log", "mod", "check"),
    *("mount", "net", "net -s --all", "ipcs -M", "dev", "dev -d", "dev -p", "dev -i", "swap"),
    *("notes", "domains --all", "vcpus --all"),
    *("bt --hypervisor", "sys --hypervisor", "log --hypervisor"),
)
SECONDS = 5.0
MEMORY = 1 << 30
PAGE = 4096
PRESENT, LARGE = 1, 0x80
FRAME = 0x000F_FFFF_FFFF_F000


class Layout(NamedTuple):
    """The regions of the file to damage: offset and length."""

    headers: list[tuple[int, int]]
    notes: list[tuple[int, int]]
    tables: list[tuple[int, int]]
    p2m: list[tuple[int, int]]


def layout(data: memoryview) -> Layout:
    """Finds the regions of an intact dump. Parses ELF64 dumps of Xen hosts independently."""
    wide = data[4] == 2
    (start,) = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    loads: list[tuple[int, int, int]] = []
    notes: list[tuple[int, int]] = []
    for kind, paddr, first, filesz in words.segments(data):
        if kind == 1:
            loads.append((paddr, first, filesz))
        elif kind == 4:
            notes.append((first, filesz))

    def offset(machine: int) -> int | None:
        for paddr, at, filesz in loads:
            if paddr <= machine and machine + PAGE <= paddr + filesz:
                return at + machine - paddr
        return None

    def page(machine: int) -> tuple[int, ...]:
        at = offset(machine)
        return struct.unpack_from("<512Q", data, at) if at is not None else ()

    roots, lists = [], []
    for first, length in notes:
        at, end = first, first + length
        while at + 12 <= end:
            namesz, descsz, kind = struct.unpack_from("<III", data, at)
            desc = at + 12 + (namesz + 3 & ~3)
            if not wide:
                pass  # 32-bit tables are not modified
            elif kind == 0x1000002:
                roots.append(struct.unpack_from("<Q", data, desc + 16)[0] & FRAME)
            elif kind == 0x1000001:
                lists.append(struct.unpack_from("<Q", data, desc + descsz - 8)[0] << 12)
            at = desc + (descsz + 3 & ~3)

    tables = set(roots)
    level = set(roots)
    for _ in range(3):
        level = {
            entry & FRAME
            for table in level
            for entry in page(table)
            if entry & (PRESENT | LARGE) == PRESENT
        }
        tables |= set(sorted(level)[:1500])
        level = set(sorted(level)[:1500])
    p2m = set(lists)
    level = set(lists)
    for _ in range(2):
        level = {entry << 12 for table in level for entry in page(table) if entry < 1 << 40}
        p2m |= level

    def places(addrs: set[int]) -> list[tuple[int, int]]:
        return [(at, PAGE) for at in map(offset, sorted(addrs)) if at is not None]

    headers = [(0, 64 if wide else 52), (start, count * size)]
    return Layout(headers, notes, places(tables), places(p2m))


def fault(
    layout: Layout, found: Sequence[words.Place], generator: random.Random, data: memoryview
) -> words.Change:
    """A random fault: a word of data half of the time, else any kind of region, equally likely."""
    if found and generator.random() < 0.5:
        return words.change(found, generator, data)
    where = generator.choice([name for name in Layout._fields if getattr(layout, name)])
    start, length = generator.choice(getattr(layout, where))
    at = start + generator.randrange(length)
    if generator.random() < 0.7:
        return words.Change(where, at, bytes([data[at] ^ 1 << generator.randrange(8)]))
    size = min(generator.choice((2, 4, 8, 8, 64, 512)), start + length - at)
    filled = generator.choice((b"\0" * size, b"\xff" * size, generator.randbytes(size)))
    return words.Change(where, at, filled)


def command(line: str, vmlinux: str, vmcore: str) -> str:
    """Runs one command in this process and returns its outcome."""
    name, *options = line.split()
    alone = name in ("notes", "domains", "vcpus") or "--hypervisor" in options
    files = [vmcore] if alone else [vmlinux, vmcore]
    sink = io.StringIO()
    # CPU time, since a loaded machine is not a hang. Elapsed time has a separate limit.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS * 24)
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            status = cli.main([name, *options, *files])
    except SystemExit as error:
        return f"finding: wrong usage, {error.code}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return f"finding: {type(error).__name__} at {place}: {str(error)[:100]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    # The logs may have tabs.
    if not all(text.isprintable() for text in sink.getvalue().replace("\t", " ").split("\n")):
        return "finding: output is not clean text"
    return f"status {status}" if status in (0, 1, 3) else f"finding: exit status {status}"


@contextlib.contextmanager
def warm(vmlinux: str, vmcore: str) -> Iterator[None]:
    """Does the work that does not depend on the fault, once."""
    image = functools.cache(_native.Image)
    with mock.patch.object(formats, "Image", image):
        for line in COMMANDS:
            result = command(line, vmlinux, vmcore)
            # Status 1 means that data is missing: a dump without Xen has no domains.
            if result not in ("status 0", "status 1"):
                raise SystemExit(f"{line} on the intact dump: {result}")
        # A garbage collection in a child would copy all of the parent's pages.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()


def commands(vmlinux: str, vmcore: str, pipe: int) -> None:
    """The child's work: writes each command, then its outcome and CPU time."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    limit = used + Path(vmcore).stat().st_size + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # An unexpected exception, which users see as a warning, is a finding here.
    isolation.strict = True
    for line in COMMANDS:
        gc.collect()  # frees the previous command's dump
        os.write(pipe, f"{line}\t".encode())
        start = time.process_time()
        result = command(line, vmlinux, vmcore)
        seconds = time.process_time() - start
        os.write(pipe, f"{result}\t{seconds:.4f}\n".encode(errors="replace"))


class Outcome(NamedTuple):
    """The outcome of one command."""

    command: str
    result: str
    #: CPU time.
    seconds: float


def run_in_child(vmlinux: str, vmcore: str) -> list[Outcome]:
    """Runs all commands in a child and returns their outcomes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # An exception must not propagate into the parent's frames.
        with contextlib.suppress(BaseException):
            os.close(reader)
            commands(vmlinux, vmcore, writer)
            os._exit(0)
        os._exit(70)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        output = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    outcomes = []
    for line in output.splitlines():
        # The last line is incomplete if the child was killed.
        name, _, rest = line.partition("\t")
        result, _, seconds = rest.partition("\t")
        outcomes.append(Outcome(name, result, float(seconds or SECONDS)))
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        outcomes[-1] = outcomes[-1]._replace(result=f"finding: killed by {name}")
    elif status:
        outcomes.append(Outcome("?", f"finding: the child ended with {os.WEXITSTATUS(status)}", 0))
    return outcomes


class Tally:
    """Outcomes and times by command."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.longest: dict[str, float] = {}

    def add(self, outcome: Outcome) -> None:
        name = outcome.command
        self.outcomes[f"{name}: {outcome.result}"] += 1
        self.seconds[name] += outcome.seconds
        self.longest[name] = max(self.longest.get(name, 0), outcome.seconds)

    def merge(self, other: "Tally") -> None:
        self.outcomes += other.outcomes
        for name, longest in other.longest.items():
            self.seconds[name] += other.seconds[name]
            self.longest[name] = max(self.longest.get(name, 0), longest)

    def show(self) -> None:
        for outcome, count in sorted(self.outcomes.items()):
            print(f"{count:8} {outcome}")
        faults = max(1, self.outcomes.total() // len(COMMANDS))
        print("CPU time, mean and longest, s:")
        for name, longest in self.longest.items():
            print(f"{self.seconds[name] / faults:8.3f} {longest:8.3f} {name}", flush=True)


def work(
    vmcore: str, vmlinux: str, seeds: range, memory: str | None = None, combined: int = 1
) -> Tally:
    """Applies ``combined`` faults for each seed to a private copy; prints the findings."""
    tally = Tally()
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        copy = Path(folder) / "vmcore"
        shutil.copyfile(vmcore, copy)
        with (
            copy.open("r+b", buffering=0) as file,
            Path(vmcore).open("rb") as original,
            warm(vmlinux, str(copy)),
        ):
            data = memoryview(mmap.mmap(original.fileno(), 0, access=mmap.ACCESS_READ))
            places = layout(data)
            found = words.places(vmcore, vmlinux, data)
            for done, seed in enumerate(seeds):
                if done and done % 500 == 0:
                    print(f"{done} of {len(seeds)}:")
                    tally.show()
                generator = random.Random(seed)
                faults = [fault(places, found, generator, data) for _ in range(combined)]
                for broken in faults:
                    os.pwrite(file.fileno(), broken.new, broken.offset)
                for outcome in run_in_child(vmlinux, str(copy)):
                    tally.add(outcome)
                    if outcome.result.startswith("finding"):
                        where = ", ".join(
                            f"{broken.where} {broken.offset:#x}+{len(broken.new)}"
                            for broken in faults
                        )
                        print(f"seed {seed} ({where}): {outcome.command}: {outcome.result}")
                        sys.stdout.flush()
                for broken in faults:
                    kept = bytes(data[broken.offset : broken.offset + len(broken.new)])
                    os.pwrite(file.fileno(), kept, broken.offset)
    return tally


def main() -> int:
    """The full run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("vmcore")
    parser.add_argument("vmlinux")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--combined", type=int, default=1, help="faults at once")
    parser.add_argument("--memory", default="/dev/shm", help="folder of the copies")
    args = parser.parse_args()
    last = args.seed + args.count
    shares = [range(args.seed + job, last, args.jobs) for job in range(args.jobs)]
    total = Tally()
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for part in pool.starmap(
            work,
            [(args.vmcore, args.vmlinux, share, args.memory, args.combined) for share in shares],
        ):
            total.merge(part)
    print("all:")
    total.show()
    return int(any("finding" in outcome for outcome in total.outcomes))


if __name__ == "__main__":
    sys.exit(main())
