"""Reads at many addresses of one dump, compared with drgn and libkdumpfile.

``python -m benches.peer_pairs TURNS SYSTEM_PYTHON LOADS [VMCORE VMLINUX]``. LOADS is the program of
that name of the core's benches, which measures the floor of reads at random. The optional dump must
be that of a Linux kernel without Xen, whose addresses both peers can translate.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from xenkdump_fast._native import AddressSpace

from .guests import file_offsets, open_guest
from .pairing import Call, Pair, clock, cores, emit, in_turn, say
from .synthetic import PAGE, TABLES, Words

COUNT = 1 << 17
#: The required speedup, by order.
TIMES = {"words in sequence": 300.0, "pages in sequence": 300.0, "words at random": 60.0}
#: The floor: a program that gets the offsets in the mapped file as input.
LOADS = "prefetched loads at known offsets"
#: Objects at random: offset and size of each member that is read, within a cache line.
OBJECTS = {
    "64 bytes": [(0, 64)],
    "3 members of 8, 4 and 16 bytes": [(0, 8), (16, 4), (40, 16)],
    "16 members of 4 bytes": [(4 * number, 4) for number in range(16)],
}


@dataclass(frozen=True, slots=True)
class Job:
    """The addresses to read."""

    #: "physical" or "virtual".
    kind: str
    dump: str
    path: str
    space: AddressSpace
    pages: Words

    def addresses(self, order: str) -> Words:
        """Addresses of 8 bytes each, in the given order."""
        number = np.arange(COUNT, dtype=np.uint64)
        within = np.uint64(PAGE // 8)
        if order == "words at random":
            rng = np.random.default_rng(1)
            number = rng.integers(0, len(self.pages) * 512, COUNT, dtype=np.uint64)
        elif order == "pages in sequence":
            # Every page, at different words.
            number = (number * within + number % within) % np.uint64(len(self.pages) * 512)
        else:
            number %= np.uint64(len(self.pages) * 512)
        addresses: Words = self.pages[number // within] + number % within * np.uint64(8)
        return addresses


class Peer:
    """A peer, in a process of its own; the protocol is that of ``peers.py``."""

    def __init__(self, command: Sequence[str | Path], job: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.first = self.request(json.dumps(job))

    def request(self, line: str) -> Any:
        """Sends a line and returns the response; None if the peer has exited."""
        stdin, stdout = pipe(self.process.stdin), pipe(self.process.stdout)
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError:
            return None
        found = stdout.readline()
        return json.loads(found) if found else None

    def why(self) -> str:
        """The last line of its error output."""
        lines = self.process.communicate()[1].strip().splitlines()
        return lines[-1] if lines else "no reason given"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def peer_of(
    name: str,
    python: str,
    job: Job,
    addresses: list[int],
    members: Sequence[tuple[int, int]] = ((0, 8),),
) -> Peer:
    """A peer in a Python interpreter in which it is installed."""
    request = {"peer": name, "kind": job.kind, "path": job.path, "addresses": addresses}
    program = Path(__file__).with_name("peers.py")
    return Peer([python, program], {**request, "members": members})


def loads(program: str | Path, path: str, offsets: Words, size: int) -> Peer:
    """The floor of reads of ``size`` bytes at offsets of a file."""
    return Peer([program], {"path": path, "offsets": offsets.tolist(), "size": size})


def beside(ours: Call, peers: Sequence[Peer], count: int, turns: int) -> list[list[float]]:
    """The times of our call and of the peers, in turn."""
    found: list[list[float]] = [[] for _ in range(len(peers) + 1)]
    for turn in range(turns + 1):
        ours()
        times = [clock(ours, count), *(one.request("once more") for one in peers)]
        if turn > 0:
            for known, took in zip(found, times, strict=True):
                known.append(took)
    return found


def pipe(end: IO[str] | None) -> IO[str]:
    assert end is not None
    return end


def physical() -> Job:
    """The 64 GiB guest's tables: the part of its dump that has bytes on disk."""
    guest = open_guest("64g")
    pages = np.arange(TABLES, TABLES + 60_000, dtype=np.uint64) * np.uint64(PAGE)
    return Job("physical", "a synthetic dump", guest.about.path, guest.dump.machine, pages)


