"""Real kernels as vmlinuz, as stripped vmlinux and as System.map."""

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.linux import printk
from xenkdump_fast.linux.system import Linux
from xenkdump_forge.boot import bzimage

from .conftest import VMLINUX, X86_64

pytestmark = pytest.mark.real

DumpFile = Callable[[str], str]
DUMPS = ["bare-x86_64", "linux73-bare", "xen417-dom0"]
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB = 0, 1, 2
#: Symbols that scripts/mksysmap leaves out of a System.map.
LEFT_OUT = re.compile(r" [aNUw] |__crc_| \$[adt]| \.L")


@pytest.fixture(autouse=True)
def no_debug_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed on this machine."""
    monkeypatch.setattr("xenkdump_fast.session.debug_files._debug_places", lambda *_: iter(()))


def stripped(path: str) -> bytes:
    """A 64-bit ELF file whose symbols and sections that are not loaded are hidden."""
    data = bytearray(Path(path).read_bytes())
    (table,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    for i in range(1, count):
        kind, flags = struct.unpack_from("<IQ", data, table + 64 * i + 4)
        if i != names and flags & 2 == 0 and kind in (SHT_PROGBITS, SHT_SYMTAB):
            struct.pack_into("<I", data, table + 64 * i + 4, SHT_NULL)
    return bytes(data)


def contents(kernel: Linux) -> Any:
    """The log, and the frames of every task, named as ``bt`` does.

    The vmlinux files of the dumps have no code, by which labels are told from functions.
    """

    def name(pc: int) -> str | None:
        nearest = kernel.code.nearest(pc)
        return None if nearest is None else nearest.name

    traces = {
        task.address: [
            (frame.pc, frame.sp, name(frame.pc), frame.how)
            for frame in kernel.backtrace(task).frames
        ]
        for task in kernel.tasks()
    }
    return list(printk.lines(kernel)), traces


@pytest.mark.parametrize("name", DUMPS)
def test_a_vmlinuz(dump_file: DumpFile, tmp_path: Path, name: str) -> None:
    vmlinux = dump_file(VMLINUX.get(name, X86_64))
    (tmp_path / "vmlinuz").write_bytes(bzimage.write(stripped(vmlinux), "gzip"))
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        kernel = dump.domain(0, tmp_path / "vmlinuz").kernel
        assert (kernel.image.symbol_source, kernel.image.is_memory) == ("kallsyms", False)
        assert contents(kernel) == contents(dump.domain(0, vmlinux).kernel)


@pytest.mark.parametrize("name", DUMPS)
def test_a_map(dump_file: DumpFile, tmp_path: Path, name: str) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    vmlinux = dump_file(VMLINUX.get(name, X86_64))
    made = subprocess.run(["nm", "-n", vmlinux], capture_output=True, text=True, check=True)
    lines = (line for line in made.stdout.splitlines() if not LEFT_OUT.search(line))
    path = tmp_path / "System.map"
    path.write_text("\n".join(lines) + "\n")
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        domain = dump.domain(0, path)
        assert domain.kernel.image.symbol_source == "map"
        assert not any("cannot verify that" in text for text in domain.warnings)
        assert contents(domain.kernel) == contents(dump.domain(0, vmlinux).kernel)
    other = "linux73-bare" if name != "linux73-bare" else "bare-x86_64"
    wrong = xk.open(dump_file(f"{other}/vmcore"))
    with pytest.raises(xk.MismatchError, match=r"not the map of the kernel"):
        wrong.domain(0, path)


@pytest.mark.parametrize("name", DUMPS)
def test_another_build(dump_file: DumpFile, tmp_path: Path, name: str) -> None:
    other = "vmlinux-6.12.117"
    (tmp_path / "vmlinuz").write_bytes(bzimage.write(stripped(dump_file(other)), "gzip"))
    dump = xk.open(dump_file(f"{name}/vmcore"))
    with pytest.raises(xk.MismatchError, match=r"6\.12\.117.* runs (6\.1\.0-56|7\.3)"):
        dump.domain(0, tmp_path / "vmlinuz")
