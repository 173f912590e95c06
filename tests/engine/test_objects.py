"""Reads of small objects at many addresses, whose memory is prefetched: at the end of the file,
beside addresses without memory, and in a file that is truncated."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from xenkdump_fast._native import STATUS, AddressSpace, Dump

PAGE = 4096
PAGES = 700
#: Machine address of the first page, whose bytes are at offset PAGE of the file.
START = 0x7FF_F000
#: Members of a struct of 200 bytes: in several cache lines, out of order, and next to each other.
MEMBERS = [("last", 192, 8), ("first", 0, 8), ("second", 8, 4), ("middle", 100, 16)]
SPAN = 200


def contents() -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, PAGES * PAGE, dtype=np.uint8)


def write(path: Path, held: int) -> None:
    """One segment, of which the file has the first ``held`` bytes."""
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = PAGES * PAGE
    load = struct.pack("<IIQQQQQQ", 1, 7, PAGE, 0, START, size, size, 0)
    path.write_bytes((ident + header + load).ljust(PAGE, b"\0") + contents()[:held].tobytes())


def places(held: int, size: int) -> np.ndarray:
    """Offsets of objects from the start of the segment: at random; around the end of what is held,
    and of the page before it; before and after the segment."""
    rng = np.random.default_rng(size)
    near = np.arange(-2 * size - 70, 70)
    page = (held - 1) // PAGE * PAGE
    edges = [near + held, near + page, near + PAGES * PAGE, near]
    scattered = rng.integers(0, PAGES * PAGE, 3000)
    return rng.permutation(np.concatenate([scattered, *edges]))


def check(space: AddressSpace, held: int, kind: str, sizes: tuple[int, ...], threads: int) -> None:
    """Compares rows with what the file holds. Others in the segment have the status ``kind``."""
    known = contents()[:held]
    padded = np.concatenate([known, np.zeros(2 * PAGE, np.uint8)])
    for size in (*sizes, SPAN):
        offsets = places(held, size)
        addresses = (offsets + START).astype(np.uint64)
        status = np.full(len(offsets), 255, np.uint8)
        if size == SPAN:
            found = space.read_struct_many(addresses, MEMBERS, status=status, threads=threads)
            rows = found.view(np.uint8).reshape(len(offsets), -1)
            columns = np.concatenate([np.arange(at, at + n) for _, at, n in MEMBERS])
        else:
            rows = space.read_many(addresses, size, status=status, threads=threads)
            columns = np.arange(size)
        whole = (offsets >= 0) & (offsets + size <= held)
        bytes_at = np.clip(offsets, 0, held)[:, None] + columns
        expected = np.where(whole[:, None], padded[bytes_at], 0)
        assert np.array_equal(rows, expected)
        assert np.array_equal(status == 0, whole)
        inside = ~whole & (offsets >= 0) & (offsets + size <= PAGES * PAGE)
        assert {STATUS[code] for code in status[inside]} == ({kind} if inside.any() else set())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("less", [0, 1, 8, 63, 64, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 100])
def test_objects_at_the_end_of_the_file(tmp_path: Path, less: int, threads: int) -> None:
    held = PAGES * PAGE - less
    write(tmp_path / "vmcore", held)
    space = Dump(str(tmp_path / "vmcore")).machine
    check(space, held, "truncated", (1, 4, 8, 24, 64, 100, PAGE), threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("left", [1, PAGE, PAGE + 1004, 333 * PAGE, 333 * PAGE + 1004])
def test_objects_of_a_file_that_was_truncated(tmp_path: Path, left: int, threads: int) -> None:
    """Its pages are in the mapping, and prefetched, but gone: a batch notices when it copies."""
    path = tmp_path / "vmcore"
    for size in (8, 64, SPAN):
        write(path, PAGES * PAGE)
        space = Dump(str(path)).machine
        check(space, PAGES * PAGE, "", (), threads)
        os.truncate(path, PAGE + left)
        # The first batch loses the mapping, the second starts without it.
        for _ in range(2):
            check(space, left, "truncated", (size,) if size != SPAN else (), threads)
