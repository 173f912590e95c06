"""Loaded modules: addresses, symbols and unwind tables, all from memory."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from .._contexts import suppress
from .._native import AbsentError, MemoryFault, Unwinder
from .._typing import NamedTuple
from ..budget import Budget, BudgetExceededError
from ..isolation import isolated
from ..limits import MAX_MODULE_TABLE, MAX_MODULE_TABLES, MAX_MODULES
from .kernel import Kernel
from .layouts import Number
from .structs import Structs, batches

#: Bytes of a table that are read at once.
_PIECE = 64 << 10
PAGE = 4096
NAME_LENGTH = 64
#: enum mod_mem_type: MOD_INIT_TEXT, after text, data, rodata and ro_after_init.
FIRST_INIT_MEMORY = 4


class Module(NamedTuple):
    """One struct module."""

    address: int
    name: str
    #: Start and size of its text.
    base: int
    size: int
    #: Size of its memory, excluding the part that is freed after its initialization.
    total: int
    #: Whether its symbols are in memory.
    symbols: bool
    #: Start and size of its initialization text; 0 once that is freed.
    init_base: int = 0
    init_size: int = 0
    #: Start and size of each range of its data, if ``base`` and ``size`` do not include it.
    data: Sequence[tuple[int, int]] = ()

    @property
    def texts(self) -> list[tuple[int, int]]:
        """Start and size of each range of its text."""
        both = (self.base, self.size), (self.init_base, self.init_size)
        return [(base, size) for base, size in both if base and size]


def modules(kernel: Kernel) -> Iterator[Module]:
    """Every loaded module, in the order of the kernel's list. Each has at least a page."""
    head = kernel.symbols.get("modules")
    if head is None:
        if kernel.image.symbol_source == "kallsyms":
            kernel.warn(f"the modules are not known: {kernel.missing('modules')}")
        return
    if "module" not in kernel.types:
        if kernel.pointer(head) != head:
            kernel.warn("the modules are not known: the layout of struct module cannot be inferred")
        return
    offset = kernel.offset("module.list")
    budget = kernel.object_budget("modules", PAGE, MAX_MODULES)
    nodes = kernel.list(head, budget.remaining + 1)
    listed = islice(nodes, budget.remaining)
    for batch in batches(kernel.containing(node, offset) for node in listed):
        structs = _Structs(kernel, batch)
        for address in batch:
            with isolated(f"the module at {address:#x} cannot be read", kernel.warn):
                yield structs.module(address)
    if next(nodes, None) is not None:
        kernel.warn(f"{budget.reason}: using the first {budget.remaining}")


#: Members of struct module, and of the struct mod_kallsyms that it points to since 4.5.
_MEMBERS = (
    "module.base",
    "module.size",
    "module.init_base",
    "module.init_size",
    "module.kallsyms",
    "module.symtab",
    "module.num_symtab",
    "module.strtab",
    "module.typetab",
    "module.arch.num_orcs",
    "module.arch.orc_unwind_ip",
    "module.arch.orc_unwind",
)
_KALLSYMS = (
    "mod_kallsyms.symtab",
    "mod_kallsyms.num_symtab",
    "mod_kallsyms.strtab",
    "mod_kallsyms.typetab",
)


class _Structs:
    """The struct modules at some addresses, read together."""

    def __init__(self, kernel: Kernel, addresses: Iterable[int]) -> None:
        self._kernel = kernel
        members: list[str | Number] = [*_MEMBERS]
        names: list[tuple[int, int]] = []
        # An unknown member is reported when it is read for a module.
        with suppress(AbsentError):
            names.append((kernel.offset("module.name"), NAME_LENGTH))
            if kernel.has("module.mem"):
                members += [self._memory("base", i) for i in range(FIRST_INIT_MEMORY + 1)]
                members += [self._memory("size", i) for i in range(FIRST_INIT_MEMORY + 1)]
        self._modules = Structs(kernel, addresses, members, names)
        self._tables = Structs(kernel, self._modules.values("module.kallsyms"), _KALLSYMS)

    def module(self, address: int) -> Module:
        """One of the modules. Raises AbsentError."""
        name = self._modules.string(address, self._kernel.offset("module.name"), NAME_LENGTH)
        base, size = self._text(address)
        total = self._total(address, size)
        has_symbols = self._has_symbols(address)
        init_base, init_size = self._init_text(address)
        data = self._data(address)
        return Module(address, name, base, size, total, has_symbols, init_base, init_size, data)

    def read(self, module: int, member: str | Number) -> int:
        """A number in one of the modules. Raises AbsentError."""
        return self._modules.read(module, member)

    def _memory(self, name: str, number: int = 0) -> Number:
        """A member of one of the struct module_memory in a struct module, by default the text.

        They are by type of memory, MOD_TEXT first (6.4, ac3b43283923).
        """
        kernel = self._kernel
        member = kernel.numeric(f"module_memory.{name}")
        at = kernel.offset("module.mem") + number * kernel.types.sizeof("module_memory")
        return member._replace(offset=at + member.offset)

    def _text(self, module: int) -> tuple[int, int]:
        """Start and size of a module's text."""
        if self._kernel.has("module.mem"):
            base, size = self._memory("base"), self._memory("size")
            return self.read(module, base), self.read(module, size)
        return self.read(module, "module.base"), self.read(module, "module.size")

    def _init_text(self, module: int) -> tuple[int, int]:
        """Start and size of the text that is freed after its initialization; 0 if unknown."""
        kernel = self._kernel
        if kernel.has("module.mem"):
            base = self._memory("base", FIRST_INIT_MEMORY)
            return self.read(module, base), self.read(
                module, self._memory("size", FIRST_INIT_MEMORY)
            )
        if not kernel.has("module.init_base"):
            return 0, 0
        return self.read(module, "module.init_base"), self.read(module, "module.init_size")

    def _data(self, module: int) -> list[tuple[int, int]]:
        """Start and size of each range of data: writable, constant, constant after init."""
        if not self._kernel.has("module.mem"):
            return []  # the core has all of them
        both = (
            [self.read(module, self._memory(what, i)) for what in ("base", "size")]
            for i in range(1, FIRST_INIT_MEMORY)
        )
        return [(base, size) for base, size in both if base and size]

    def _total(self, module: int, text: int) -> int:
        """Size of a module, excluding the memory that is freed after its initialization."""
        if not self._kernel.has("module.mem"):
            return text  # the size of the core, which includes all
        return sum(self.read(module, self._memory("size", i)) for i in range(FIRST_INIT_MEMORY))

    def _has_symbols(self, module: int) -> bool:
        try:
            return self.kallsyms(module, "num_symtab") > 0
        except AbsentError:
            return False

    def kallsyms(self, module: int, name: str) -> int:
        """A member of the struct with a module's symbols; AbsentError without CONFIG_KALLSYMS."""
        if self._kernel.has("module.kallsyms"):  # 4.5, 8244062ef1e5
            table = self.read(module, "module.kallsyms")
            return self._tables.read(table, f"mod_kallsyms.{name}")
        if self._kernel.has("module.symtab"):
            return self.read(module, f"module.{name}")
        raise AbsentError("the kernel was built without CONFIG_KALLSYMS")


