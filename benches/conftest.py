"""The forged guests, opened; they lie where XKDUMP_BENCH says (``benches/run.py`` sees to it)."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from xenkdump_fast._native import P2M, AddressSpace, Dump

from . import forge
from .forge import ENTRIES, PAGE, Forged, Words


@dataclass(frozen=True)
class Guest:
    """A forged guest, opened."""

    about: Forged
    dump: Dump
    p2m: P2M
    physical: AddressSpace
    virtual: AddressSpace

    def pfns(self, order: str, count: int) -> Words:
        """pfns that have a frame, in some order."""
        run = np.uint64(ENTRIES * ENTRIES)
        runs = max(self.about.pages // int(run), 1) // max(self.about.present // int(run), 1)
        numbers = ORDERS[order](self.about.present, count)
        return numbers // run * np.uint64(runs) * run + numbers % run

    def addresses(self, base: int, order: str, count: int) -> Words:
        """Addresses of such pfns from ``base`` on, each with some offset in its page."""
        pfns = self.pfns(order, count)
        offsets = pfns * np.uint64(72) % np.uint64(PAGE)
        return pfns * np.uint64(PAGE) + offsets + np.uint64(base)

    def table(self) -> Words:
        """The mfn of every pfn, in one array."""
        return self.p2m.resolve(np.arange(self.about.pages, dtype=np.uint64))


def sequential(limit: int, count: int) -> Words:
    return np.arange(count, dtype=np.uint64) % np.uint64(limit)


def at_random(limit: int, count: int) -> Words:
    return np.random.default_rng(1).integers(0, limit, count, dtype=np.uint64)


def kernel(limit: int, count: int) -> Words:
    """Short runs in 2 MiB regions, some of them much hotter than others."""
    rng = np.random.default_rng(1)
    regions = max(limit // ENTRIES, 1)
    runs = count // 4
    rank = (regions * rng.random(runs) ** 4).astype(np.uint64)
    region = rank * np.uint64(0x9E3779B1) % np.uint64(regions)
    start = region * np.uint64(ENTRIES) + rng.integers(0, ENTRIES, runs, dtype=np.uint64)
    lengths = rng.integers(1, 17, runs)
    first = np.repeat(start, lengths)
    within = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers: Words = (first + within.astype(np.uint64))[:count] % np.uint64(limit)
    assert len(numbers) == count
    return numbers


ORDERS: dict[str, Callable[[int, int], Words]] = {
    "sequential": sequential,
    "random": at_random,
    "kernel": kernel,
}


@pytest.fixture(scope="session")
def open_guest() -> Callable[[str], Guest]:
    """``open_guest("64g")``."""
    folder = Path(os.environ.get("XKDUMP_BENCH", Path(__file__).parents[1] / ".cache" / "bench"))

    @cache
    def opened(name: str) -> Guest:
        about = forge.forge(folder, name)
        dump = Dump(about.path)
        p2m = P2M.frame_list(dump, about.frame_list, 8)
        virtual = dump.virtual(about.root, "x86_64")
        return Guest(about, dump, p2m, dump.physical(p2m), virtual)

    return opened
