"""The segments of a domain's ELF file are in an order that a binary search can use."""

import struct
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast.export import Request, of_domain, write
from xenkdump_fast.export.segments import cut, sort
from xenkdump_forge import write_dump

PAGE = 4096
PT_LOAD = 1


def loads(path: Path) -> list[tuple[int, int, int, int]]:
    """``p_paddr``, ``p_offset``, ``p_filesz`` and ``p_vaddr`` of each PT_LOAD, in their order."""
    data = path.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for at in range(start, start + size * count, size):
        kind, _, offset, virtual, physical, in_file, in_memory, _ = struct.unpack_from(
            "<IIQQQQQQ", data, at
        )
        if kind == PT_LOAD:
            assert in_file == in_memory
            found.append((physical, offset, in_file, virtual))
    return found


def test_a_binary_search_finds_all_memory(tmp_path: Path) -> None:
    """As volatility3's Elf64Layer does it."""
    made = write_dump(tmp_path, "modern")
    with xk.open(made.vmcore) as dump:
        domain = dump.domain(0, made.vmlinux)
        request = Request(str(tmp_path / "out"), "elf")
        write(of_domain(domain, request), request)
        runs = domain.as_bare().runs().tolist()
    segments = loads(tmp_path / "out")
    images = [each for each in segments if each[3] >= 0xFFFF_FFFF_8000_0000]
    assert images
    # There is memory above the image.
    assert images[-1][0] + images[-1][2] < sum(runs[-1]) * PAGE
    linear = [each for each in segments if each not in images]
    for first, count in runs:
        for address in range(first * PAGE, (first + count) * PAGE, PAGE):
            place = bisect_right(segments, (address, 1 << 64))
            physical, offset, size, _ = segments[place - 1]
            assert physical <= address < physical + size
            # The same bytes of the file as by the linear mapping.
            (expected,) = (at + address - p for p, at, n, _ in linear if p <= address < p + n)
            assert offset + address - physical == expected


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([[0, 10]], [[0, 6], [6, 4]]),
        ([[0, 6], [8, 2]], [[0, 6], [8, 2]]),
        ([[6, 4]], [[6, 4]]),
        ([[0, 1], [5, 9]], [[0, 1], [5, 1], [6, 8]]),
        ([], []),
    ],
)
def test_a_cut_where_the_image_ends(runs: list[list[int]], expected: list[list[int]]) -> None:
    found = cut(np.array(runs, np.uint64).reshape(-1, 2), (0xFFFF_FFFF_8100_0000, 2, 4))
    assert found.dtype == np.uint64
    assert found.tolist() == expected


@pytest.mark.parametrize(("offset", "value"), [(4, b"\x01"), (56, b"\xff\xff")])
def test_files_that_are_not_sorted(offset: int, value: bytes, tmp_path: Path) -> None:
    """ELF32, and more headers than the file header can count."""
    data = bytearray(b"\x7fELF\x02" + bytes(1019))
    data[offset : offset + len(value)] = value
    (tmp_path / "out").write_bytes(data)
    sort(str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data
