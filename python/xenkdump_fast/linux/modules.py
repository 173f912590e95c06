"""Loaded modules: where each lies, its symbols and its unwind tables, all from memory."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from .._native import AbsentError, MemoryFault, Unwinder
from ..budget import Allowance
from ..isolation import isolated
from .kernel import Kernel

#: More than any module's symbols take; bounds what a broken count can ask for.
MAX_TABLE = 64 << 20
#: More than the tables of all modules take, however long (or full of holes) a dump is: six that a
#: host had loaded took 6 KiB each, and 300 large ones take some 30 MiB.
MAX_TABLES = 256 << 20
#: So much of a table is read, and counted, at once.
PIECE = 64 << 10
PAGE = 4096
#: Modules lie between MODULES_VADDR and MODULES_END (pgtable_64_types.h), 1.5 GiB at most, each in
#: pages of its own.
MAX_MODULES = (1536 << 20) // PAGE
NAME_LENGTH = 64
#: enum mod_mem_type: MOD_INIT_TEXT, behind text, data, rodata and ro_after_init.
FIRST_INIT_MEMORY = 4


class Module(NamedTuple):
    """One struct module."""

    address: int
    name: str
    #: Start and size of its text.
    base: int
    size: int
    #: Size of all of it that stays after its start.
    total: int
    #: It has its symbols in memory.
    symbols: bool


def modules(kernel: Kernel) -> Iterator[Module]:
    """Every loaded module, in the order of the kernel's list; a page of the dump each at least."""
    head = kernel.symbols.get("modules")
    if head is None or "module" not in kernel.types:
        return
    offset = kernel.offset("module.list")
    most = min(kernel.most(PAGE), MAX_MODULES)
    for count, node in enumerate(kernel.list(head)):
        if count >= most:
            kernel.warn(f"there are more than {most} modules, which is more than the dump can hold")
            return
        address = kernel.containing(node, offset)
        with isolated(f"the module at {address:#x} cannot be read", kernel.warn):
            name = kernel.string(address + kernel.offset("module.name"), NAME_LENGTH)
            base, size = _text(kernel, address)
            total = _total(kernel, address, size)
            yield Module(address, name, base, size, total, _has_symbols(kernel, address))


def _text(kernel: Kernel, module: int) -> tuple[int, int]:
    """Start and size of a module's text."""
    if kernel.has("module.mem"):  # 6.4, ac3b43283923: by type, MOD_TEXT first
        memory = module + kernel.offset("module.mem")
        return kernel.read(memory, "module_memory.base"), kernel.read(memory, "module_memory.size")
    return kernel.read(module, "module.base"), kernel.read(module, "module.size")


def _total(kernel: Kernel, module: int, text: int) -> int:
    """Size of all parts of a module but those of its start, which are given back."""
    if not kernel.has("module.mem"):
        return text  # which was never counted apart from the rest
    stride, memory = kernel.types.sizeof("module_memory"), module + kernel.offset("module.mem")
    return sum(
        kernel.read(memory + i * stride, "module_memory.size") for i in range(FIRST_INIT_MEMORY)
    )


def _has_symbols(kernel: Kernel, module: int) -> bool:
    try:
        table, prefix = _kallsyms(kernel, module)
        return kernel.read(table, f"{prefix}.num_symtab") > 0
    except AbsentError:
        return False


def _kallsyms(kernel: Kernel, module: int) -> tuple[int, str]:
    """Where a module's symbols are told, and as a member of what; AbsentError without KALLSYMS."""
    if kernel.has("module.kallsyms"):  # 4.5, 8244062ef1e5
        return kernel.read(module, "module.kallsyms"), "mod_kallsyms"
    if kernel.has("module.symtab"):
        return module, "module"
    raise AbsentError("the kernel keeps no symbols of modules")


def load(kernel: Kernel, unwinder: Unwinder) -> None:
    """Gives the symbols and ORC tables of every module to ``kernel.code`` and the unwinder.

    A byte of the dump is one table's: together they are no longer than the dump.
    """
    room = Allowance(min(kernel.memory_held, MAX_TABLES))
    for module in modules(kernel):
        for what, give in (
            ("symbols", partial(_load_symbols, kernel, module, room)),
            ("unwind tables", partial(_load_orc, kernel, module, room, unwinder)),
        ):
            with isolated(f"the {what} of module {module.name} cannot be read", kernel.warn):
                try:
                    give()
                except AbsentError:
                    if room.left:
                        raise
                    kernel.warn(
                        "the tables of modules are more than the dump can hold: "
                        f"those from module {module.name} on are left out"
                    )
                    return


def _load_symbols(kernel: Kernel, module: Module, room: Allowance) -> None:
    if not module.symbols:
        return
    table, prefix = _kallsyms(kernel, module.address)
    symtab = kernel.read(table, f"{prefix}.symtab")
    count = kernel.read(table, f"{prefix}.num_symtab")
    strtab = kernel.read(table, f"{prefix}.strtab")
    if not (symtab and count and strtab):
        return
    entry = 24 if kernel.word == 8 else 16
    # Nothing says how long the strings are; the table of types lies behind them since 5.2
    # (1c7651f43777), else they end within the module.
    end = (module.base + module.size) & ~0xFFF
    if kernel.has(f"{prefix}.typetab"):
        end = kernel.read(table, f"{prefix}.typetab")
    length = end - strtab if strtab < end < strtab + MAX_TABLE else 1 << 16
    if count * entry > MAX_TABLE:
        raise AbsentError(f"it claims {count} symbols")
    kernel.code.add_module(
        module.name,
        module.base,
        kernel.end(module.base, module.size),
        _read(kernel, symtab, count * entry, room),
        _read_up_to(kernel, strtab, length, room),
    )


def _read(kernel: Kernel, address: int, size: int, room: Allowance) -> bytes:
    """``size`` bytes; of a broken count no more is taken from ``room`` than can be read."""
    return b"".join(_pieces(kernel, address, size, PIECE, room))


def _read_up_to(kernel: Kernel, address: int, size: int, room: Allowance) -> bytes:
    """What can be read of ``size`` bytes, page by page."""
    parts: list[bytes] = []
    try:
        for piece in _pieces(kernel, address, size, PAGE, room):
            parts.append(piece)  # noqa: PERF402 - those before a fault count
    except MemoryFault:
        pass
    return b"".join(parts)


def _pieces(kernel: Kernel, address: int, size: int, step: int, room: Allowance) -> Iterator[bytes]:
    """The bytes up to each multiple of ``step``, and each spent from ``room``."""
    at, end = address, address + size
    while at < end:
        piece = min(end, (at | (step - 1)) + 1) - at
        if not room.take(piece):
            raise AbsentError("no more tables fit into the dump")
        yield kernel.data(at, piece)
        at += piece


def _load_orc(kernel: Kernel, module: Module, room: Allowance, unwinder: Unwinder) -> None:
    if not kernel.has("module.arch.orc_unwind_ip"):
        return
    count = kernel.read(module.address, "module.arch.num_orcs")
    ip = kernel.read(module.address, "module.arch.orc_unwind_ip")
    orc = kernel.read(module.address, "module.arch.orc_unwind")
    if not (count and ip and orc):
        return
    if count * 6 > MAX_TABLE:
        raise AbsentError(f"it claims {count} ORC entries")
    unwinder.add_module(
        module.base,
        kernel.end(module.base, module.size),
        _read(kernel, ip, count * 4, room),
        ip,
        _read(kernel, orc, count * 6, room),
    )
