"""VMCOREINFO: what the kernel says about itself, as text."""

from collections.abc import Mapping

from ... import parsing
from ..._native import AddressSpace, MemoryFault, Symbols
from ...limits import MAX_STRUCT_SIZE, MAX_VMCOREINFO, MAX_VMCOREINFO_NOTE

_FIRST_KEY = b"OSRELEASE="
#: Bytes before the descriptor of a note: three u32, and the name "VMCOREINFO", padded.
NOTE_HEADER = 12 + 12


def parse(text: str) -> Mapping[str, str]:
    """``KEY=value`` lines as a mapping; the first of two lines with the same key wins."""
    facts: dict[str, str] = {}
    for line in text[:MAX_VMCOREINFO_NOTE].split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            facts.setdefault(key, value.rstrip("\r\0"))
    return facts


def number(facts: Mapping[str, str], key: str, base: int = 10) -> int | None:
    """The number at ``key``; None if it is absent, or not a number of at most 64 bits."""
    return parsing.number(facts.get(key, ""), base)


def extent(facts: Mapping[str, str], key: str) -> int | None:
    """The size of a struct or offset of a member at ``key``; None if it is absent or invalid."""
    found = number(facts, key)
    return found if found is not None and 0 <= found < MAX_STRUCT_SIZE else None


def in_memory(symbols: Symbols, virtual: AddressSpace, word: int) -> Mapping[str, str]:
    """VMCOREINFO in the kernel's memory, parsed; empty if there is none."""
    text = text_in_memory(symbols, virtual, word)
    return parse(text.decode("utf-8", "backslashreplace")) if text else {}


def text_in_memory(symbols: Symbols, virtual: AddressSpace, word: int) -> bytes:
    """The text of VMCOREINFO in the kernel's memory (2.6.24 on); empty if there is none.

    The dump of a Xen host has no note with it. ``vmcoreinfo_data`` was an array until 4.13
    (203e9e41219b) and is a pointer since. A kernel that crashed lets it point to a copy in the
    memory of the capture kernel, which dumps do not have (1229384f5b85, 4.13); the note that the
    kernel wrote then is in ``vmcoreinfo_note``.
    """
    for name, header in (("vmcoreinfo_data", 0), ("vmcoreinfo_note", NOTE_HEADER)):
        variable = symbols.get(name)
        if variable is None:
            continue
        for indirect in (False, True):
            try:
                at = virtual.word(variable, word) if indirect else variable
                text = virtual.cstring(at + header, MAX_VMCOREINFO)
            except MemoryFault:
                continue
            if text.startswith(_FIRST_KEY):
                return text
    return b""
