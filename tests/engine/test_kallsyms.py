"""Symbols of kernels in memory: every form of kallsyms since Linux 2.6.10."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from xenkdump_fast._native import AbsentError, Dump, Image
from xenkdump_forge.debuginfo import kallsyms
from xenkdump_forge.debuginfo.kallsyms import GENERATIONS, Symbol, Table

from .machine import PAGE, Machine

ROOT = 0x20
BANNER = b"Linux version 9.9.9 (builder@host) #1 SMP\n\0"
#: Where the image of a kernel with words of 4 or 8 bytes is mapped from.
BASE = {4: 0xC100_0000, 8: 0xFFFF_FFFF_8100_0000}
#: Offsets of the sections in the image.
BANNER_AT, TABLE_AT = 0x100, 0x2040
FRAME = 0x1000


def symbols(base: int, count: int, *, percpu: bool, all_symbols: bool = True) -> list[Symbol]:
    """Functions, aliases, variables and, if the per-CPU section is at 0, per-CPU variables."""
    found = [Symbol(base, "T", "_text"), Symbol(base, "T", "_stext")]
    found += [Symbol(base + 16 * i, "t", f"function_{i}.cold") for i in range(1, count)]
    found.append(Symbol(base + 16 * count, "T", "_etext"))
    if all_symbols:
        found.append(Symbol(base + BANNER_AT, "R", "linux_banner"))
        found.append(Symbol(base + (1 << 20), "B", "_end"))
        if percpu:
            found += [Symbol(8 * i, "A", f"per_cpu_{i}") for i in range(5)]
    return found


def machine(table: Table, word: int, missing: Iterable[int] = ()) -> Machine:
    """Memory with the table; without the pages of the image with these numbers."""
    made = Machine()
    base = BASE[word]
    size = TABLE_AT + len(table.data) + PAGE
    made.write(FRAME * PAGE, bytes([0x90]) * size)
    made.write(FRAME * PAGE + BANNER_AT, BANNER)
    made.write(FRAME * PAGE + TABLE_AT, table.data)
    for page in missing:
        made.frames.pop(FRAME + page)
    pages = -(-size // PAGE)
    assert pages <= 512
    if word == 8:
        made.words(ROOT, [0x21 << 12 | 0x67], base >> 39 & 511)
        made.words(0x21, [0x22 << 12 | 0x67], base >> 30 & 511)
    else:
        made.words(ROOT, [0x22 << 12 | 1], base >> 30)
    made.words(0x22, [0x23 << 12 | 0x67], base >> 21 & 511)
    made.words(0x23, [(FRAME + i) << 12 | 0x67 for i in range(pages)])
    return made


def image(path: Path, made: Machine, word: int, token_table: int | None = None) -> Image:
    virtual = Dump(made.save(path)).virtual(ROOT * PAGE, "x86_64" if word == 8 else "x86-pae")
    ranges = [(BASE[word] & ~0xFF_FFFF, BASE[word] | 0xFF_FFFF)]
    return Image.in_memory(virtual, 8 if word == 8 else 4, "memory", ranges, token_table)


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("count", [3, 250, 256, 700, 5000])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_symbol_is_found(generation: str, count: int, word: int, tmp_path: Path) -> None:
    percpu = word == 8 and GENERATIONS.index(generation) < GENERATIONS.index("6.15")
    expected = symbols(BASE[word], count, percpu=percpu)
    table = kallsyms.table(
        expected, generation, word, BASE[word] + TABLE_AT, absolute_percpu=word == 8
    )
    found = image(tmp_path / "dump", machine(table, word), word)
    assert (found.is_memory, found.word, found.losses) == (True, word, [])
    names = found.symbols()
    assert len(names) == len(expected)
    for symbol in expected:
        assert names.get(symbol.name) == symbol.address
    nearest = names.nearest(BASE[word] + 40)
    assert nearest is not None
    assert nearest.name == "function_2.cold"
    assert found.read(BASE[word] + BANNER_AT, len(BANNER)) == BANNER


def test_the_hint_of_vmcoreinfo(tmp_path: Path) -> None:
    table = kallsyms.table(symbols(BASE[8], 300, percpu=True), "6.4", 8, BASE[8] + TABLE_AT)
    made = machine(table, 8)
    for at in (table.parts["token_table"], table.parts["token_table"] + 8, 0, 2**64 - 1):
        assert len(image(tmp_path / "dump", made, 8, at).symbols()) == 309


def test_long_names(tmp_path: Path) -> None:
    long = "".join(chr(ord("a") + i * i % 23) for i in range(400))
    expected = [*symbols(BASE[8], 10, percpu=False), Symbol(BASE[8] + 0x98, "t", long)]
    table = kallsyms.table(expected, "6.1", 8, BASE[8] + TABLE_AT)
    names = image(tmp_path / "dump", machine(table, 8), 8).symbols()
    assert names.get(long) == BASE[8] + 0x98


def test_kaslr(tmp_path: Path) -> None:
    """The addresses in memory are those of the kernel where it runs."""
    table = kallsyms.table(symbols(BASE[8], 10, percpu=True), "6.4", 8, BASE[8] + TABLE_AT)
    found = image(tmp_path / "dump", machine(table, 8), 8).unmoved(0x40_0000)
    assert found.symbols()["_text"] == BASE[8] - 0x40_0000
    assert found.symbols(0x40_0000)["_text"] == BASE[8]
    assert found.symbols(0x40_0000)["per_cpu_3"] == 24


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_page_of_names_is_missing(generation: str, tmp_path: Path) -> None:
    expected = symbols(BASE[8], 5000, percpu=False)
    table = kallsyms.table(expected, generation, 8, BASE[8] + TABLE_AT, absolute_percpu=False)
    page = (table.parts["names"] - BASE[8]) // PAGE + 1
    found = image(tmp_path / "dump", machine(table, 8, [page]), 8)
    names = found.symbols()
    lost = [symbol for symbol in expected if symbol.name not in names]
    assert 0 < len(lost) < 2000
    assert all(names.get(s.name) in (None, s.address) for s in expected)
    assert found.losses == [
        f"{len(lost)} of {len(expected)} symbols of the kernel's memory are not in the dump"
    ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_page_of_addresses_is_missing(generation: str, tmp_path: Path) -> None:
    expected = symbols(BASE[8], 5000, percpu=False)
    table = kallsyms.table(expected, generation, 8, BASE[8] + TABLE_AT, absolute_percpu=False)
    start = table.parts.get("offsets", table.parts.get("addresses", 0))
    found = image(tmp_path / "dump", machine(table, 8, [(start - BASE[8]) // PAGE + 1]), 8)
    names = found.symbols()
    assert 3900 < len(names) < 5000
    assert all(names.get(s.name) in (None, s.address) for s in expected)
    assert found.losses


@pytest.mark.parametrize("part", ["token_table", "token_index", "markers", "names", "num_syms"])
def test_damaged_tables(part: str, tmp_path: Path) -> None:
    table = kallsyms.table(symbols(BASE[8], 700, percpu=True), "6.4", 8, BASE[8] + TABLE_AT)
    at = table.parts[part] - BASE[8] - TABLE_AT
    for junk in (bytes(64), b"\xff" * 64, bytes(range(64))):
        data = table.data[:at] + junk + table.data[at + len(junk) :]
        with pytest.raises(AbsentError, match="kallsyms"):
            image(tmp_path / "dump", machine(Table(data, table.parts), 8), 8)


def test_a_wrong_banner(tmp_path: Path) -> None:
    table = kallsyms.table(symbols(BASE[8] + 16, 10, percpu=True), "6.4", 8, BASE[8] + TABLE_AT)
    with pytest.raises(AbsentError, match="its linux_banner is at"):
        image(tmp_path / "dump", machine(table, 8), 8)
