"""Real dumps, unpacked once into a cache outside the tree, and reference data from other tools.

The dumps are in ``../shared/dumps`` beside the project, or in the folder XKDUMP_DUMPS. Tests that
need an absent dump are skipped with a reason.
"""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard

import xenkdump_fast
from xenkdump_fast import Domain

ROOT = Path(__file__).resolve().parents[2]
DUMPS = Path(os.environ.get("XKDUMP_DUMPS", ROOT.parent / "shared" / "dumps"))
CACHE = Path(os.environ.get("XKDUMP_CACHE", "/var/tmp/xkdump-dumps"))


@pytest.fixture(scope="session")
def dump_file() -> Callable[[str], str]:
    """``dump_file("xen417-dom0/vmcore")``: the path of the file, unpacked."""
    if not DUMPS.is_dir():
        pytest.skip(f"no real dumps in {DUMPS} (XKDUMP_DUMPS selects another folder)")

    def unpack(name: str) -> str:
        packed = DUMPS / f"{name}.zst"
        plain = DUMPS / name
        if plain.is_file():
            return str(plain)
        if not packed.is_file():
            pytest.skip(f"no real dump {packed}")
        status = packed.stat()
        target = CACHE / f"{status.st_size:x}-{name.replace('/', '-')}"
        if not target.is_file():
            CACHE.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.{os.getpid()}.part")
            _unpack(packed, part)
            part.rename(target)
        return str(target)

    return unpack


def _unpack(packed: Path, part: Path) -> None:
    """Writes the contents of ``packed``, leaving holes where they are zero."""
    reader = zstandard.ZstdDecompressor(max_window_size=2**31)
    zeros = bytes(1 << 16)
    try:
        with packed.open("rb") as source, part.open("wb") as sink:
            with reader.stream_reader(source) as stream:
                while block := stream.read(1 << 16):
                    if block == zeros[: len(block)]:
                        sink.seek(len(block), os.SEEK_CUR)
                    else:
                        sink.write(block)
            sink.truncate()
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@pytest.fixture(scope="session")
def truth() -> Callable[[str], Any]:
    """``truth("xen417-dom0/truth.json")``: reference data that other tools read from the dump."""

    def load(name: str) -> Any:
        path = DUMPS / name
        if not path.is_file():
            pytest.skip(f"no reference data: {path}")
        return json.loads(path.read_text())

    return load


#: The default vmlinux, and the exceptions by dump.
X86_64 = "vmlinux-6.1.0-56-amd64"
VMLINUX = {
    "linux73-bare": "vmlinux-7.3.4",
    "xen420-pv-pvh": "vmlinux-6.12.117",
    "bare-i386": "vmlinux-6.1.0-50-686",
    "bare-i386-pae": "vmlinux-6.1.0-50-686-pae",
}


@pytest.fixture(scope="session")
def domain(dump_file: Callable[[str], str]) -> Callable[[str], Domain]:
    """``domain("xen417-dom0")``: domain 0 of that dump, opened once."""

    @cache
    def opened(name: str) -> Domain:
        vmlinux = dump_file(VMLINUX.get(name, X86_64))
        return xenkdump_fast.open(dump_file(f"{name}/vmcore")).domain(0, vmlinux)

    return opened


@pytest.fixture(scope="session")
def crash() -> Callable[[str], str]:
    """``crash("xen417-dom0/crash/log.txt")``: the output of crash, without its wrong warnings."""

    def load(name: str) -> str:
        path = DUMPS / name
        if not path.is_file():
            pytest.skip(f"no output of crash: {path}")
        lines = path.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("WARNING: cpu"))

    return load
