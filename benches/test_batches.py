"""Batches through the package, compared with numpy and a prepared table."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .guests import ORDERS, Guest
from .pairing import cores

LIST = 1 << 20
Open = Callable[[str], Guest]


def measure(
    benchmark: BenchmarkFixture,
    call: Callable[[Any], object],
    values: Any,
    batch: int,
    threads: int = 1,
) -> None:
    """Calls with a different batch each time, so that no batch is cached from the last call."""
    parts = cycle([values[at : at + batch] for at in range(0, len(values), batch)])
    benchmark.extra_info["elements"] = batch
    with cores(threads):
        for _ in range(max(len(values) // batch, 4)):
            call(next(parts))
        run: Callable[..., object] = benchmark.pedantic
        run(
            lambda: call(next(parts)),
            rounds=max(9, min(60, 500_000 // batch)),
            iterations=max(1, 10_000 // batch),
        )


def threads_of(who: str) -> int:
    """The number at the end of a name."""
    return int(who[-1])


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
    out = np.empty(batch, np.uint64)
    if who == "numpy":
        # numpy's fastest: native indices, no bounds check.
        table, indices = opened.table, pfns.astype(np.intp)
        measure(benchmark, lambda part: table.take(part, out=out, mode="clip"), indices, batch)
        return
    threads = threads_of(who)
    resolve = opened.p2m.resolve
    measure(benchmark, lambda part: resolve(part, out=out, threads=threads), pfns, batch, threads)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pages", ["4k", "2m"])
@pytest.mark.parametrize("batch", [1, 16, 256, 4096, 65_536, LIST])
@pytest.mark.parametrize("who", ["xenkdump-1", "xenkdump-2"])
def test_translate(
    benchmark: BenchmarkFixture, open_guest: Open, pages: str, order: str, batch: int, who: str
) -> None:
    benchmark.group = f"translate-{pages}/64g/{order}"
    opened = open_guest("64g")
    addresses = opened.addresses(pages, order, LIST)
    out = np.empty(batch, np.uint64)
    threads = threads_of(who)
    translate = opened.spaces[pages].space.translate
    measure(
        benchmark, lambda part: translate(part, out=out, threads=threads), addresses, batch, threads
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("who", ["xenkdump-1"])
def test_reverse(benchmark: BenchmarkFixture, open_guest: Open, order: str, who: str) -> None:
    benchmark.group = f"reverse/64g/{order}"
    opened = open_guest("64g")
    mfns = opened.p2m.resolve(opened.pfns(order, LIST))
    out = np.empty(LIST, np.uint64)
    threads = threads_of(who)
    measure(benchmark, lambda part: opened.p2m.reverse(part, out=out, threads=threads), mfns, LIST)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("who", ["xenkdump-1", "xenkdump-2"])
def test_objects(benchmark: BenchmarkFixture, open_guest: Open, order: str, who: str) -> None:
    """Objects of 64 bytes at addresses of the direct map."""
    benchmark.group = f"objects/4g/{order}"
    opened = open_guest("4g")
    addresses = opened.addresses("4k", order, LIST) & ~np.uint64(63)
    out = np.empty((LIST, 64), np.uint8)
    threads = threads_of(who)
    many = opened.spaces["4k"].space.read_many
    measure(
        benchmark, lambda part: many(part, 64, out=out, threads=threads), addresses, LIST, threads
    )
