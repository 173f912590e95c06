"""Symbols of kernels in memory: every form of kallsyms since Linux 2.6.10."""

import struct
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


def machine(
    table: Table, word: int, missing: Iterable[int] = (), at: int = TABLE_AT, others: bytes = b""
) -> Machine:
    """Memory with the table, and other data behind it; without the pages with these numbers."""
    made = Machine()
    base = BASE[word]
    size = at + len(table.data) + PAGE + len(others) + PAGE
    made.write(FRAME * PAGE, bytes([0x90]) * size)
    made.write(FRAME * PAGE + BANNER_AT, BANNER)
    made.write(FRAME * PAGE + at, table.data)
    made.write(FRAME * PAGE + others_at(table, at), others)
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


def others_at(table: Table, at: int = TABLE_AT) -> int:
    """The offset in the image of what is behind the table: the start of a page."""
    return -(-(at + len(table.data)) // PAGE) * PAGE


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


@pytest.mark.parametrize("first", ["token_table", "token_index", "markers", "num_syms"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_page_of_any_table_is_missing(generation: str, first: str, tmp_path: Path) -> None:
    """``first`` starts a page; each page of the table is left out in turn."""
    expected = symbols(BASE[8], 3000, percpu=GENERATIONS.index(generation) < 6)

    def table(at: int) -> Table:
        return kallsyms.table(expected, generation, 8, BASE[8] + at)

    at = TABLE_AT + -table(TABLE_AT).parts[first] % PAGE
    made = table(at)
    found = 0
    pages = range(at // PAGE, (at + len(made.data)) // PAGE + 1)
    for page in pages:
        memory = machine(made, 8, [page], at)
        try:
            opened = image(tmp_path / "dump", memory, 8)
        except AbsentError:
            # Not without the tokens, or without both the base and the place of the banner.
            parts = ("token_table", "token_index", "relative_base")
            starts = {made.parts[part] - BASE[8] for part in parts if part in made.parts}
            assert any(page * PAGE - 1200 <= start < (page + 1) * PAGE for start in starts)
            continue
        names = opened.symbols()
        assert all(names.get(s.name) in (None, s.address) for s in expected)
        assert len(names) > 0
        assert opened.losses or page == pages[-1] or "seqs_of_names" in made.parts
        for symbol in expected[::7]:
            nearest = names.nearest(symbol.address + 4)
            assert nearest is None or nearest.address == symbol.address, page
        found += 1
    assert found >= len(pages) - 3


def exports(table: Table, variables: dict[str, int], at: int = TABLE_AT) -> bytes:
    """``__ksymtab`` and ``__ksymtab_strings`` since 5.4, sorted by name."""
    base = BASE[8] + others_at(table, at)
    names = sorted(variables)
    strings, places = b"\0", {}
    start = base + 12 * len(names)
    for name in names:
        places[name] = start + len(strings)
        strings += name.encode() + b"\0"
    entries = b""
    for name in names:
        entry = base + len(entries)
        distances = variables[name] - entry, places[name] - (entry + 4), 0
        entries += struct.pack("<3I", *(distance % (1 << 32) for distance in distances))
    return entries + strings


#: Exported symbols of which some are per-CPU.
EXPORTED = {
    **{f"a_{i}": BASE[8] + 0x40 * i for i in range(500)},
    "init_task": BASE[8] + 0x8000,
    "this_cpu_off": 0x20,
    **{f"z_{i}": BASE[8] + 0x9000 + 8 * i for i in range(20)},
}


def test_exported_variables_beside_functions(tmp_path: Path) -> None:
    """Without CONFIG_KALLSYMS_ALL."""
    expected = symbols(BASE[8], 300, percpu=False, all_symbols=False)
    expected.append(Symbol(BASE[8] + 0x20_0000 - 1, "T", "_sinittext"))
    table = kallsyms.table(expected, "6.1", 8, BASE[8] + TABLE_AT, absolute_percpu=False)
    made = machine(table, 8, others=exports(table, EXPORTED))
    # The banner is behind the code.
    made.write(FRAME * PAGE + 16 * 300 + 64, b"\0" + BANNER)
    found = image(tmp_path / "dump", made, 8)
    names = found.symbols()
    assert names["linux_banner"] == BASE[8] + 16 * 300 + 65
    assert names["init_task"] == BASE[8] + 0x8000
    assert names["function_7.cold"] == BASE[8] + 16 * 7
    assert found.losses == []
    more = found.with_variables([("modules", BASE[8] + 0x8800), ("init_task", 1)]).symbols()
    assert (more["modules"], more["init_task"]) == (BASE[8] + 0x8800, BASE[8] + 0x8000)


@pytest.mark.parametrize("missing", [False, True])
def test_exports_only(missing: bool, tmp_path: Path) -> None:
    """Without the table of tokens, and with a page of the exports that is missing."""
    table = kallsyms.table(symbols(BASE[8], 300, percpu=True), "6.4", 8, BASE[8] + TABLE_AT)
    at = table.parts["token_table"] - BASE[8] - TABLE_AT
    table = Table(table.data[:at] + bytes(1000) + table.data[at + 1000 :], table.parts)
    pages = [others_at(table) // PAGE] if missing else []
    made = machine(table, 8, pages, others=exports(table, EXPORTED))
    found = image(tmp_path / "dump", made, 8)
    names = found.symbols()
    known = [name for name in EXPORTED if name in names]
    assert len(known) == len(EXPORTED) if not missing else 100 < len(known) < 300
    assert all(names[name] == EXPORTED[name] for name in known)
    assert names["linux_banner"] == BASE[8] + BANNER_AT
    (loss,) = found.losses
    assert "only exported symbols are known, and addresses have no names" in loss
    # Other functions may be behind an exported one.
    assert names.nearest(EXPORTED["z_3"] + 1) is None
    exact = names.nearest(EXPORTED["z_3"])
    assert exact is not None
    assert exact.name == "z_3"
    moved = found.unmoved(0x40_0000).symbols()
    assert moved["init_task"] == EXPORTED["init_task"] - 0x40_0000
    assert moved["this_cpu_off"] == 0x20
