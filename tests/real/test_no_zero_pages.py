"""Dumps without pages of zeros, as ``makedumpfile -E -d 1`` writes them: p_filesz < p_memsz."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import rendering
from xenkdump_fast import Domain, open
from xenkdump_fast.commands import bt, mod, ps
from xenkdump_fast.commands import sys as sys_command

pytestmark = pytest.mark.real

PAGE = 4096
PT_LOAD = 1
#: Size of the ELF header, where e_phoff and e_phnum are, and the program header of each class.
CLASSES = {1: (52, "<I", 28, 44, "<8I"), 2: (64, "<Q", 32, 56, "<IIQQQQQQ")}
#: Names of the fields of a program header, which are in another order in each class.
FIELDS = {
    1: ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align"),
    2: ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align"),
}
Header = dict[str, int]


def headers(data: bytes, kind: int) -> Iterator[Header]:
    _, word, phoff, phnum, layout = CLASSES[kind]
    (start,) = struct.unpack_from(word, data, phoff)
    (count,) = struct.unpack_from("<H", data, phnum)
    for i in range(count):
        values = struct.unpack_from(layout, data, start + i * struct.calcsize(layout))
        yield dict(zip(FIELDS[kind], values, strict=True))


def runs(data: bytes, header: Header) -> Iterator[Header]:
    """The segment in parts: pages with data, each followed by the pages of zeros behind it."""
    part: Header | None = None
    for at in range(0, header["filesz"], PAGE):
        step = min(PAGE, header["filesz"] - at)
        page = data[header["offset"] + at : header["offset"] + at + step]
        empty = page == bytes(step)
        if part is None or (not empty and part["memsz"] > part["filesz"]):
            if part is not None:
                yield part
            moved = {name: header[name] + at for name in ("offset", "paddr", "vaddr")}
            part = {**header, **moved, "filesz": 0, "memsz": 0}
        part["memsz"] += step
        if not empty:
            part["filesz"] += step
    if part is not None:
        yield part


def without_zero_pages(source: str, target: Path) -> None:
    data = Path(source).read_bytes()
    kind = data[4]
    size, word, phoff, phnum, layout = CLASSES[kind]
    parts: list[Header] = []
    for header in headers(data, kind):
        parts += runs(data, header) if header["type"] == PT_LOAD else [header]
    start = size + len(parts) * struct.calcsize(layout)
    with target.open("wb") as file:
        first = bytearray(data[:size])
        struct.pack_into(word, first, phoff, size)
        struct.pack_into("<H", first, phnum, len(parts))
        file.write(first)
        file.seek(start)
        for part in parts:
            held = data[part["offset"] : part["offset"] + part["filesz"]]
            # Notes are aligned to 4 bytes, memory as in the page.
            modulus = PAGE if part["type"] == PT_LOAD else 4
            file.seek((part["paddr"] - file.tell()) % modulus, 1)
            part["offset"] = file.tell()
            file.write(held)
        file.seek(size)
        mask = (1 << 8 * struct.calcsize(word)) - 1
        for part in parts:
            file.write(struct.pack(layout, *(part[name] & mask for name in FIELDS[kind])))


@pytest.mark.parametrize(
    ("name", "vmlinux"),
    [
        ("bare-x86_64", "vmlinux-6.1.0-56-amd64"),
        # Without type information: struct layouts are inferred from what is left.
        ("bare-i386", "vmlinux-6.1.0-50-686"),
    ],
)
def test_nothing_changes(
    name: str,
    vmlinux: str,
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
    tmp_path: Path,
) -> None:
    whole = domain(name)
    without_zero_pages(dump_file(f"{name}/vmcore"), tmp_path / "vmcore")
    part = open(tmp_path / "vmcore").domain(0, dump_file(vmlinux))
    assert part.dump.native.memory_held < whole.dump.native.memory_held * 3 // 4
    for command in (ps, mod):
        assert rendering.text(command.run(part)) == rendering.text(command.run(whole))
    everything = bt.Options(all=True)
    assert rendering.text(bt.run(part, everything)) == rendering.text(bt.run(whole, everything))
    found, expected = (sys_command.run(dom).json() for dom in (part, whole))
    assert {**found, "kernel": None} == {**expected, "kernel": None}
    assert found["memory"] is not None
