"""Too little memory for what a file claims ends in MemoryError, or a message and an exit status."""

import bz2
import functools
import gzip
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from xenkdump_forge import write_dump

PAGE = 4096
#: MiB of address space in addition to what the process has.
LIMITS = (0, 8, 24, 4000)

#: Opens a file within a limit on what this process has already.
_API = """
import resource, sys
from xenkdump_fast._native import Dump, DumpError, Image, Symbols
what, path, more = sys.argv[1], sys.argv[2], int(sys.argv[3]) << 20
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))
try:
    if what == "dump":
        dump = Dump(path)
        dump.memory_held
        len(dump.segments)
    elif what == "map":
        symbols = Symbols.from_map(path)
        assert symbols["s7"] == 0xFFFFFFFF80000007
        assert symbols.lookup(0xFFFFFFFF80000007).name == "s7"
    else:
        image = Image(path)
        len(image.sections())
    print("read")
except MemoryError as error:
    print("MemoryError", error)
except DumpError as error:
    print("DumpError", error)
"""


def run(*words: str | Path | int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False
    )


def flattened(path: Path) -> None:
    """300,000 blocks, each of which overlaps the next."""
    block = bytearray(18)
    with path.open("wb") as file:
        file.write((b"makedumpfile\0\0\0\0" + struct.pack(">2q", 1, 1)).ljust(PAGE, b"\0"))
        for i in range(300_000):
            struct.pack_into(">2q", block, 0, i, 2)
            file.write(block)


def lime(path: Path) -> None:
    """100,000 ranges that do not adjoin."""
    with path.open("wb") as file:
        for i in range(100_000):
            file.write(struct.pack("<IIQQ8x", 0x4C694D45, 1, i * 32, i * 32 + 15) + bytes(16))


def symbol_map(path: Path) -> None:
    """200,000 symbols."""
    with path.open("w") as file:
        file.writelines(f"{0xFFFFFFFF80000000 + i:x} T s{i}\n" for i in range(200_000))


def image(size: int) -> bytes:
    """An ELF file for x86_64 without sections, and bytes that cannot be compressed."""
    header = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHI", 2, 62, 1)
    header += struct.pack("<3QI6H", 0, 0, 0, 0, 64, 56, 0, 64, 0, 0)
    return header + random.Random(0).randbytes(size)


def gzip_image(path: Path) -> None:
    """Its unpacked size is in its last bytes."""
    path.write_bytes(gzip.compress(image(48 << 20), 0))


def bzip2_image(path: Path) -> None:
    """Its decoder needs 4 MB."""
    path.write_bytes(bz2.compress(image(1 << 20)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("what", "write", "last"),
    [
        ("dump", flattened, "DumpError"),
        ("dump", lime, "read"),
        ("map", symbol_map, "read"),
        ("image", gzip_image, "read"),
        ("image", bzip2_image, "read"),
    ],
    ids=["flattened", "lime", "map", "gzip", "bzip2"],
)
def test_large_tables(tmp_path: Path, what: str, write: object, last: str) -> None:
    path = tmp_path / "file"
    assert callable(write)
    write(path)
    ends = []
    for more in LIMITS:
        ran = run("-c", _API, what, path, more)
        assert ran.returncode == 0, (more, ran.returncode, ran.stderr)
        assert ran.stderr == ""
        ends.append(ran.stdout.split()[0])
    assert ends[0] == "MemoryError"
    assert ends[-1] == last
    # More memory is never worse.
    assert ends == sorted(ends, key=lambda end: end != "MemoryError")


COMMANDS: list[Sequence[str]] = [
    ("bt", "-a", "vmlinux", "vmcore"),
    ("ps", "vmlinux", "vmcore"),
    ("check", "vmlinux", "vmcore"),
    ("domains", "vmcore"),
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_commands(tmp_path: Path, command: Sequence[str]) -> None:
    """From where Python itself starts to where the command has all that it needs."""
    write_dump(tmp_path)
    for limit in (64 << 20, 80 << 20, 160 << 20, 700 << 20):
        ran = subprocess.run(
            [sys.executable, "-m", "xenkdump_fast", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_AS, (limit, limit)),
            check=False,
        )
        assert ran.returncode in (0, 1, 3), (limit, ran.returncode, ran.stderr)
        assert "panicked" not in ran.stderr
        assert "Traceback" not in ran.stderr
        assert (ran.returncode == 0) == (ran.stdout != ""), ran.stderr
        assert ran.returncode == 0 or ran.stderr
