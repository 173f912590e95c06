"""Loaded modules: ``struct module``, text and symbols, in separate pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..code.text import Text, assemble
from ..debuginfo import orc
from ..elf import format as elf
from ..memory.guest import Guest
from ..memory.machine import PAGE
from .image import Image
from .view import View

#: Unmapped bytes between modules.
_GAP = PAGE


@dataclass(frozen=True)
class Source:
    """A module's name, and the call chains of its functions, innermost first.

    A chain starts and ends with functions of the kernel.
    """

    name: str
    chains: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Module:
    """A module in memory."""

    source: Source
    view: View
    text: Text
    #: Its address and size.
    base: int
    size: int


def load(image: Image, guest: Guest, sources: Sequence[Source], at: int) -> list[Module]:
    """Writes modules from ``at`` on, and links them into the kernel's list."""
    found = []
    for source in sources:
        module = _load(image, guest, source, at)
        found.append(module)
        at = module.base + module.size + _GAP
    return found


def _load(image: Image, guest: Guest, source: Source, base: int) -> Module:
    own = {name for chain in source.chains for name in chain[1:-1]}
    outside = {name for chain in source.chains for name in chain} - own
    text = assemble(
        replace(
            image.spec.recipe,
            base=base,
            chains=source.chains,
            frames={},
            handwritten={},
            indirect={},
            labels=(),
            addresses={},
            returns={},
            outside={name: image.symbol(name) for name in outside},
        )
    )
    struct = image.types.struct("module")
    parts = _Parts(base + len(text.code))
    at = parts.add(bytes(struct.size))
    symtab, strtab, types = _symbols(image, text)
    symbols = parts.add(symtab), len(symtab) // image.spec.layout.sym.size, parts.add(strtab)
    typetab = parts.add(types)
    rows = [row for function in text.functions.values() for row in function.rows]
    ips, entries = orc.tables(rows, parts.end)
    tables = len(rows), parts.add(ips), parts.add(entries)
    size = -(-(parts.end - base) // PAGE) * PAGE
    guest.map(base, guest.allocate_last(size // PAGE))
    guest.write(base, text.code + parts.data)
    view = View(guest, struct, at)
    view["name"] = source.name
    for prefix in ("core_layout.", ""):
        view.put(
            **{
                f"{prefix}base": base,
                f"{prefix}size": size,
                f"{prefix}text_size": len(text.code),
                f"{prefix}ro_size": len(text.code),
                f"{prefix}ro_after_init_size": len(text.code),
            }
        )
    # Before 4.5 there is no module_layout and no mod_kallsyms.
    view.put(module_core=base, core_size=size, core_text_size=len(text.code))
    for prefix in ("core_kallsyms.", ""):
        view.put(
            **{
                f"{prefix}symtab": symbols[0],
                f"{prefix}num_symtab": symbols[1],
                f"{prefix}strtab": symbols[2],
                f"{prefix}typetab": typetab,
            }
        )
    if "kallsyms" in struct.by_name:
        view["kallsyms"] = view.at("core_kallsyms")
    view.put(arch__num_orcs=tables[0], arch__orc_unwind_ip=tables[1], arch__orc_unwind=tables[2])
    return Module(source, view, text, base, size)


class _Parts:
    """Consecutive bytes in memory."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = b""

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def add(self, data: bytes) -> int:
        """Appends ``data``; returns its address."""
        at = self.end
        self.data += data + bytes(-len(data) % 16)
        return at


def _symbols(image: Image, text: Text) -> tuple[bytes, bytes, bytes]:
    """The symbols and strings of a module, and the letters of their types."""
    layout = image.spec.layout
    strings = elf.Strings()
    records = [bytes(layout.sym.size)]
    for function in text.functions.values():
        name = strings.add(function.name)
        records.append(
            layout.pack_sym(name, function.address, function.size, elf.STT_FUNC, elf.SHN_ABS)
        )
    return b"".join(records), bytes(strings.data), b"\0" + b"t" * (len(records) - 1)
