"""A kdump-compressed dump of 1 TiB: real headers, bitmaps and descriptors, in a sparse file.

All pages are in the bitmaps. The pages of some regions have descriptors and data; the rest of
the table of descriptors is a hole.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from .synthetic import PAGE, Words

#: Pages of the machine, and of each of the regions that have data.
PAGES = 1 << 28
REGIONS, REGION = 16, 1 << 15
BITMAP = PAGES // 8
DESCRIPTORS = 2 * PAGE + 2 * BITMAP
DATA = DESCRIPTORS + 24 * PAGES
#: Different pages of data, which the pages of the regions share.
CONTENTS = 251


def regions() -> Words:
    """The first page of each region."""
    return np.arange(REGIONS, dtype=np.uint64) * np.uint64(PAGES // REGIONS)


def content(number: int) -> bytes:
    """A page of data."""
    return struct.pack("<QQ", number, number * number) * (PAGE // 16)


def write(path: Path) -> Path:
    """Writes the dump, unless it exists: 80 MB on disk."""
    if path.is_file() and path.stat().st_size > DATA:
        return path
    packed = [zlib.compress(content(number), 1) for number in range(CONTENTS)]
    offsets = np.cumsum([DATA, *map(len, packed)], dtype=np.uint64)
    kinds = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page", "<u8")])
    table = np.zeros(REGION, kinds)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(header())
        file.seek(PAGE)
        # phys_base, level, split, ..., and from version 6 on max_mapnr in 64 bits.
        file.write(struct.pack("<Qii2Q6Q3Q", 0, 0, 0, 0, 0, *[0] * 6, 0, 0, PAGES))
        file.seek(2 * PAGE)
        for _ in range(2 * BITMAP >> 20):
            file.write(b"\xff" * (1 << 20))
        for first in regions().tolist():
            numbers = (np.arange(first, first + REGION) % CONTENTS).astype(np.intp)
            table["offset"] = offsets[numbers]
            table["size"] = np.diff(offsets)[numbers]
            table["flags"] = 1
            file.seek(DESCRIPTORS + 24 * first)
            table.tofile(file)
        file.seek(DATA)
        file.write(b"".join(packed))
    part.rename(path)
    return path


def header() -> bytes:
    """The first block."""
    names = ("Linux", "synthetic", "release", "version", "x86_64", "(none)")
    out = b"KDUMP   " + struct.pack("<i", 6)
    out += b"".join(name.encode().ljust(65, b"\0") for name in names)
    blocks = 2 * BITMAP // PAGE
    return out.ljust(424, b"\0") + struct.pack("<6I", 1, PAGE, 1, blocks, PAGES, 0)
