"""Breaks a copy of a real dump thousands of times, and runs the commands on each.

    python -m tests.real.faults vmcore vmlinux --count 10000 --seed 1 --jobs 2

Single bits and blocks of up to 512 bytes, in headers, notes, page tables and P2M pages. Each fault
is put into a private copy, five commands are run in a child process, and the copy is mended. A
command must end by itself within 5 s of the CPU and 1 GiB, with an exit status that ``xkdump``
documents; an exception that is none of the package's own counts as a finding.
"""

import argparse
import contextlib
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
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from xenkdump_fast import cli

COMMANDS = ("bt --all", "sys", "notes", "domains", "check")
SECONDS = 5
#: Address space: what the interpreter and the mapped dump take, and 1 GiB.
MEMORY = 1 << 30
PAGE = 4096
PRESENT, LARGE = 1, 0x80
FRAME = 0x000F_FFFF_FFFF_F000


class Layout(NamedTuple):
    """Where in the file the bytes worth breaking are: offset and length."""

    headers: list[tuple[int, int]]
    notes: list[tuple[int, int]]
    tables: list[tuple[int, int]]
    p2m: list[tuple[int, int]]


def layout(data: memoryview) -> Layout:
    """Reads a sound ELF64 dump of a Xen host. Knows the format on its own."""
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    notes: list[tuple[int, int]] = []
    for i in range(count):
        kind, _, first, _, paddr, filesz, _, _ = struct.unpack_from(
            "<IIQQQQQQ", data, start + i * size
        )
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
            if kind == 0x1000002:
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

    return Layout([(0, 64), (start, count * size)], notes, places(tables), places(p2m))


class Fault(NamedTuple):
    """What is changed."""

    where: str
    offset: int
    new: bytes


def fault(layout: Layout, generator: random.Random, data: memoryview) -> Fault:
    """One fault at random: each kind of place as often as any other."""
    where = generator.choice([name for name in Layout._fields if getattr(layout, name)])
    start, length = generator.choice(getattr(layout, where))
    at = start + generator.randrange(length)
    if generator.random() < 0.7:
        return Fault(where, at, bytes([data[at] ^ 1 << generator.randrange(8)]))
    size = min(generator.choice((2, 4, 8, 8, 64, 512)), start + length - at)
    filled = generator.choice((b"\0" * size, b"\xff" * size, generator.randbytes(size)))
    return Fault(where, at, filled)


def command(words: str, vmlinux: str, vmcore: str) -> str:
    """Runs one command here; what became of it."""
    name, *options = words.split()
    files = [vmcore] if name in ("notes", "domains") else [vmlinux, vmcore]
    sink = io.StringIO()
    # Of the CPU's time: a loaded machine is no hang. Waiting, which costs none, has a limit too.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(SECONDS * 24)
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            status = cli.main([name, *options, *files])
    except SystemExit as error:
        return f"status {error.code}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return f"finding: {type(error).__name__} at {place}: {str(error)[:100]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    try:
        sink.getvalue().encode()
    except UnicodeEncodeError:
        return "finding: output that is no UTF-8"
    return f"status {status}" if status in (0, 1, 3) else f"finding: exit status {status}"


def commands(vmlinux: str, vmcore: str, pipe: int) -> None:
    """What the child does."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    limit = used + Path(vmcore).stat().st_size * 2 + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for words in COMMANDS:
        os.write(pipe, f"{words}\t".encode())
        os.write(pipe, f"{command(words, vmlinux, vmcore)}\n".encode(errors="replace"))


def tried(vmlinux: str, vmcore: str) -> list[tuple[str, str]]:
    """Runs all commands in a child; what became of each."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Anything that goes wrong here must not get back into the parent's stack.
        with contextlib.suppress(BaseException):
            os.close(reader)
            commands(vmlinux, vmcore, writer)
            os._exit(0)
        os._exit(70)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    results = [tuple(line.split("\t", 1)) for line in said.splitlines()]
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        results[-1] = (results[-1][0], f"finding: killed by {name}")
    elif status:
        results.append(("?", f"finding: the child ended with {os.WEXITSTATUS(status)}"))
    return [(name, result) for name, result in results]


def work(vmcore: str, vmlinux: str, seeds: range, memory: str | None = None) -> Counter[str]:
    """Tries a fault for each seed, in a copy of its own."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        copy = Path(folder) / "vmcore"
        shutil.copyfile(vmcore, copy)
        with copy.open("r+b", buffering=0) as file, Path(vmcore).open("rb") as sound:
            data = memoryview(mmap.mmap(sound.fileno(), 0, access=mmap.ACCESS_READ))
            places = layout(data)
            for seed in seeds:
                broken = fault(places, random.Random(seed), data)
                os.pwrite(file.fileno(), broken.new, broken.offset)
                for name, result in tried(vmlinux, str(copy)):
                    outcomes[f"{name}: {result}"] += 1
                    if result.startswith("finding"):
                        place = f"{broken.where} {broken.offset:#x}, {len(broken.new)} bytes"
                        print(f"seed {seed} ({place}): {name}: {result}", flush=True)
                kept = bytes(data[broken.offset : broken.offset + len(broken.new)])
                os.pwrite(file.fileno(), kept, broken.offset)
    return outcomes


def main() -> int:
    """The full run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("vmcore")
    parser.add_argument("vmlinux")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--memory", default="/dev/shm", help="folder of the copies")
    args = parser.parse_args()
    last = args.seed + args.count
    shares = [range(args.seed + job, last, args.jobs) for job in range(args.jobs)]
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        parts = pool.starmap(
            work, [(args.vmcore, args.vmlinux, share, args.memory) for share in shares]
        )
    total = sum(parts, Counter[str]())
    for outcome, count in sorted(total.items()):
        print(f"{count:8} {outcome}")
    return int(any("finding" in outcome for outcome in total))


if __name__ == "__main__":
    sys.exit(main())
