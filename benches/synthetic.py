"""Writes the synthetic dumps for the benchmarks: sparse files with only tables on disk.

A guest has a P2M (a frame-list tree) and a root that maps all of its memory twice: from DIRECT on
by 4 KiB pages and from HUGE on by 2 MiB pages. The smallest guest also has a PAE root, which maps
half of its memory in both ways. The frames are in unordered extents of 2 MiB, as Xen allocates
them; an eighth of the extents consist of scattered single frames. Frames are holes in the
file, which read as zeros. The first page of the tables is the frame-list list, the second is the
root.
"""

import argparse
import json
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGE = 4096
ENTRIES = 512
#: The mappings of the guest's memory by 4 KiB pages and by 2 MiB pages.
DIRECT = 0xFFFF_8880_0000_0000
HUGE = 0xFFFF_C000_0000_0000
#: The same under PAE, and the number of pages in each mapping.
PAE_DIRECT, PAE_HUGE, PAE_PAGES = 0, 0x8000_0000, 1 << 19
#: First mfn of the tables, and of the guest's own frames.
TABLES = 0x1000
FRAMES = 1 << 22
INVALID = np.uint64(2**64 - 1)
#: Present, writable, accessed, dirty; a large page.
FLAGS, LARGE = np.uint64(0x63), np.uint64(0x80)

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a guest, and the segments of its host's dump."""

    #: pfns of the guest; a power of two.
    pages: int
    #: pfns that have a frame, spread evenly in runs of 512 P2M pages.
    present: int
    #: Memory of the host, without the tables: the number of PT_LOADs, and of 2 MiB extents in each.
    #: One extent between two PT_LOADs is not in the dump.
    segments: int
    extents: int


SHAPES = {
    "4g": Shape(1 << 20, 1 << 20, 8, 256),
    "64g": Shape(1 << 24, 1 << 24, 64, 512),
    # A host of 1 TiB and a guest of 512 GiB, the maximum of a frame-list tree.
    "1t": Shape(1 << 27, 1 << 23, 8000, 65),
}


@dataclass(frozen=True, slots=True)
class SyntheticGuest:
    """A synthetic dump and its contents."""

    path: str
    pages: int
    present: int
    frame_list: int
    #: Machine addresses of the top-level tables; 0 without a PAE table.
    root: int
    pae_root: int


