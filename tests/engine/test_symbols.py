"""The Python bindings for images, symbols and types, with synthetic files."""

import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from xenkdump_fast import _native as native

MAP = """\
0000000000000000 D __per_cpu_start
0000000000000040 d counter
ffffffff81000000 T _text
ffffffff81000100 t helper
ffffffff81000200 T helper
ffffffff82000000 B _end
"""


@pytest.fixture
def symbols(tmp_path: Path) -> native.Symbols:
    path = tmp_path / "System.map"
    path.write_text(MAP)
    return native.Symbols.from_map(path)


def test_a_map_behaves_as_a_mapping(symbols: native.Symbols) -> None:
    assert len(symbols) == 6
    assert "_text" in symbols
    assert "nothing" not in symbols
    assert symbols["_text"] == symbols.get("_text") == 0xFFFFFFFF81000000
    assert symbols["counter"] == 0x40
    assert symbols.get("nothing") is None
    with pytest.raises(KeyError, match="nothing"):
        symbols["nothing"]
    assert symbols.slide == 0


def test_global_symbols_are_preferred(symbols: native.Symbols) -> None:
    assert symbols["helper"] == 0xFFFFFFFF81000200
    assert [symbol.address & 0xFFF for symbol in symbols.all("helper")] == [0x100, 0x200]
    assert symbols.all("nothing") == []


def test_addresses_outside_the_kernel_have_no_names(symbols: native.Symbols) -> None:
    symbol = symbols.lookup(0xFFFFFFFF81000180)
    assert symbol is not None
    assert (symbol.name, symbol.size, symbol.module) == ("helper", 0, None)
    assert symbol == symbols.nearest(0xFFFFFFFF81000180)
    assert repr(symbol) == "<Symbol helper 0xffffffff81000100>"
    for address in [-1, 0, 0x40, 0xFFFFFFFF80FFFFFF, 0xFFFFFFFF82000000, 2**64 - 1, 2**64]:
        assert symbols.lookup(address) is None
        assert symbols.nearest(address) is None or address >= 0xFFFFFFFF82000000


def test_a_module_adds_symbols(symbols: native.Symbols) -> None:
    base = 0xFFFFFFFFC0000000
    table = struct.pack("<IBBHQQ", 1, 2, 0, 1, base + 0x10, 0x20)
    symbols.add_module("ext4", base, base + 0x1000, table, b"\0ext4_probe\0")
    symbol = symbols.lookup(base + 0x18)
    assert symbol is not None
    assert (symbol.name, symbol.module, symbol.size) == ("ext4_probe", "ext4", 0x20)
    assert symbols["ext4_probe"] == base + 0x10
    assert repr(symbol) == "<Symbol ext4_probe [ext4] 0xffffffffc0000010>"


def test_other_threads_run_while_tables_are_built(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text("".join(f"{i * 0x9E3779B9 & 0xFFFFFFFF:08x} T a\n" for i in range(1 << 19)))
    queries: list[Callable[[native.Symbols], object]] = [
        len,
        lambda symbols: symbols.get("a"),
        lambda symbols: symbols.lookup(0x1000),
    ]
    steps: list[str] = []

    def answer(query: Callable[[native.Symbols], object], symbols: native.Symbols) -> None:
        steps.append("asked")
        query(symbols)
        steps.append("answered")

    interval = sys.getswitchinterval()
    # Threads are not preempted: others run only when one releases the GIL.
    sys.setswitchinterval(1e6)
    try:
        for query in queries:
            steps[:] = ["no query"]
            thread = threading.Thread(target=answer, args=(query, native.Symbols.from_map(path)))
            thread.start()
            turns = 0
            while steps[-1] != "answered":
                turns += steps[-1] == "asked"
                time.sleep(0)
            thread.join()
            assert turns > 0
    finally:
        sys.setswitchinterval(interval)


def test_files_of_another_kind_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"not an ELF file, nor a map")
    with pytest.raises(native.DumpError, match=r"file: offset 0x0: expected an ELF file"):
        native.Image(path)
    with pytest.raises(native.DumpError, match="an address, a type letter and a name"):
        native.Symbols.from_map(path)
    with pytest.raises(FileNotFoundError):
        native.Image(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        native.Symbols.from_map(tmp_path / "nothing")


def test_empty_image(tmp_path: Path) -> None:
    path = tmp_path / "empty.elf"
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    path.write_bytes(ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0, 0, 0, 0, 52, 0, 0, 0, 0, 0))
    image = native.Image(path)
    assert (image.word, image.machine_type, image.build_id) == (4, 3, None)
    assert image.sections() == []
    queries: list[Callable[[], object]] = [
        image.symbols,
        image.types,
        lambda: image.section(".text"),
        lambda: image.read(0, 1),
    ]
    for query in queries:
        with pytest.raises(native.AbsentError, match=r"empty\.elf"):
            query()
