"""The text that a kernel leaves about itself: VMCOREINFO."""

from collections.abc import Mapping

from ... import parsing
from ..._native import AddressSpace, MemoryFault, Symbols

#: The text fills at most its note, which has a page for itself (VMCOREINFO_BYTES).
MAX_SIZE = 4096
#: So much of a note's text is believed, that of a longer page included.
MAX_TEXT = 16 * MAX_SIZE
_FIRST_KEY = b"OSRELEASE="
#: No struct is as large: pglist_data, with the zones of 1024 nodes in it twice, takes some 200 KiB.
MAX_EXTENT = 1 << 20


def parse(text: str) -> Mapping[str, str]:
    """``KEY=value`` lines as a mapping; the first of two lines with one key wins."""
    facts: dict[str, str] = {}
    for line in text[:MAX_TEXT].split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            facts.setdefault(key, value.rstrip("\0"))
    return facts


def number(facts: Mapping[str, str], key: str, base: int = 10) -> int | None:
    """The number that stands at ``key``; None where it is absent, or none that a kernel writes."""
    return parsing.number(facts.get(key, ""), base)


def extent(facts: Mapping[str, str], key: str) -> int | None:
    """A struct's size or a member's offset, which stands at ``key``; None if it can be none."""
    found = number(facts, key)
    return found if found is not None and 0 <= found < MAX_EXTENT else None


def in_memory(symbols: Symbols, virtual: AddressSpace, word: int) -> Mapping[str, str]:
    """The text in the kernel's own memory (2.6.24 on); empty if there is none.

    A Xen host's dump has no note with it. ``vmcoreinfo_data`` was an array until 4.13
    (203e9e41219b), a pointer since.
    """
    data = symbols.get("vmcoreinfo_data")
    if data is None:
        return {}
    try:
        if virtual.read(data, len(_FIRST_KEY)) != _FIRST_KEY:
            data = virtual.word(data, word)
        text = virtual.cstring(data, MAX_SIZE)
    except MemoryFault:
        return {}
    if not text.startswith(_FIRST_KEY):
        return {}
    return parse(text.decode("utf-8", "backslashreplace"))
