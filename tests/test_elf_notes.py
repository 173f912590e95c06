"""Notes and core files that other tools read."""

import struct
from pathlib import Path

import pytest

from xenkdump_fast import elf_notes
from xenkdump_fast._native import Dump, Note

REGISTERS = {
    8: {"rip": 0xFFFFFFFF81000010, "rsp": 0xFFFFC90000003F58, "r15": 15, "gs_base": 1 << 63},
    4: {"eip": 0xC1000010, "esp": 0xC1FFFF00, "ebx": 3, "ss": 0x68},
}


@pytest.mark.parametrize("word", [4, 8])
def test_registers_are_read_back(word: int) -> None:
    found = Note.prstatus(elf_notes.prstatus(REGISTERS[word], 7, word))
    assert found is not None
    assert found["pid"] == 7
    known = {name: value for name, value in found["registers"].items() if value}
    assert known == REGISTERS[word]


@pytest.mark.parametrize(("word", "name"), [(4, "eflags"), (8, "rflags"), (8, "eflags")])
def test_flags_have_two_names(word: int, name: str) -> None:
    found = Note.prstatus(elf_notes.prstatus({name: 0x246}, 1, word))
    assert found is not None
    assert 0x246 in found["registers"].values()


def test_values_are_truncated_to_a_word() -> None:
    found = Note.prstatus(elf_notes.prstatus({"eip": 1 << 40 | 5}, -1, 4))
    assert found is not None
    assert found["registers"]["eip"] == 5


def test_a_note_is_padded() -> None:
    assert elf_notes.note("CORE", 1, b"abcde") == (
        struct.pack("<III", 5, 5, 1) + b"CORE\0\0\0\0" + b"abcde\0\0\0"
    )


@pytest.mark.parametrize("word", [4, 8])
def test_a_core_has_its_notes(tmp_path: Path, word: int) -> None:
    cpus = [(1, REGISTERS[word]), (2, {})]
    notes = [elf_notes.prstatus_notes(cpus, word), elf_notes.note("VMCOREINFO", 0, b"A=1\n")]
    core = elf_notes.notes_only_core(notes, word)
    # A dump without memory is none: one page follows.
    path = tmp_path / "core"
    path.write_bytes(_with_page(core, word))
    found = Dump(path).notes
    assert [(note.name, note.type) for note in found] == [
        ("CORE", elf_notes.NT_PRSTATUS),
        ("CORE", elf_notes.NT_PRSTATUS),
        ("VMCOREINFO", elf_notes.NT_VMCOREINFO),
    ]
    assert found[0].fields["pid"] == 1
    assert found[2].data == b"A=1\n"


def _with_page(core: bytes, word: int) -> bytes:
    """The core with a PT_LOAD of one page behind its notes, whose header replaces nothing."""
    header, entry = (64, 56) if word == 8 else (52, 32)
    count = header - 8  # e_phnum
    notes = core[header + entry :]
    start = header + 2 * entry
    load_at = start + len(notes)
    pieces = bytearray(core[: header + entry])
    pieces[count : count + 2] = struct.pack("<H", 2)
    if word == 8:
        pieces[header + 8 : header + 16] = struct.pack("<Q", start)
        load = struct.pack("<IIQQQQQQ", 1, 0, load_at, 0, 0, 4096, 4096, 0)
    else:
        pieces[header + 4 : header + 8] = struct.pack("<I", start)
        load = struct.pack("<8I", 1, load_at, 0, 0, 4096, 4096, 0, 0)
    return bytes(pieces) + load + notes + bytes(4096)
