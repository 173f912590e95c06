"""Whether a dump by QEMU is a Xen host's if all CPUs were running the code of translated guests."""

import struct
from pathlib import Path

import pytest

from xenkdump_fast._native import Dump
from xenkdump_fast.budget import Budget
from xenkdump_fast.xen import detect

PAGE, MIB = 4096, 1 << 20
SIZE = 64 * MIB
#: Machine addresses: Xen's image, its page tables, and a string in it.
IMAGE = 40 * MIB
ROOT, THIRD, SECOND, FIRST = (IMAGE + i * PAGE for i in range(1, 5))
TEXT = IMAGE + 9 * PAGE + 0x123
#: Where Xen's image is mapped: the entries of the tables, from the top one on.
VIRTUAL = 0xFFFF_82D0_4000_0000
ENTRIES = [VIRTUAL >> shift & 511 for shift in (39, 30, 21, 12)]
#: Offsets in QEMUCPUState (target/i386/arch_dump.c).
IDT, CR = 8 + 144 + 9 * 24 + 16, 8 + 144 + 10 * 24


def note(name: bytes, kind: int, desc: bytes) -> bytes:
    padded = name + bytes(-len(name) % 4)
    return struct.pack("<III", len(name), len(desc), kind) + padded + desc + bytes(-len(desc) % 4)


def write(path: Path, pages: dict[int, bytes], cr3: int, cr0: int = 0x8005_0033) -> Dump:
    """A dump of a machine with two CPUs."""
    state = bytearray(CR + 48)
    struct.pack_into("<II", state, 0, 1, len(state))
    struct.pack_into("<Q", state, IDT, 0xFFFF_FE00_0000_0000)
    struct.pack_into("<5Q", state, CR, cr0, 0, 0, cr3, 0x6F0)
    notes = note(b"CORE\0", 1, bytes(336)) * 2 + note(b"QEMU\0", 0, bytes(state)) * 2
    assert len(notes) < PAGE - 512
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    header += struct.pack("<IIQQQQQQ", 4, 0, 512, 0, 0, len(notes), 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 0, PAGE, 0, 0, SIZE, SIZE, 0)
    with path.open("wb") as file:
        file.write(header.ljust(512, b"\0") + notes)
        file.truncate(PAGE + SIZE)
        for at, data in pages.items():
            file.seek(PAGE + at)
            file.write(data)
    return Dump(path)


def xen() -> dict[int, bytes]:
    """Xen's image: the string, and the tables that map 16 pages from its start on."""
    top = {256: THIRD | 3, ENTRIES[0]: THIRD | 3}
    tables = {ROOT: top, THIRD: {ENTRIES[1]: SECOND | 3}, SECOND: {ENTRIES[2]: FIRST | 3}}
    tables[FIRST] = {i: IMAGE + i * PAGE | 3 for i in range(16)}
    pages = {TEXT: b"Xen version %d.%d%s\0"}
    for at, entries in tables.items():
        words = [entries.get(i, 0) for i in range(512)]
        pages[at] = struct.pack("<512Q", *words)
    return pages


# A guest's cr3 is its physical address: the machine has something else there, or nothing.
@pytest.mark.parametrize("cr3", [0x591_0000, 1 << 40])
def test_all_cpus_were_running_guests(cr3: int, tmp_path: Path) -> None:
    found = detect.find(write(tmp_path / "vmcore", xen(), cr3))
    assert found == detect.XenImage(8, "x86_64", ROOT, VIRTUAL + TEXT - IMAGE, searched=True)


def test_guests_without_paging(tmp_path: Path) -> None:
    found = detect.find(write(tmp_path / "vmcore", xen(), 0, cr0=0x10))
    assert found is not None
    assert found.root == ROOT


def test_a_file_of_the_image_is_not_the_image(tmp_path: Path) -> None:
    """Nothing maps it as Xen's. Page tables of a PV guest map Xen, but are not in its image."""
    copy = {MIB + 0x77: xen()[TEXT], MIB + PAGE: xen()[ROOT]}
    found = detect.find(write(tmp_path / "vmcore", copy | xen(), 0x591_0000))
    assert found is not None
    assert found.root == ROOT
    assert detect.find(write(tmp_path / "other", copy, 0x591_0000)) is None


def test_memory_is_not_searched_if_cr3_is_a_machine_address(tmp_path: Path) -> None:
    """The interrupt descriptor table of the machine's own kernel is below it."""
    entries = [0xFFFF_FE00_0000_0000 >> shift & 511 for shift in (39, 30, 21, 12)]
    tables = [MIB + i * PAGE for i in range(5)]
    own = {
        table + entry * 8: struct.pack("<Q", below | 3)
        for table, below, entry in zip(tables, tables[1:], entries, strict=False)
    }
    assert detect.find(write(tmp_path / "vmcore", xen() | own, MIB)) is None


def test_the_search_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that map themselves everywhere, near strings that they do not map."""
    monkeypatch.setattr(detect, "MAX_XEN_IMAGE", MIB)
    budgets: list[Budget] = []

    class Recorded(Budget):
        def __init__(self, name: str, size: int) -> None:
            super().__init__(name, size)
            budgets.append(self)

    monkeypatch.setattr(detect, "Budget", Recorded)
    table = struct.pack("<512Q", *[IMAGE | 3] * 512)
    pages = {IMAGE + i * PAGE: table for i in range(64)}
    pages |= {IMAGE + (64 + i) * PAGE: xen()[TEXT] for i in range(64)}
    assert detect.find(write(tmp_path / "vmcore", pages, 0x591_0000)) is None
    # One for the CPUs, and one for each string that is tried.
    assert len(budgets) == 17
    assert all(budget.remaining == 0 for budget in budgets[1:])
