"""P2Ms of different shapes: how much of a guest's memory consists of contiguous extents of 2 MiB.

Shapes are made up, or those of domains in real dumps. The leaf pages of a shape are on disk once: a
larger guest refers to them again and again, so that 512 GiB take 9 MiB of disk. Frames repeat then,
which no lookup depends on. The summaries of the reader, and numpy's tables, have an entry for every
pfn.

Real dumps are those of the tests: ``../shared/dumps``, or the folder XKDUMP_DUMPS, unpacked there
or in the cache of the tests, XKDUMP_CACHE.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import xenkdump_fast
from xenkdump_fast._native import P2M, STATUS, Dump

from .guests import ORDERS, folder
from .pairing import say
from .synthetic import ENTRIES, FRAMES, INVALID, Shape, Tables, Words, padded, write

ROOT = Path(__file__).resolve().parents[1]
#: pfns of a shape that is made up: 4 GiB.
UNIT = 1 << 20
EXTENTS = UNIT // ENTRIES
#: Bits of an entry of a pvops kernel that is not an own frame.
FOREIGN, IDENTITY = np.uint64(1 << 63), np.uint64(1 << 62)
#: The sizes of guests in pfns, by name. numpy's table of 8 bytes for each pfn takes 512 KiB, which
#: fits into most second-level caches, 128 MiB, and 1 GiB.
SIZES = {"256 MiB": 1 << 16, "64 GiB": 1 << 24, "512 GiB": 1 << 27}


def extents(rng: np.random.Generator) -> Words:
    """Consecutive frames in each extent of 2 MiB, and extents in no order."""
    order = rng.permutation(EXTENTS).astype(np.uint64) * np.uint64(ENTRIES)
    words: Words = np.add.outer(order, np.arange(ENTRIES, dtype=np.uint64)).ravel()
    return words + np.uint64(FRAMES)


def with_single_frames(part: float) -> Callable[[np.random.Generator], Words]:
    """Some of the extents have their frames in no order, as if allocated one by one."""

    def entries(rng: np.random.Generator) -> Words:
        words = extents(rng)
        single = words[: round(EXTENTS * part) * ENTRIES]
        rng.shuffle(single)
        # These extents are anywhere in the guest.
        return rng.permutation(words.reshape(-1, ENTRIES)).ravel()

    return entries


def with_exchanged_frames(part: float) -> Callable[[np.random.Generator], Words]:
    """Extents, but single frames anywhere in them have been exchanged for others, as by a backend
    driver or by ballooning: most extents have some."""

    def entries(rng: np.random.Generator) -> Words:
        words = extents(rng)
        places = rng.choice(UNIT, round(UNIT * part), replace=False)
        words[places] = rng.permutation(words[places])
        return words

    return entries


def short_runs(rng: np.random.Generator) -> Words:
    """Runs of 1 to 256 consecutive frames, as from a fragmented allocator that works by powers of
    two."""
    runs = []
    at = 0
    while at < UNIT:
        size = min(1 << int(rng.integers(0, 9)), UNIT - at)
        runs.append(np.arange(at, at + size, dtype=np.uint64))
        at += size
    order = rng.permutation(len(runs))
    return np.concatenate([runs[number] for number in order]) + np.uint64(FRAMES)


def ballooned(rng: np.random.Generator) -> Words:
    """Extents of a guest that has given back memory: a quarter of the extents as a whole, and a
    quarter of the pages of another quarter one by one."""
    words = extents(rng).reshape(-1, ENTRIES)
    kind = rng.permutation(EXTENTS) % 4
    words[kind == 0] = INVALID
    some = np.flatnonzero(kind == 1)
    holes = rng.random((len(some), ENTRIES)) < 0.25
    words[some] = np.where(holes, INVALID, words[some])
    return words.ravel()


#: The shapes that are made up, by name.
MADE_UP: dict[str, Callable[[np.random.Generator], Words]] = {
    "only extents": extents,
    "an eighth single frames": with_single_frames(1 / 8),
    "half single frames": with_single_frames(1 / 2),
    "no extents": with_single_frames(1),
    "1 of 256 frames exchanged": with_exchanged_frames(1 / 256),
    "runs of 1 to 256 frames": short_runs,
    "ballooned": ballooned,
}
#: Dumps, and domains in them.
REAL = {
    "xen417-dom0": (0,),
    "xen417-three-domains": (0, 1, 2),
    "xen420-pv-pvh": (0, 1, 2),
}


def real_dump(name: str) -> Path | None:
    """The file of a real dump; None if it is absent, or only there in compressed form."""
    dumps = Path(os.environ.get("XKDUMP_DUMPS", ROOT.parent / "shared" / "dumps"))
    plain, packed = dumps / name / "vmcore", dumps / name / "vmcore.zst"
    if plain.is_file():
        return plain
    if not packed.is_file():
        return None
    cache = Path(os.environ.get("XKDUMP_CACHE", "/var/tmp/xkdump-dumps"))
    unpacked = cache / f"{packed.stat().st_size:x}-{name}-vmcore"
    return unpacked if unpacked.is_file() else None


def real_entries(vmcore: Path, number: int) -> Words:
    """The P2M of a domain, as entries of a pvops kernel."""
    p2m = xenkdump_fast.open(vmcore).domain(number).p2m
    pfns = np.arange(p2m.pages, dtype=np.uint64)
    status = np.empty(len(pfns), np.uint8)
    words: Words = p2m.resolve(pfns, status=status).copy()
    kinds = {name: np.uint8(number) for number, name in enumerate(STATUS)}
    words[status != 0] = INVALID
    words[status == kinds["identity"]] = pfns[status == kinds["identity"]] | IDENTITY
    words[status == kinds["foreign"]] = FOREIGN | np.uint64(FRAMES)
    return words


@dataclass(frozen=True, slots=True)
class About:
    """A guest of one shape on disk."""

    path: str
    shape: str
    size: str
    #: pfns of the guest, and of the shape.
    pages: int
    unit: int
    frame_list: int


class ShapedGuest:
    """A guest of one shape, opened."""

    def __init__(self, about: About) -> None:
        self.about = about
        self.dump = Dump(about.path)
        self.p2m = P2M.frame_list(self.dump, about.frame_list, 8)
        pfns = np.arange(about.unit, dtype=np.uint64)
        status = np.empty(len(pfns), np.uint8)
        #: The mfn of each pfn of the shape, and the pfns that have one.
        self.unit: Words = self.p2m.resolve(pfns, status=status).copy()
        self.present: Words = pfns[status == 0]

    @cached_property
    def table(self) -> Words:
        """numpy's table: the mfn of each pfn."""
        return np.resize(self.unit, self.about.pages)

    @cached_property
    def narrow(self) -> NDArray[np.uint32]:
        """The same in 32 bits."""
        return np.resize(self.unit.astype(np.uint32), self.about.pages)

    @property
    def has_holes(self) -> bool:
        """Whether some pfns have no frame."""
        return len(self.present) < self.about.unit

    def pfns(self, order: str, count: int) -> Words:
        """pfns that have a frame, in the given order, of all whole repetitions of the shape."""
        unit = np.uint64(self.about.unit)
        each = np.uint64(len(self.present))
        repeated = max(np.uint64(self.about.pages) // unit, np.uint64(1))
        numbers = ORDERS[order](int(each * repeated), count)
        found: Words = numbers // each * unit + self.present[numbers % each]
        return found

    def any_pfns(self, order: str, count: int) -> Words:
        """pfns with and without frames."""
        return ORDERS[order](self.about.pages, count)

    def mixed_pfns(self, count: int, part: float) -> Words:
        """pfns at random, of which this part have no frame."""
        pfns = self.pfns("random", count)
        rng = np.random.default_rng(2)
        unit = self.about.unit
        missing = np.setdiff1d(np.arange(unit, dtype=np.uint64), self.present)
        places = np.flatnonzero(rng.random(count) < part)
        repeats = rng.integers(max(self.about.pages // unit, 1), size=len(places), dtype=np.uint64)
        pfns[places] = repeats * np.uint64(unit) + rng.choice(missing, len(places))
        return pfns


def guest(shape: str, size: str) -> ShapedGuest | None:
    """The guest of a shape that is made up, or of a domain: ``xen417-dom0 0``; None if its dump is
    absent."""
    if shape in MADE_UP:
        entries = MADE_UP[shape](np.random.default_rng(1))
    else:
        name, _, number = shape.rpartition(" ")
        vmcore = real_dump(name)
        if vmcore is None:
            return None
        entries = real_entries(vmcore, int(number))
    return ShapedGuest(write_shape(shape, size, entries))


def write_shape(shape: str, size: str, entries: Words) -> About:
    """Writes a guest with these entries, repeated up to the size, unless it exists."""
    name = f"shape-{shape}-{size}".replace(" ", "-")
    path, note = folder() / f"{name}.vmcore", folder() / f"{name}.json"
    if note.is_file() and path.is_file():
        known = json.loads(note.read_text())
        if known.keys() == {field.name for field in fields(About)}:
            return About(**known)
    folder().mkdir(parents=True, exist_ok=True)
    pages = SIZES[size]
    # Whole leaf pages: the last one of a real P2M has no more entries.
    unit = min(len(entries) // ENTRIES * ENTRIES, pages)
    tables = Tables()
    list_list = tables.reserve(1)
    leaves = tables.add(entries[:unit])
    missing = tables.add(np.full(ENTRIES, INVALID))
    missing_list = tables.add(np.full(ENTRIES, missing[0]))
    lists = tables.add(padded(np.resize(leaves, pages // ENTRIES), missing[0]))
    top = np.full(ENTRIES, missing_list[0])
    top[: len(lists)] = lists
    tables.put(list_list, top)
    write(path, tables, Shape(pages, pages, 1, 1))
    about = About(str(path.resolve()), shape, size, pages, unit, list_list)
    note.write_text(json.dumps(asdict(about)))
    return about


def shapes(*, missing: Callable[[str], None] = say) -> Iterator[str]:
    """The names of all shapes; tells which dumps are missing."""
    yield from MADE_UP
    for name, numbers in REAL.items():
        if real_dump(name) is None:
            missing(f"P2M of {name}: the dump is not there, or not unpacked (XKDUMP_DUMPS)")
            continue
        yield from (f"{name} {number}" for number in numbers)