def virtual(vmcore: str, vmlinux: str) -> Job:
    """Every page of memory that a real kernel maps, by virtual address."""
    import xenkdump_fast

    space = xenkdump_fast.open(vmcore).domain(0, vmlinux).virtual
    pages = np.concatenate(
        [
            np.arange(found.address, found.address + found.size, PAGE, dtype=np.uint64)
            for found in space.iter_mapped(1 << 63)
        ]
    )
    status = np.empty(len(pages), np.uint8)
    space.read_many(pages, PAGE, status=status)
    return Job("virtual", "a kernel's dump", vmcore, space, pages[status == 0])


def against(
    job: Job, other: Peer, name: str, order: str, words: Words, turns: int
) -> Iterator[Pair]:
    """Measures one peer on one list, against one and two threads of ours."""
    assert other.first == job.space.u64(int(words[0])), f"{name} returned another value"
    out = np.empty((len(words), 8), np.uint8)
    few = words[: 1 << 14].tolist()

    def loop() -> None:
        for address in few:
            job.space.u64(address)

    methods: dict[str, tuple[int, Call]] = {
        "read_many, 1 thread": (1, lambda: job.space.read_many(words, 8, out=out, threads=1)),
        "read_many, 2 threads": (2, lambda: job.space.read_many(words, 8, out=out, threads=2)),
        "a loop over u64": (1, loop),
    }
    start, count = int(words[0]), len(words)
    if int(words[-1]) - start == 8 * (count - 1):
        # A single range does not need a list of addresses.
        methods["read_array, 1 thread"] = (
            1,
            lambda: job.space.read_array(start, "uint64", count, threads=1),
        )
    found: dict[str, list[float]] = {who: [] for who in methods}
    theirs: list[float] = []
    for turn in range(turns + 1):
        for who, (threads, call) in methods.items():
            with cores(threads):
                call()
                found[who].append(clock(call, len(few) if call is loop else count))
        theirs.append(other.request("once more"))
        if turn == 0:
            for times in (*found.values(), theirs):
                times.clear()
    for who, ours in found.items():
        wanted = None if who == "a loop over u64" else TIMES[order]
        what = f"8 bytes, {job.kind} addresses of {job.dump}, {order}"
        yield Pair(what, who, name, count, ours, theirs, wanted=wanted)


def measured(turns: int, system_python: str, program: str, dump: list[str]) -> Iterator[Pair]:
    jobs = [physical()]
    if dump:
        jobs.append(virtual(*dump))
    for job in jobs:
        for order in TIMES:
            words = job.addresses(order)
            for name, python in (("drgn", sys.executable), ("libkdumpfile", system_python)):
                with peer_of(name, python, job, words.tolist()) as other:
                    if other.first is None:
                        say(f"without {name}: {other.why()}")
                        continue
                    yield from against(job, other, name, order, words, turns)
            if job.kind == "physical":
                yield floor(job, order, words, turns)
                what = f"8 bytes, {job.kind} addresses of {job.dump}, {order}"
                who, ours = reader_of_objects(job.space, words, [(0, 8)])
                with peer_of("libkdumpfile", system_python, job, words.tolist()) as other:
                    yield from with_floor(what, who, (job, words, 8), ours, other, program, turns)
        yield from objects(job, turns, system_python, program)


def with_floor(
    what: str,
    who: str,
    reads: tuple[Job, Words, int],
    ours: Call,
    other: Peer,
    program: str,
    turns: int,
) -> Iterator[Pair]:
    """Our call and libkdumpfile, each against the floor of these reads, in the same turns."""
    job, addresses, size = reads
    count = len(addresses)
    offsets = file_offsets(open_guest("64g").dump, addresses)
    with loads(program, job.path, offsets, size) as least:
        assert least.first == job.space.u64(int(addresses[0]))
        peers = [least] if other.first is None else [least, other]
        mine, floor, *theirs = beside(ours, peers, count, turns)
    yield Pair(what, who, LOADS, count, mine, floor)
    for times in theirs:
        yield Pair(what, LOADS, "libkdumpfile", count, floor, times)


