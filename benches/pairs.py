"""The Python API compared with its alternatives, in alternation.

``python -m benches.pairs TURNS LIBRARY NAME...``; the library is that of ``empty/``. The program
``loads`` of the core's benches is beside it.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np

from .guests import Guest, file_offsets, open_guest, open_uncached
from .pairing import Pair, cores, emit, in_turn
from .peer_pairs import LOADS, beside, loads
from .synthetic import PAGE, SHAPES, Words

LIST = 1 << 20
#: The targets for a P2M, by order and threads.
TIMES = {("random", 1): 1.5, ("random", 2): 2.5, ("sequential", 1): 1.0}
#: The size of a read of a domain.
STEP = 16 << 20


def resolving(turns: int) -> Iterator[Pair]:
    """A P2M against numpy's ``take`` from a prepared table."""
    for name in SHAPES:
        guest = open_guest(name)
        table = guest.table
        for order in ("random", "sequential", "kernel"):
            pfns = guest.pfns(order, LIST)
            for threads, with_status in ((1, False), (1, True), (2, False)):
                times = against_take(guest, table, pfns, threads, with_status, turns)
                who = f"resolve, {plural(threads)}" + ", with status" * with_status
                wanted = TIMES.get((order, threads))
                yield Pair(f"P2M, {name}, {order}", who, "numpy take", LIST, *times, wanted=wanted)
        yield from floors(guest, table, name, turns)


def floors(guest: Guest, table: Words, name: str, turns: int) -> Iterator[Pair]:
    """A lower bound on the cost of lookups: in sequence, a copy of the same size; at random, a
    ``take`` from a table of half the size (unchecked 32-bit mfns)."""
    out, copied = np.empty(LIST, np.uint64), np.empty(LIST, np.intp)
    small, narrow = table.astype(np.uint32), np.empty(LIST, np.uint32)

    def between(order: str, who: str, theirs: Callable[[Any], object]) -> Pair:
        pfns = guest.pfns(order, LIST)
        indices = pfns.view(np.intp)
        with cores(1):
            times = in_turn(
                lambda: guest.p2m.resolve(pfns, out=out, threads=1),
                lambda: theirs(indices),
                LIST,
                turns,
            )
        return Pair(f"P2M, {name}, {order}", "resolve, 1 thread", who, LIST, *times)

    yield between("sequential", "a copy of the pfns", lambda pfns: np.copyto(copied, pfns))
    take = small.take
    yield between("random", "numpy take, 32 bits", lambda i: take(i, out=narrow, mode="clip"))


def against_take(
    guest: Guest, table: Words, pfns: Words, threads: int, with_status: bool, turns: int
) -> tuple[list[float], list[float]]:
    """numpy's fastest ``take``: native indices, no bounds check, a preallocated result."""
    indices = pfns.astype(np.intp)
    out, theirs = np.empty(LIST, np.uint64), np.empty(LIST, np.uint64)
    status = np.zeros(LIST, np.uint8) if with_status else None
    resolve = guest.p2m.resolve
    with cores(threads):
        times = in_turn(
            lambda: resolve(pfns, out=out, status=status, threads=threads),
            lambda: table.take(indices, out=theirs, mode="clip"),
            LIST,
            turns,
        )
    assert np.array_equal(out, theirs)
    assert status is None or not status.any()
    return times