def extents_of(shape: Shape, rng: np.random.Generator) -> Words:
    """The numbers of the host's extents that belong to the guest, in the order of its pfns."""
    first = np.arange(shape.segments, dtype=np.uint64) * np.uint64(shape.extents + 1)
    all_of: Words = np.add.outer(first, np.arange(shape.extents, dtype=np.uint64)).ravel()
    rng.shuffle(all_of)
    return all_of[: shape.present // ENTRIES]


def frames_of(shape: Shape, rng: np.random.Generator) -> Words:
    """The mfn of each present pfn."""
    extents = extents_of(shape, rng)
    whole = len(extents) - len(extents) // 8
    within = np.arange(ENTRIES, dtype=np.uint64)
    mfns: Words = np.add.outer(extents * np.uint64(ENTRIES), within).ravel()
    rng.shuffle(mfns[whole * ENTRIES :])
    return mfns + np.uint64(FRAMES)


def write_guest(folder: Path, name: str) -> SyntheticGuest:
    """Writes the dump of this name, unless it exists already."""
    shape = SHAPES[name]
    path = folder / f"guest-{name}.vmcore"
    about = folder / f"guest-{name}.json"
    if about.is_file() and path.is_file():
        known = json.loads(about.read_text())
        # A guest from an earlier version of this file is rewritten.
        if known.keys() == {field.name for field in fields(SyntheticGuest)}:
            return SyntheticGuest(**known)
    folder.mkdir(parents=True, exist_ok=True)
    mfns = frames_of(shape, np.random.default_rng(shape.pages))
    tables = Tables()
    list_list, root = tables.reserve(1), tables.reserve(1)
    frame_list(tables, list_list, shape, mfns)
    small, large = directory(tables, mfns), large_pages(shape)
    top = np.zeros(ENTRIES, np.uint64)
    for base, level2 in ((DIRECT, small), (HUGE, large)):
        entries = root_entries(tables, shape, level2)
        top[base >> 39 & 511 : (base >> 39 & 511) + len(entries)] = entries
    tables.put(root, top)
    # A larger host has frames beyond the 36 bits that memflow supports under PAE.
    pae_root = pae(tables, small, large) * PAGE if shape.pages == 2 * PAE_PAGES else 0
    write(path, tables, shape)
    guest = SyntheticGuest(
        str(path.resolve()), shape.pages, shape.present, list_list, root * PAGE, pae_root
    )
    about.write_text(json.dumps(asdict(guest)))
    return guest


class Tables:
    """Consecutive pages of 8-byte words, starting at mfn TABLES."""

    def __init__(self) -> None:
        self.parts: dict[int, Words] = {}
        self.next = TABLES

    def reserve(self, pages: int) -> int:
        """Reserves pages and returns the first mfn."""
        first = self.next
        self.next += pages
        return first

    def put(self, mfn: int, words: Words) -> None:
        """Sets the words of pages that were reserved."""
        self.parts[mfn] = words

    def add(self, words: Words) -> Words:
        """Adds whole pages of words and returns the mfn of each."""
        pages = len(words) // ENTRIES
        first = self.reserve(pages)
        self.put(first, words)
        return np.arange(first, first + pages, dtype=np.uint64)


def spread(shape: Shape) -> Words:
    """The numbers of the present runs of 512 x 512 pfns."""
    run = ENTRIES * ENTRIES
    present = max(shape.present // run, 1)
    step = max(shape.pages // run, 1) // present
    return np.arange(present, dtype=np.uint64) * np.uint64(step)


def frame_list(tables: Tables, list_list: int, shape: Shape, mfns: Words) -> None:
    """The tree. Absent ranges refer to shared pages, as in pvops kernels."""
    missing = tables.add(np.full(ENTRIES, INVALID))
    missing_frames = tables.add(np.full(ENTRIES, missing[0]))
    leaves = tables.add(mfns)
    lists = tables.add(padded(leaves, missing[0]))
    top = np.full(ENTRIES, missing_frames[0])
    top[spread(shape)] = lists
    tables.put(list_list, top)


def padded(words: Words, fill: np.uint64) -> Words:
    """Whole pages of words."""
    return np.concatenate([words, np.full(-len(words) % ENTRIES, fill, np.uint64)])


def directory(tables: Tables, mfns: Words) -> Words:
    """Entries of level 2, and their tables of level 1, that map frames one by one."""
    level1 = tables.add(mfns << np.uint64(12) | FLAGS)
    return level1 << np.uint64(12) | FLAGS


def large_pages(shape: Shape) -> Words:
    """Entries of level 2 that map the same memory by 2 MiB pages."""
    extents = extents_of(shape, np.random.default_rng(1))
    return (extents * ENTRIES + np.uint64(FRAMES)) << np.uint64(12) | FLAGS | LARGE


def root_entries(tables: Tables, shape: Shape, level2: Words) -> Words:
    """Entries of a root that map the present pfns by these entries of level 2."""
    zero = np.uint64(0)
    # Each page of level 2 maps one run, at the run's pfns.
    tables2 = tables.add(padded(level2, zero)) << np.uint64(12) | FLAGS
    runs = shape.pages // (ENTRIES * ENTRIES) or 1
    level3 = np.zeros(runs, np.uint64)
    level3[spread(shape)] = tables2
    return tables.add(padded(level3, zero)) << np.uint64(12) | FLAGS


def pae(tables: Tables, small: Words, large: Words) -> int:
    """The mfn of a root of four entries: two for pages of 4 KiB, two for pages of 2 MiB."""
    half = PAE_PAGES // ENTRIES
    level2 = tables.add(np.concatenate([small[:half], large[:half]]))
    # Only PRESENT and the address may be set in such an entry.
    return int(tables.add(padded(level2 << np.uint64(12) | np.uint64(1), np.uint64(0)))[0])


def write(path: Path, tables: Tables, shape: Shape) -> None:
    """An ELF64 vmcore: the tables in one PT_LOAD, the frames in many."""
    stride, size = (shape.extents + 1) * ENTRIES, shape.extents * ENTRIES
    loads = [(TABLES, tables.next - TABLES)]
    loads += [(FRAMES + i * stride, size) for i in range(shape.segments)]
    note = struct.pack("<3I8s", 5, 0, 0, b"BENCH\0\0\0")
    headers = 64 + 56 * (len(loads) + 1)
    offset = (headers + len(note) + PAGE - 1) // PAGE * PAGE
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(loads) + 1, 0, 0, 0
    )
    programs = [struct.pack("<IIQQQQQQ", 4, 0, headers, 0, 0, len(note), len(note), 0)]
    at = offset
    for mfn, pages in loads:
        size = pages * PAGE
        programs.append(struct.pack("<IIQQQQQQ", 1, 7, at, 0, mfn * PAGE, size, size, 0))
        at += size
    with path.open("wb") as file:
        file.write(head + b"".join(programs) + note)
        for mfn, words in tables.parts.items():
            file.seek(offset + (mfn - TABLES) * PAGE)
            words.tofile(file)
        file.truncate(at)


def main() -> None:
    """Writes one dump, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", choices=[*SHAPES, []], default=[])
    options = parser.parse_args()
    for name in options.names or SHAPES:
        print(write_guest(options.folder, name))


if __name__ == "__main__":
    main()
