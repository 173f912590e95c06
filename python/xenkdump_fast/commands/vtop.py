"""Virtual addresses to pseudo-physical and machine ones, with the walk between."""

from collections.abc import Sequence
from typing import NamedTuple

from .._native import AbsentError, Mapping, MemoryFault
from ..linux.kernel import Kernel
from ..linux.locate import first_symbol
from ..parsing import number
from ..session import Domain

PAGE = 4096


class Translation(NamedTuple):
    """One virtual address, and where it leads."""

    address: int
    #: None where it leads nowhere; ``why`` then says so.
    mapping: Mapping | None
    #: Pseudo-physical; None for a frame that is not the domain's own.
    physical: int | None
    why: str | None


class Translations(NamedTuple):
    """What ``xkdump vtop`` found."""

    domain: int
    word: int
    paging: str
    #: Virtual address of the top page table; None where no symbol names it.
    directory: int | None
    #: Under Xen the page tables hold machine addresses.
    is_xen: bool
    translations: list[Translation]


def run(domain: Domain, wanted: Sequence[str] = ()) -> Translations:
    """Walks the kernel's page tables for each address or symbol in ``wanted``.

    AbsentError for an operand that is neither, or if none of the addresses is mapped.
    """
    kernel = domain.kernel
    found = [_translate(domain, _address(kernel, name)) for name in wanted]
    if found and all(translation.mapping is None for translation in found):
        first = found[0]
        raise AbsentError(f"{first.address:#x} is not mapped: {first.why}")
    return Translations(
        domain=domain.id,
        word=kernel.word,
        paging=kernel.location.paging,
        directory=first_symbol(kernel.symbols, "swapper"),
        is_xen=domain.p2m is not None,
        translations=found,
    )


def _address(kernel: Kernel, name: str) -> int:
    symbol = kernel.symbols.get(name)
    if symbol is not None:
        return symbol
    address = number(name, 16)
    if address is None or not 0 <= address <= kernel.last:
        raise AbsentError(f"{name}: neither an address nor a symbol of {kernel.image.path}")
    return address


def _translate(domain: Domain, address: int) -> Translation:
    try:
        mapping = domain.virtual.mapping(address)
    except MemoryFault as fault:
        return Translation(address, None, None, str(fault))
    physical: int | None = mapping.machine
    if domain.p2m is not None:
        try:
            physical = domain.p2m.reverse(mapping.machine // PAGE) * PAGE + address % PAGE
        except MemoryFault:
            physical = None
    return Translation(address, mapping, physical, None)