def objects(job: Job, turns: int, system_python: str, program: str) -> Iterator[Pair]:
    """Objects at random and members of such, in one thread; peers read each member on its own."""
    lines = np.unique(job.addresses("words at random") & ~np.uint64(63))
    lines = np.random.default_rng(2).permutation(lines)
    count = len(lines)
    for size, members in OBJECTS.items():
        what = f"{size}, {job.kind} addresses of {job.dump}, at random"
        who, ours = reader_of_objects(job.space, lines, members)
        for name, python in (("drgn", sys.executable), ("libkdumpfile", system_python)):
            with peer_of(name, python, job, lines.tolist(), members) as other:
                if other.first is not None:
                    mine, theirs = beside(ours, [other], count, turns)
                    yield Pair(what, who, name, count, mine, theirs, wanted=60.0)
        if job.kind == "physical":
            with peer_of("libkdumpfile", system_python, job, lines.tolist(), members) as other:
                yield from with_floor(what, who, (job, lines, 64), ours, other, program, turns)
            take = taker_of_lines(job, lines)
            yield Pair(
                what, who, "numpy take from the file", count, *in_turn(ours, take, count, turns)
            )


def reader_of_objects(
    space: AddressSpace, lines: Words, members: Sequence[tuple[int, int]]
) -> tuple[str, Call]:
    """What reads all objects, and its name."""
    if len(members) == 1:
        size = members[0][1]
        rows = np.empty((len(lines), size), np.uint8)
        return "read_many, 1 thread", lambda: space.read_many(lines, size, out=rows, threads=1)
    named = [(f"member{number}", *member) for number, member in enumerate(members)]
    out = space.read_struct_many(lines, named)
    for number, (offset, size) in enumerate(members):
        expected = space.read_many(lines + np.uint64(offset), size)
        assert out[f"member{number}"].tobytes() == expected.tobytes()
    return "read_struct_many, 1 thread", lambda: space.read_struct_many(
        lines, named, out=out, threads=1
    )


def taker_of_lines(job: Job, lines: Words) -> Call:
    """The cache lines by numpy, which gets the offsets in the mapped file as input."""
    mapped = np.memmap(job.path, np.uint8, "r")
    rows = mapped[: len(mapped) // 64 * 64].reshape(-1, 64)
    indices = (file_offsets(open_guest("64g").dump, lines) // np.uint64(64)).astype(np.intp)
    out = np.empty((len(lines), 64), np.uint8)
    return lambda: rows.take(indices, axis=0, out=out, mode="clip")


def floor(job: Job, order: str, words: Words, turns: int) -> Pair:
    """The same reads by numpy, which gets the offsets in the mapped file as input."""
    mapped = np.memmap(job.path, np.uint64, "r")
    indices = (file_offsets(open_guest("64g").dump, words) // np.uint64(8)).astype(np.intp)
    out, theirs = np.empty((len(words), 8), np.uint8), np.empty(len(words), np.uint64)
    times = in_turn(
        lambda: job.space.read_many(words, 8, out=out, threads=1),
        lambda: mapped.take(indices, out=theirs, mode="clip"),
        len(words),
        turns,
    )
    assert np.array_equal(out.view(np.uint64)[:, 0], theirs)
    what = f"8 bytes, {job.kind} addresses of {job.dump}, {order}"
    return Pair(what, "read_many, 1 thread", "numpy take from the file", len(words), *times)


def main() -> None:
    """Measures all. The peers run on the first core, as this process does with one thread."""
    turns, system_python, program, *dump = sys.argv[1:]
    with cores(1):
        emit(measured(int(turns), system_python, program, dump))


if __name__ == "__main__":
    main()
