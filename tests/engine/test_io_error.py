"""A disk with read errors in the middle of the dump, and a file that cannot be mapped."""

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from xenkdump_fast import MemoryFault
from xenkdump_fast._native import Dump

PAGE = 4096
PAGES = 64
#: Machine address of the first page, whose bytes are at offset 4096 of the file.
START = 0x10_0000
#: The first unreadable page, and the first readable one after it.
FIRST_BAD, FIRST_GOOD = 40, 50
EIO_STATUS = 13


def vmcore() -> bytes:
    """One segment; each page is filled with its own number."""
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = PAGES * PAGE
    load = struct.pack("<IIQQQQQQ", 1, 7, PAGE, 0, START, size, size, 0)
    pages = b"".join(bytes([number + 1]) * PAGE for number in range(PAGES))
    return (ident + header + load).ljust(PAGE, b"\0") + pages


@contextmanager
def failing(tmp_path: Path, whole: int, *how: str) -> Iterator[Path]:
    """The dump on a disk with read errors from page FIRST_BAD to before page ``whole``."""
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        pytest.skip("mounting a file system needs /dev/fuse and root")
    plain, folder = tmp_path / "plain", tmp_path / "mounted"
    plain.write_bytes(vmcore())
    folder.mkdir()
    fails = [str((1 + page) * PAGE) for page in (FIRST_BAD, whole)]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.failing_fs", folder, plain, *fails, *how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        if server.stdout.readline() != "ready\n":
            problem = server.stderr.read()
            if "cannot mount" in problem:
                pytest.skip(f"cannot mount a file system: {problem[-200:]}")
            raise AssertionError(problem)
        yield folder / "file"
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(folder), 2)
        server.kill()
        server.communicate()


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("whole", "how", "mapped"),
    [
        (FIRST_GOOD, "cached", True),
        # Opening a file touches its last page, which is unreadable here: nothing is mapped.
        (PAGES, "cached", False),
        (FIRST_GOOD, "direct", False),
    ],
    ids=["in the middle", "to the end", "cannot be mapped"],
)
def test_read_errors(tmp_path: Path, whole: int, how: str, mapped: bool) -> None:
    intact = tmp_path / "intact"
    intact.write_bytes(vmcore())
    other = Dump(str(intact)).machine
    with failing(tmp_path, whole, how) as path:
        memory = Dump(str(path)).machine
        assert is_mapped(path) == mapped
        at = START + FIRST_BAD * PAGE
        assert memory.u8(at - 1) == FIRST_BAD
        with pytest.raises(MemoryFault, match="Input/output error") as raised:
            memory.read(at + 8, 16)
        assert raised.value.address == at + 8
        # The mapping is not used from here on; readable pages remain readable.
        assert not is_mapped(path)
        before = bytes([FIRST_BAD - 1]) * PAGE + bytes([FIRST_BAD]) * PAGE
        assert memory.read(at - 2 * PAGE, 2 * PAGE) == before
        with pytest.raises(MemoryFault, match="Input/output error"):
            memory.read(at - 1, 2)
        numbers = np.arange(PAGES)
        status = np.zeros(PAGES, dtype=np.uint8)
        addresses = (START + numbers * PAGE).astype(np.uint64)
        rows = memory.read_many(addresses, 8, status=status)
        lost = (numbers >= FIRST_BAD) & (numbers < whole)
        assert (status == np.where(lost, EIO_STATUS, 0)).all()
        assert (rows[~lost] == numbers[~lost, None] + 1).all()
        # Another dump in the same process is unaffected.
        assert other.read(at, 4) == bytes([FIRST_BAD + 1]) * 4


@pytest.mark.timeout(60)
def test_read_errors_in_a_batch(tmp_path: Path) -> None:
    """A batch that encounters the error is repeated with reads, which report missing data."""
    with failing(tmp_path, FIRST_GOOD) as path:
        memory = Dump(str(path)).machine
        assert is_mapped(path)
        status = np.zeros(PAGES, dtype=np.uint8)
        numbers = np.arange(PAGES)
        addresses = (START + numbers * PAGE).astype(np.uint64)
        rows = memory.read_many(addresses, 8, status=status)
        lost = (numbers >= FIRST_BAD) & (numbers < FIRST_GOOD)
        assert (status == np.where(lost, EIO_STATUS, 0)).all()
        assert (rows[~lost] == numbers[~lost, None] + 1).all()