def load(kernel: Kernel, unwinder: Unwinder) -> None:
    """Adds the text of every module to the unwinder, its symbols to ``kernel.code``, and ORC.

    Each byte of the dump belongs to one table: all together are no larger than the dump.
    """
    budget = Budget("module tables", min(kernel.memory_held, MAX_MODULE_TABLES))
    for batch in batches(modules(kernel)):
        structs = _Structs(kernel, [module.address for module in batch])
        with kernel.charging(budget):
            for module in batch:
                for base, size in module.texts:
                    unwinder.add_text(base, kernel.end(base, size))
            for module in batch:
                if not _load_tables(kernel, module, structs, unwinder):
                    return


def _load_tables(kernel: Kernel, module: Module, structs: _Structs, unwinder: Unwinder) -> bool:
    """Loads the tables of a module, as ``load``; False if the budget is exhausted."""
    for what, give in (
        ("symbols", partial(_load_symbols, kernel, module, structs)),
        ("unwind tables", partial(_load_orc, kernel, module, structs, unwinder)),
    ):
        with isolated(f"the {what} of module {module.name} cannot be read", kernel.warn):
            try:
                give()
            except BudgetExceededError as error:
                kernel.warn(f"{error}: those from module {module.name} on are missing")
                return False
    return True


def _load_symbols(kernel: Kernel, module: Module, structs: _Structs) -> None:
    if not module.symbols:
        return
    symtab = structs.kallsyms(module.address, "symtab")
    count = structs.kallsyms(module.address, "num_symtab")
    strtab = structs.kallsyms(module.address, "strtab")
    if not (symtab and count and strtab):
        return
    entry = 24 if kernel.word == 8 else 16
    # The size of the strings is not recorded. Since 5.2 (1c7651f43777) the table of types follows
    # them; else they end with the module.
    end = (module.base + module.size) & ~0xFFF
    if kernel.has("mod_kallsyms.typetab") or kernel.has("module.typetab"):
        end = structs.kallsyms(module.address, "typetab")
    length = end - strtab if strtab < end < strtab + MAX_MODULE_TABLE else 1 << 16
    if count * entry > MAX_MODULE_TABLE:
        raise AbsentError(f"num_symtab is {count}")
    symbols, strings = _read(kernel, symtab, count * entry), _read_up_to(kernel, strtab, length)
    # Since 6.4 (ac3b43283923) each type of memory is a range of its own.
    for base, size in (*module.texts, *module.data):
        kernel.code.add_module(module.name, base, kernel.end(base, size), symbols, strings)


def _read(kernel: Kernel, address: int, size: int) -> bytes:
    """``size`` bytes, charged piece by piece: a damaged size costs no more than can be read."""
    return b"".join(_pieces(kernel, address, size, _PIECE))


def _read_up_to(kernel: Kernel, address: int, size: int) -> bytes:
    """The bytes up to the first page that cannot be read, at most ``size``."""
    parts: list[bytes] = []
    try:
        for piece in _pieces(kernel, address, size, PAGE):
            parts.append(piece)  # noqa: PERF402 - keeps those before a fault
    except MemoryFault:
        pass
    return b"".join(parts)


def _pieces(kernel: Kernel, address: int, size: int, step: int) -> Iterator[bytes]:
    """The bytes in pieces that end at multiples of ``step``."""
    at, end = address, address + size
    while at < end:
        piece = min(end, (at | (step - 1)) + 1) - at
        yield kernel.data(at, piece)
        at += piece


def _load_orc(kernel: Kernel, module: Module, structs: _Structs, unwinder: Unwinder) -> None:
    if not kernel.has("module.arch.orc_unwind_ip"):
        return
    count = structs.read(module.address, "module.arch.num_orcs")
    ip = structs.read(module.address, "module.arch.orc_unwind_ip")
    orc = structs.read(module.address, "module.arch.orc_unwind")
    if not (count and ip and orc):
        return
    if count * 6 > MAX_MODULE_TABLE:
        raise AbsentError(f"num_orcs is {count}")
    unwinder.add_orc(
        module.base,
        kernel.end(module.base, module.size),
        _read(kernel, ip, count * 4),
        ip,
        _read(kernel, orc, count * 6),
    )