def plural(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def empty_call() -> Callable[[], None]:
    """A call into Rust that does nothing."""
    path = sys.argv[2]
    loader = ExtensionFileLoader("empty", path)
    spec = spec_from_loader("empty", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    nothing: Callable[[], None] = module.nothing
    return nothing


def single(turns: int) -> Iterator[Pair]:
    """One number per call: from a few whose memory is cached, and from many."""
    for few in (True, False):
        yield from one_per_call(turns, few)


def one_per_call(turns: int, few: bool) -> Iterator[Pair]:
    # Few enough that some runs complete without preemption.
    count = 1 << 11
    guest = open_guest("4g")
    nothing = empty_call()
    virtual = guest.spaces["4k"].space
    addresses = (guest.addresses("4k", "kernel", count) & ~np.uint64(7)).tolist()
    machine = (guest.p2m.resolve(guest.pfns("kernel", count)) * np.uint64(PAGE)).tolist()
    calls: list[tuple[str, Callable[[int], object], list[int]]] = [
        ("p2m.resolve(pfn)", guest.p2m.resolve, guest.pfns("kernel", count).tolist()),
        ("virtual.translate(address), 4 KiB pages", virtual.translate, addresses),
        (
            "virtual.translate(address), 2 MiB pages",
            virtual.translate,
            guest.addresses("2m", "kernel", count).tolist(),
        ),
        ("virtual.u64(address)", virtual.u64, addresses),
        ("machine.u64(address)", guest.dump.machine.u64, machine),
    ]

    def empty() -> None:
        for _ in addresses:
            nothing()

    for what, call, different in calls:
        arguments = different[:64] * (count // 64) if few else different

        def ours(call: Callable[[int], object] = call, arguments: list[int] = arguments) -> None:
            for argument in arguments:
                call(argument)

        with cores(1):
            times = in_turn(ours, empty, count, turns * 2, 20)
        who = f"one call, {64 if few else f'{count:,}'} different"
        yield Pair(what, who, "an empty pyo3 call", count, *times, most_more_ns=300)


def objects(turns: int) -> Iterator[Pair]:
    """Objects in the direct map, compared with a loop, and with numpy, which gets their offsets in
    the mapped file as input."""
    for size in (8, 64):
        for order in ("random", "kernel"):
            yield from objects_of(size, order, turns)


def objects_of(size: int, order: str, turns: int) -> Iterator[Pair]:
    """Objects of so many bytes, each in a cache line of its own."""
    guest = open_guest("4g")
    mapped = np.memmap(guest.about.path, np.uint8, "r")
    rows = mapped[: len(mapped) // size * size].reshape(-1, size)
    virtual = guest.spaces["4k"].space
    few = max(turns // 3, 3)
    what = f"objects of {size} bytes, {order}"
    addresses = guest.addresses("4k", order, 1 << 18) & ~np.uint64(63)
    count = len(addresses)
    numbers = addresses.tolist()
    offsets = file_offsets(guest.dump, virtual.translate(addresses))
    indices = (offsets // np.uint64(size)).astype(np.intp)
    out, theirs = np.empty((count, size), np.uint8), np.empty((count, size), np.uint8)

    def loop() -> None:
        for address in numbers:
            virtual.read(address, size)

    def take() -> None:
        rows.take(indices, axis=0, out=theirs, mode="clip")

    for threads in (1, 2):
        who = f"read_many, {plural(threads)}"

        def many(threads: int = threads) -> None:
            virtual.read_many(addresses, size, out=out, threads=threads)

        with cores(threads):
            times = in_turn(many, loop, count, few)
            wanted = 50 if order == "random" and size == 64 else None
            yield Pair(what, who, "a loop over read", count, *times, wanted=wanted)
            times = in_turn(many, take, count, few)
            yield Pair(what, who, "numpy take from the file", count, *times)
        assert np.array_equal(out, theirs)
    program = Path(sys.argv[2]).with_name("loads")
    with cores(1), loads(program, guest.about.path, offsets, size) as least:
        found, floor = beside(partial(many, 1), [least], count, few)
        yield Pair(what, "read_many, 1 thread", LOADS, count, found, floor)


def whole_domain(turns: int) -> Iterator[Pair]:
    """A domain's memory in its own order, compared with a copy of the mapped file of the same size
    in the file's order. Both are in the page cache; with warm mappings, and with new ones."""
    guest = open_guest("4g")
    size = guest.about.present * PAGE if turns > 5 else 1 << 30
    buffer = np.empty(STEP, np.uint8)
    pages = size // PAGE
    mapped = np.memmap(guest.about.path, np.uint8, "r")[-size:]

    def plain() -> None:
        copy(mapped, buffer)

    def plain_with_new_mapping() -> None:
        copy(np.memmap(guest.about.path, np.uint8, "r")[-size:], buffer)

    for threads in (1, 2):

        def read(opened: Guest = guest, threads: int = threads) -> None:
            for at in range(0, size, STEP):
                opened.physical.readinto(at, buffer, threads=threads)

        def read_with_new_mapping(read: Callable[[Guest], None] = read) -> None:
            read(open_uncached("4g"))

        who = f"readinto, {plural(threads)}"
        with cores(threads):
            few = max(turns // 3, 3)
            times = in_turn(read, plain, pages, few, 1)
            yield Pair("a domain, warm mappings", who, "memcpy", pages, *times, wanted=0.8)
            times = in_turn(read_with_new_mapping, plain_with_new_mapping, pages, few, 1)
            yield Pair("a domain, opening included", who, "memcpy", pages, *times, wanted=0.8)


def copy(mapped: Any, buffer: Any) -> None:
    """All of a mapping, part by part."""
    for at in range(0, len(mapped), STEP):
        np.copyto(buffer, mapped[at : at + STEP])


#: The measurements by name.
PARTS = {
    "single": single,
    "resolving": resolving,
    "objects": objects,
    "whole-domain": whole_domain,
}


def main() -> None:
    """Runs the named measurements."""
    turns = int(sys.argv[1])
    for name in sys.argv[3:]:
        emit(PARTS[name](turns))


if __name__ == "__main__":
    main()
