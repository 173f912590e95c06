"""Whether a ``System.map`` is that of the kernel in a dump.

A map has no build id, and another build may have some symbols at the same addresses. What the
kernel says about itself is compared: constants, VMCOREINFO, its own table of symbols.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from ..._native import AbsentError, AddressSpace, Image, MemoryFault, Symbols
from ...limits import MAX_COMPARED_SYMBOLS
from . import image_in_memory, vmcoreinfo
from .image import BANNER

#: Constants of init/version.c since 2.6.18 at the latest. Each starts at its symbol, or within some
#: bytes after it.
_CONSTANTS = (
    ("linux_banner", BANNER, 0),
    ("linux_proc_banner", b"%s version %s", 0),
    ("init_uts_ns", b"Linux\0", 16),
)
#: Fewer symbols do not tell a build from another.
_ENOUGH = 3
_LISTED = 3


class Comparison(NamedTuple):
    """What the kernel in memory says about a map."""

    #: Symbols that are where the map says.
    same: int
    #: Others, in words: the first few.
    different: list[str]

    @property
    def is_certain(self) -> bool:
        """Whether enough symbols could be compared."""
        return self.same >= _ENOUGH or bool(self.different)


def compare(
    image: Image, slide: int, virtual: AddressSpace, facts: Mapping[str, str]
) -> Comparison:
    """Compares a map with the kernel that was found; ``facts`` is its VMCOREINFO."""
    symbols = image.symbols(slide)
    same = 0
    different: list[str] = []
    for result in (
        *_constants(symbols, virtual),
        *_facts(symbols, facts),
        *_own(image, symbols, virtual),
    ):
        if result is None:
            same += 1
        elif len(different) < _LISTED:
            different.append(result)
    return Comparison(same, different)


def _constants(symbols: Symbols, virtual: AddressSpace) -> Iterator[str | None]:
    for name, text, more in _CONSTANTS:
        address = symbols.get(name)
        if address is None:
            continue
        try:
            data = virtual.read(address, len(text) + more)
        except MemoryFault:
            continue
        yield None if text in data else f"{name} is not at {address:#x} in the dump"


def _facts(symbols: Symbols, facts: Mapping[str, str]) -> Iterator[str | None]:
    start, end = _image(symbols)
    for key in islice(facts, MAX_COMPARED_SYMBOLS):
        if key.startswith("SYMBOL("):
            name, address = key[7:-1], vmcoreinfo.number(facts, key, 16)
            addresses = [symbol.address for symbol in symbols.all(name)]
            # That of mem_section is what it points to (a0b1280368d1, 4.15).
            if address is not None and start <= address < end and addresses:
                yield _difference(name, addresses, address)


def _own(image: Image, symbols: Symbols, virtual: AddressSpace) -> Iterator[str | None]:
    """The kernel's own table: all of its symbols that the map has."""
    try:
        own = image_in_memory.of_space(virtual, image.word, image.path).symbols()
    except AbsentError:
        return
    start, end = _image(symbols)
    step = max(len(own) // MAX_COMPARED_SYMBOLS, 1)
    for symbol in islice(own, 0, None, step):
        if start <= symbol.address < end:
            addresses = [found.address for found in symbols.all(symbol.name)]
            if addresses:
                yield _difference(symbol.name, addresses, symbol.address)


def _image(symbols: Symbols) -> tuple[int, int]:
    """The first address of the kernel's image, and the one after its last."""
    start = symbols.get("_text") or symbols.get("_stext") or 0
    return start, symbols.get("_end") or 0


def _difference(name: str, addresses: list[int], address: int) -> str | None:
    if address in addresses:
        return None
    return f"{name} is at {addresses[0]:#x} by the map, at {address:#x} in the dump"
