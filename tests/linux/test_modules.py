"""Modules with shared or oversized tables."""

import struct
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.linux import modules, percpu
from xenkdump_fast.linux.system import Linux
from xenkdump_forge import write_dump
from xenkdump_forge.parts import Parts

from .fakes import PAGE, FakeKernel, FakeMember, FakeSymbols, Memory, words

HEAD = 0xFFFF_FFFF_8200_0000
STRUCTS = 0xFFFF_FFFF_C000_0000
TABLES = 0xFFFF_FFFF_D000_0000
LAYOUT: dict[str, int | FakeMember] = {
    "module": PAGE,
    "module.list": FakeMember(0, 8),
    "module.name": 16,
    "module.core_layout.base": FakeMember(80, 8),
    "module.core_layout.size": FakeMember(88, 4),
    "module.symtab": FakeMember(96, 8),
    "module.num_symtab": FakeMember(104, 4),
    "module.strtab": FakeMember(112, 8),
    "module.typetab": FakeMember(120, 8),
    "module.arch.orc_unwind_ip": FakeMember(128, 8),
    "module.arch.orc_unwind": FakeMember(136, 8),
    "module.arch.num_orcs": FakeMember(144, 4),
}
#: Symbols and rows of ORC that fill a page.
SYMBOLS, ROWS = PAGE // 24, PAGE // 6


class Reads(Memory):
    """Memory that counts the bytes that are read from TABLES on."""

    def __init__(self) -> None:
        super().__init__()
        self.read_of_tables = 0

    def read(self, address: int, size: int) -> bytes:
        data = super().read(address, size)
        self.read_of_tables += size if address >= TABLES else 0
        return data


class Tables(FakeSymbols):
    """Records the tables of modules, in place of an unwinder."""

    def __init__(self, symbols: dict[str, int]) -> None:
        super().__init__(symbols)
        self.given: list[Any] = []
        self.texts: list[tuple[int, ...]] = []

    def add_module(self, *table: Any) -> None:
        self.given.append(table)

    add_orc = add_module

    def add_text(self, *text: int) -> None:
        self.texts.append(text)


def loaded(
    claims: list[tuple[int, int]], layout: dict[str, int | FakeMember] = LAYOUT
) -> FakeKernel:
    """Modules with these counts of symbols and ORC rows; all share two pages of tables."""
    kernel = FakeKernel({"modules": HEAD}, layout)
    kernel.memory = Reads()
    kernel.__dict__.update(virtual=kernel.memory, code=Tables({}))
    places = [STRUCTS + i * PAGE for i in range(len(claims))]
    for i, (at, (symbols, rows)) in enumerate(zip(places, claims, strict=True)):
        kernel.memory.write(at, words(8, [*places, HEAD][i + 1], HEAD))
        kernel.memory.write(at + 16, f"module{i}".encode())
        tables = (TABLES, symbols, TABLES + 0x10_0000, TABLES + 0x10_0000 + 16)
        orc = (TABLES, TABLES, rows)
        kernel.memory.write(at + 80, words(8, at, PAGE, *tables, *orc))
    kernel.memory.write(HEAD, words(8, places[0], places[-1]))
    for at in (TABLES, TABLES + PAGE, TABLES + 0x10_0000):
        kernel.memory.write(at, bytes(PAGE))
    return kernel


def load(kernel: FakeKernel) -> tuple[int, int]:
    """The number of modules with symbols and the number with ORC tables."""
    unwinder: Any = Tables({})
    modules.load(kernel, unwinder)
    code: Any = kernel.code
    return len(code.given), len(unwinder.given)


def test_the_tables_of_every_module_are_loaded() -> None:
    kernel = loaded([(SYMBOLS, ROWS)] * 3)
    assert load(kernel) == (3, 3)
    assert kernel.warnings == []


@pytest.mark.parametrize("has_orc", [False, True])
def test_the_text_of_every_module_is_known(has_orc: bool) -> None:
    """Also without ORC (before 4.14, and on i386), and if the tables cannot be read."""
    layout = {key: at for key, at in LAYOUT.items() if has_orc or "orc" not in key}
    layout["module.init_layout.base"] = FakeMember(152, 8)
    layout["module.init_layout.size"] = FakeMember(160, 4)
    kernel = loaded([(2 << 20, 10 << 20), (SYMBOLS, ROWS)], layout)
    init = STRUCTS + (1 << 20)
    kernel.memory.write(STRUCTS + 152, words(8, init, 2 * PAGE))
    unwinder: Any = Tables({})
    modules.load(kernel, unwinder)
    texts = [(STRUCTS, STRUCTS + PAGE), (init, init + 2 * PAGE)]
    assert unwinder.texts == [*texts, (STRUCTS + PAGE, STRUCTS + 2 * PAGE)]
    assert len(unwinder.given) == has_orc


