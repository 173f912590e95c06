"""A vmlinux without the contents of loaded sections, and one with BTF of an unknown generation."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import Image
from xenkdump_fast.linux.backtrace import Trace

pytestmark = pytest.mark.real

SHF_ALLOC = 2
SHT_NOTE, SHT_NOBITS = 7, 8
#: A section header: name, type, flags, address, offset, size, and what follows.
SECTION = struct.Struct("<IIQQQQ24x")
DUMPS = [
    ("bare-x86_64", "vmlinux-6.1.0-56-amd64"),
    ("linux73-bare", "vmlinux-7.3.4"),
    ("xen417-dom0", "vmlinux-6.1.0-56-amd64"),
]


class Vmlinux:
    """A copy of a vmlinux in memory."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.data = bytearray(Path(source).read_bytes())
        (table,) = struct.unpack_from("<Q", self.data, 40)
        (count,) = struct.unpack_from("<H", self.data, 60)
        names = [name for name, *_ in Image(source).sections()]
        #: Offsets of section headers by name; the first section has none.
        self.headers = {
            name: table + (i + 1) * SECTION.size
            for i, name in zip(range(count - 1), names, strict=True)
        }

    def only_keep_debug(self) -> None:
        """Does what ``objcopy --only-keep-debug`` does to loaded sections: notes stay."""
        for at in self.headers.values():
            _, kind, flags, *_ = SECTION.unpack_from(self.data, at)
            if flags & SHF_ALLOC and kind != SHT_NOTE:
                struct.pack_into("<I", self.data, at + 4, SHT_NOBITS)

    def move(self, name: str, address: int) -> None:
        """Changes the address of a section."""
        struct.pack_into("<Q", self.data, self.headers[name] + 16, address)

    def offset(self, name: str) -> int:
        """The file offset of a section."""
        return int(SECTION.unpack_from(self.data, self.headers[name])[4])

    def save(self, path: Path) -> str:
        path.write_bytes(self.data)
        return str(path)


def traces(domain: xk.Domain) -> dict[int, Trace]:
    return {task.address: domain.kernel.backtrace(task) for task in domain.kernel.tasks()}


@pytest.mark.parametrize(("name", "vmlinux"), DUMPS)
def test_only_keep_debug(
    dump_file: Callable[[str], str], tmp_path: Path, name: str, vmlinux: str
) -> None:
    """BTF, ORC and its header are read from memory."""
    dump = xk.open(dump_file(f"{name}/vmcore"))
    whole = dump.domain(0, dump_file(vmlinux))
    copy = Vmlinux(dump_file(vmlinux))
    copy.only_keep_debug()
    stripped = dump.domain(0, copy.save(tmp_path / "vmlinux"))
    with pytest.raises(xk.AbsentError):
        stripped.kernel.image.section(".orc_unwind")
    assert traces(stripped) == traces(whole)
    assert stripped.kernel.tasks() == whole.kernel.tasks()
    assert any(frame.how == "orc" for trace in traces(stripped).values() for frame in trace.frames)
    assert stripped.warnings == whole.warnings


def test_tables_that_are_nowhere(dump_file: Callable[[str], str], tmp_path: Path) -> None:
    dump = xk.open(dump_file("bare-x86_64/vmcore"))
    copy = Vmlinux(dump_file("vmlinux-6.1.0-56-amd64"))
    copy.only_keep_debug()
    copy.move(".orc_unwind", 0xFFFF_FFFF_0000_0000)
    domain = dump.domain(0, copy.save(tmp_path / "vmlinux"))
    traces(domain)
    start = ".orc_unwind is only in the kernel's memory, where it cannot be read: "
    assert [text.startswith(start) for text in domain.warnings] == [True]


@pytest.mark.parametrize(
    ("at", "value", "warning"),
    [
        (2, 2, "unknown BTF version 2: all types fit the known version"),
        (3, 1, "unknown BTF flags 0x1: all types fit the known version"),
    ],
)
def test_btf_of_an_unknown_version(
    dump_file: Callable[[str], str], tmp_path: Path, at: int, value: int, warning: str
) -> None:
    dump = xk.open(dump_file("bare-x86_64/vmcore"))
    copy = Vmlinux(dump_file("vmlinux-6.1.0-56-amd64"))
    copy.data[copy.offset(".BTF") + at] = value
    domain = dump.domain(0, copy.save(tmp_path / "vmlinux"))
    whole = dump.domain(0, copy.source)
    assert domain.kernel.tasks() == whole.kernel.tasks()
    assert domain.warnings == [f"{domain.kernel.image.path}: {warning}"]


def test_btf_that_cannot_be_read(dump_file: Callable[[str], str], tmp_path: Path) -> None:
    """The memory of the kernel has its BTF, too."""
    dump = xk.open(dump_file("bare-x86_64/vmcore"))
    copy = Vmlinux(dump_file("vmlinux-6.1.0-56-amd64"))
    start = copy.offset(".BTF")
    # The kind of the first type is unknown, and its data is not a multiple of its count.
    struct.pack_into("<I", copy.data, start + 24 + 4, 30 << 24 | 3)
    struct.pack_into("<I", copy.data, start + 24, 0x7FFF_FFFF)
    path = copy.save(tmp_path / "vmlinux")
    with pytest.raises(xk.AbsentError, match="no DWARF, and its BTF is not used: "):
        Image(path).types()
    whole = dump.domain(0, copy.source)
    assert dump.domain(0, path).kernel.tasks() == whole.kernel.tasks()
    # Without it, layouts are inferred.
    copy.only_keep_debug()
    address = whole.kernel.image.symbols()["__stop_BTF"]
    table = copy.offset(".symtab")
    at = copy.data.index(struct.pack("<Q", address), table)
    struct.pack_into("<Q", copy.data, at, 0)
    domain = dump.domain(0, copy.save(tmp_path / "without"))
    assert [task.pid for task in domain.kernel.tasks()] == [
        task.pid for task in whole.kernel.tasks()
    ]
    assert any("were inferred from memory" in text for text in domain.warnings)
