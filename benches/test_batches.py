"""Arrays through the package, beside what numpy does with a prepared table."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .conftest import ORDERS, Guest
from .forge import DIRECT, HUGE

LIST = 1 << 20
Open = Callable[[str], Guest]


def measure(
    benchmark: BenchmarkFixture, call: Callable[[Any], object], values: Any, batch: int
) -> None:
    """Calls with batch after batch, so that none is warm for having been the last one."""
    parts = cycle([values[at : at + batch] for at in range(0, len(values), batch)])
    for _ in range(len(values) // batch):
        call(next(parts))
    benchmark.extra_info["elements"] = batch
    benchmark.pedantic(
        lambda: call(next(parts)),
        rounds=max(7, min(200, 2_000_000 // batch)),
        iterations=max(1, 20_000 // batch),
        warmup_rounds=1,
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("guest", "batch"),
    [
        ("4g", LIST),
        *(("64g", batch) for batch in (1, 16, 256, 4096, 65_536, LIST)),
        ("1t", LIST),
    ],
)
@pytest.mark.parametrize("who", ["xenkdump-1", "xenkdump-2", "numpy"])
def test_resolve(
    benchmark: BenchmarkFixture, open_guest: Open, guest: str, order: str, batch: int, who: str
) -> None:
    benchmark.group = f"resolve/{guest}/{order}"
    opened = open_guest(guest)
    pfns = opened.pfns(order, LIST)
    if who == "numpy":
        # The quickest that numpy has: indices of its own type, and no check of them.
        table, indices = opened.table(), pfns.astype(np.intp)
        out = np.empty(batch, np.uint64)
        measure(benchmark, lambda part: table.take(part, out=out, mode="clip"), indices, batch)
        return
    out = np.empty(batch, np.uint64)
    threads = int(who[-1])
    measure(benchmark, lambda part: opened.p2m.resolve(part, out=out, threads=threads), pfns, batch)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pages", ["4k", "2m"])
@pytest.mark.parametrize("threads", [1, 2])
def test_translate(
    benchmark: BenchmarkFixture, open_guest: Open, pages: str, order: str, threads: int
) -> None:
    benchmark.group = f"translate-{pages}/64g/{order}"
    opened = open_guest("64g")
    addresses = opened.addresses(DIRECT if pages == "4k" else HUGE, order, LIST)
    out = np.empty(LIST, np.uint64)
    measure(
        benchmark,
        lambda part: opened.virtual.translate(part, out=out, threads=threads),
        addresses,
        LIST,
    )


@pytest.mark.parametrize("order", ORDERS)
def test_reverse(benchmark: BenchmarkFixture, open_guest: Open, order: str) -> None:
    benchmark.group = f"reverse/64g/{order}"
    opened = open_guest("64g")
    mfns = opened.p2m.resolve(opened.pfns(order, LIST))
    out = np.empty(LIST, np.uint64)
    measure(benchmark, lambda part: opened.p2m.reverse(part, out=out, threads=1), mfns, LIST)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("who", ["read_many-1", "read_many-2", "loop"])
def test_objects(benchmark: BenchmarkFixture, open_guest: Open, order: str, who: str) -> None:
    """Objects of 64 bytes at addresses of the direct map."""
    benchmark.group = f"objects/4g/{order}"
    opened = open_guest("4g")
    addresses = opened.addresses(DIRECT, order, LIST) & ~np.uint64(63)
    read = opened.virtual.read
    if who == "loop":
        batch = 1 << 14
        measure(benchmark, lambda part: [read(at, 64) for at in part], addresses.tolist(), batch)
        return
    out = np.empty((LIST, 64), np.uint8)
    threads = int(who[-1])
    measure(
        benchmark,
        lambda part: opened.virtual.read_many(part, 64, out=out, threads=threads),
        addresses,
        LIST,
    )


@pytest.mark.parametrize("who", ["readinto-1", "readinto-2", "memcpy"])
def test_whole_domain(benchmark: BenchmarkFixture, open_guest: Open, who: str) -> None:
    """A GiB of a domain's memory, in its own order; as many bytes of the file in the file's."""
    benchmark.group = "domain/4g"
    opened = open_guest("4g")
    size, step = 1 << 30, 16 << 20
    buffer = np.empty(step, np.uint8)
    if who == "memcpy":
        mapped = np.memmap(opened.about.path, np.uint8, "r")[-size:]

        def copy() -> None:
            for at in range(0, size, step):
                np.copyto(buffer, mapped[at : at + step])
    else:
        threads = int(who[-1])

        def copy() -> None:
            for at in range(0, size, step):
                opened.physical.readinto(at, buffer, threads=threads)

    copy()
    benchmark.extra_info["elements"] = size // 4096
    benchmark.pedantic(copy, rounds=7)


@pytest.mark.parametrize("who", ["empty", "resolve", "translate-4k", "translate-2m", "u64"])
def test_single(benchmark: BenchmarkFixture, open_guest: Open, who: str) -> None:
    """One number a call; an empty call of the same kind for comparison."""
    benchmark.group = "single/4g"
    opened = open_guest("4g")
    ranges = opened.virtual.iter_mapped()
    pfns = cycle(opened.pfns("kernel", 1 << 14).tolist())
    addresses = cycle(opened.addresses(DIRECT, "kernel", 1 << 14).tolist())
    large = cycle(opened.addresses(HUGE, "kernel", 1 << 14).tolist())
    resolve, translate, u64 = opened.p2m.resolve, opened.virtual.translate, opened.virtual.u64
    calls: dict[str, Callable[[], object]] = {
        "empty": lambda: (next(pfns), ranges.__iter__()),
        "resolve": lambda: (resolve(next(pfns)),),
        "translate-4k": lambda: (translate(next(addresses)),),
        "translate-2m": lambda: (translate(next(large)),),
        "u64": lambda: (u64(next(addresses) & ~7),),
    }
    benchmark.extra_info["elements"] = 1
    benchmark.pedantic(calls[who], rounds=200, iterations=1000, warmup_rounds=2)


def test_opening(benchmark: BenchmarkFixture, open_guest: Open) -> None:
    """A dump of 1 TiB in 8,000 segments, and the P2M of a domain of 512 GiB in it."""
    from xenkdump_fast._native import P2M, Dump

    benchmark.group = "opening/1t"
    about = open_guest("1t").about

    def opening() -> int:
        return P2M.frame_list(Dump(about.path), about.frame_list, 8).resolve(0)

    benchmark.extra_info["elements"] = 1
    benchmark.pedantic(opening, rounds=20)