def test_the_tables_of_all_modules_are_limited_by_the_memory_held() -> None:
    """All modules share the same two pages."""
    kernel = loaded([(SYMBOLS, ROWS)] * 100)
    kernel.memory_held = 101 * PAGE
    assert load(kernel)[0] < 50
    memory = kernel.memory
    assert isinstance(memory, Reads)
    assert memory.read_of_tables <= kernel.memory_held
    (warning,) = kernel.warnings
    assert "more than the dump can hold: those from module module" in warning


def test_the_tables_of_all_modules_have_a_constant_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "MAX_MODULE_TABLES", 10 * PAGE)
    kernel = loaded([(SYMBOLS, ROWS)] * 10)
    kernel.memory_held = 1 << 50
    assert load(kernel)[0] < 10
    assert len(kernel.warnings) == 1


def test_a_damaged_count_does_not_exhaust_the_budget() -> None:
    kernel = loaded([(2 << 20, 10 << 20), (SYMBOLS, ROWS)])
    kernel.memory_held = 256 << 10
    assert load(kernel) == (1, 1)
    assert [warning.split(":")[0] for warning in kernel.warnings] == [
        "the symbols of module module0 cannot be read",
        "the unwind tables of module module0 cannot be read",
    ]


def test_modules_are_limited_by_the_memory_held() -> None:
    kernel = loaded([(0, 0)] * 20)
    kernel.memory_held = 5 * PAGE
    assert [module.name for module in modules.modules(kernel)] == [f"module{i}" for i in range(5)]
    assert kernel.warnings == ["the modules are more than the dump can hold: using the first 5"]


def test_a_module_does_not_redefine_symbols_of_the_kernel(tmp_path: Path) -> None:
    """A symbol of a module may have the name of a variable of the kernel."""
    synthetic = write_dump(tmp_path, like="modern")
    kernel = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel
    possible = percpu.possible(kernel)
    assert kernel.unwinder is not None
    own, total = len(kernel.symbols), len(kernel.code)
    table = [struct.pack("<IBBHQQ", name, 0x11, 0, 1, STRUCTS + name, 1024) for name in (1, 21)]
    strings = b"\0__cpu_possible_mask\0xtime\0"
    kernel.code.add_module("evil", STRUCTS, STRUCTS + PAGE, b"".join(table), strings)
    assert len(kernel.code) == total + 2
    assert len(kernel.symbols) == own
    assert "xtime" not in kernel.symbols
    assert percpu.possible(kernel) == possible


def test_loading_that_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Symbols of modules are there once, although they are loaded again."""
    synthetic = write_dump(tmp_path, like="modern")

    def opened() -> Linux:
        return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel

    whole, broken = opened(), opened()
    own = len(whole.code)
    _ = whole.unwinder

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(modules, "_load_orc", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _ = broken.unwinder
    assert len(broken.code) > own
    _ = broken.unwinder
    found = [(symbol.name, symbol.address, symbol.module) for symbol in broken.code]
    assert found == [(symbol.name, symbol.address, symbol.module) for symbol in whole.code]


@pytest.mark.parametrize(
    ("kind", "member"), [("modern", "core_layout.size"), ("2006-x86_64", "core_size")]
)
def test_a_size_beyond_the_address_space(kind: str, member: str, tmp_path: Path) -> None:
    """Found by fuzzing: every command that prints symbols ended with an OverflowError."""

    def damage(parts: Parts) -> None:
        parts.kernels[0].modules[0].view[member] = (1 << 32) - 1

    sample = write_dump(tmp_path, like=kind, extra=damage)
    kernel = xk.open(str(sample.vmcore)).domain(0, str(sample.vmlinux)).kernel
    assert kernel.unwinder is not None
    module = next(modules.modules(kernel))
    assert module.base + module.size > kernel.last
    symbol = kernel.code.lookup(module.base)
    assert symbol is not None
    assert symbol.module == module.name
