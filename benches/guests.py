"""The opened synthetic guests, and the access orders."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from xenkdump_fast._native import P2M, AddressSpace, Dump

from . import synthetic
from .synthetic import (
    DIRECT,
    ENTRIES,
    HUGE,
    PAE_DIRECT,
    PAE_HUGE,
    PAE_PAGES,
    PAGE,
    SyntheticGuest,
    Words,
)


@dataclass(frozen=True)
class Mapped:
    """An address space that maps a guest's pages from ``base`` on."""

    space: AddressSpace
    base: int
    #: The number of the guest's pages.
    pages: int


@dataclass(frozen=True, eq=False)
class Guest:
    """A synthetic guest, opened."""

    about: SyntheticGuest
    dump: Dump
    p2m: P2M
    physical: AddressSpace
    #: By the size of their pages: "4k", "2m", and under PAE "pae-4k", "pae-2m".
    spaces: dict[str, Mapped]

    def pfns(self, order: str, count: int) -> Words:
        """pfns that have a frame, in the given order."""
        run = np.uint64(ENTRIES * ENTRIES)
        runs = max(self.about.pages // int(run), 1) // max(self.about.present // int(run), 1)
        numbers = ORDERS[order](self.about.present, count)
        return numbers // run * np.uint64(runs) * run + numbers % run

    def addresses(self, pages: str, order: str, count: int) -> Words:
        """Addresses of such pfns in one of the spaces, with varying page offsets."""
        mapped = self.spaces[pages]
        pfns = self.pfns(order, count) % np.uint64(mapped.pages)
        offsets = pfns * np.uint64(72) % np.uint64(PAGE)
        return pfns * np.uint64(PAGE) + offsets + np.uint64(mapped.base)

    @cached_property
    def table(self) -> Words:
        """The mfn of every pfn, in one array."""
        pfns = np.arange(self.about.pages, dtype=np.uint64)
        return self.p2m.resolve(pfns, status=np.empty(len(pfns), np.uint8))


def sequential(limit: int, count: int) -> Words:
    return np.arange(count, dtype=np.uint64) % np.uint64(limit)


def at_random(limit: int, count: int) -> Words:
    return np.random.default_rng(1).integers(0, limit, count, dtype=np.uint64)


def kernel(limit: int, count: int) -> Words:
    """Short runs in 2 MiB regions, with some regions much hotter than others."""
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


def folder() -> Path:
    """The folder of the guests, as set by ``run.py``; else its default."""
    named = os.environ.get("XKDUMP_BENCH")
    return Path(named) if named else Path(__file__).resolve().parents[1] / ".cache" / "bench"


def open_p2m(about: SyntheticGuest) -> tuple[Dump, P2M]:
    """The dump, and the P2M of the guest in it."""
    dump = Dump(about.path)
    return dump, P2M.frame_list(dump, about.frame_list, 8)


def open_uncached(name: str) -> Guest:
    """Opens the guest of this name, such as ``64g``."""
    about = synthetic.write_guest(folder(), name)
    dump, p2m = open_p2m(about)
    virtual = dump.virtual(about.root, "x86_64")
    spaces = {
        "4k": Mapped(virtual, DIRECT, about.pages),
        "2m": Mapped(virtual, HUGE, about.pages),
    }
    if about.pae_root:
        pae = dump.virtual(about.pae_root, "x86-pae")
        spaces["pae-4k"] = Mapped(pae, PAE_DIRECT, PAE_PAGES)
        spaces["pae-2m"] = Mapped(pae, PAE_HUGE, PAE_PAGES)
    return Guest(about, dump, p2m, dump.physical(p2m), spaces)


def file_offsets(dump: Dump, machine: Words) -> Words:
    """File offsets of machine addresses in a synthetic dump, whose segments are at its end."""
    starts, sizes, _ = np.array(dump.segments, np.uint64).T
    offsets = np.uint64(dump.size) - sizes.sum() + sizes.cumsum() - sizes
    segment = np.searchsorted(starts, machine, "right") - 1
    found: Words = offsets[segment] + machine - starts[segment]
    return found


#: The same, cached.
open_guest = cache(open_uncached)
