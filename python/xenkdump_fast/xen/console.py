"""Xen's console ring, as shown by ``xl dmesg``."""

import re
from collections.abc import Callable

from .._native import AbsentError
from ..limits import MAX_CONSOLE_SIZE, MAX_XEN_IMAGE
from ..linux.partial_buffer import PartialBuffer
from .console_ring import Console
from .host import XenHost
from .memory import IMAGE_ALIGN, PAGE, xen_range

#: Size of the smallest ring (_CONRING_SIZE). Sizes are powers of two.
_MIN_SIZE = 1 << 14
#: The start of every line that Xen itself writes.
_PREFIX = b"(XEN) "


def read(xen: XenHost) -> Console:
    """Reads the ring, once; AbsentError if it cannot be found."""
    if xen.ring is None:
        xen.ring = _find(xen)
    return xen.ring


def _find(xen: XenHost) -> Console:
    """Reads the ring.

    With xen-syms by the symbol ``conring`` and its size, without by the text in it.
    """
    if xen.symbols is not None and "conring" in xen.symbols:
        return _by_symbols(xen)
    start = _search(xen)
    if start is None:
        raise AbsentError(f"{xen.dump.path}: no console ring of Xen found; pass its xen-syms")
    ring = _ring_at(xen, start)
    end = _end(ring)
    full = end == len(ring.data)
    if full:
        xen.warnings.append(
            "the console ring is full: its oldest line is not known without xen-syms, and it is "
            "shown in the order of memory"
        )
    return Console(_lines(xen, ring, ring.data[:end], ring.missing_in(0, end)), full, "its text")


def _by_symbols(xen: XenHost) -> Console:
    """``conring`` is a pointer or the ring itself, depending on the version (``compat.py``)."""
    memory, symbols = xen.memory, xen.symbols
    assert symbols is not None
    at = symbols["conring"]
    symbol = symbols.lookup(at)
    size = symbol.size if symbol is not None else 0
    start: int | None = at
    if size <= memory.word:
        start = memory.pointer(at)
        size_at = symbols.get("conring_size")
        size = (memory.number(size_at, 4) if size_at is not None else None) or _MIN_SIZE
    producer_at = symbols.get("conringp")
    producer = memory.number(producer_at, 4) if producer_at is not None else None
    limit = min(MAX_CONSOLE_SIZE, xen.dump.memory_held)
    if not start or producer is None or size & (size - 1) or not _MIN_SIZE <= size <= limit:
        raise AbsentError(f"{xen.dump.path}: Xen's console ring is damaged")
    ring = PartialBuffer(memory, start, size)
    if ring.missing == size:
        raise AbsentError(f"{xen.dump.path}: Xen's console ring at {start:#x} cannot be read")
    overwritten = producer > size
    # conringp counts all characters that were ever written.
    split = producer % size if overwritten else 0
    end = size if overwritten else producer
    text = ring.data[split:end] + ring.data[:split]
    return Console(_lines(xen, ring, text, ring.missing_in(0, end)), overwritten, "conring")


def _pages(word: int, first: int, end: int) -> Callable[[bytes], bool]:
    """A test whether memory may have a word that is the address of a page between two addresses.

    It looks at one byte of all words at once.
    """
    ranges = [(1, range(0, 256, 16)), (0, range(1))]
    low, high = (address.to_bytes(word, "little") for address in (first, end - 1))
    for at in reversed(range(2, word)):
        ranges.insert(0, (at, range(low[at], high[at] + 1)))
        if low[at] != high[at]:
            break
    tables = [(at, bytes(byte in valid for byte in range(256))) for at, valid in ranges]

    def may_point(data: bytes) -> bool:
        marks = -1
        for at, table in tables:
            marks &= int.from_bytes(data[at::word].translate(table))
            if not marks:
                return False
        return True

    return may_point


def _search(xen: XenHost) -> int | None:
    """The first address that a pointer in Xen's image has and that looks like a console ring."""
    memory = xen.memory
    base = (xen.facts.head or xen.pc or 0) // IMAGE_ALIGN * IMAGE_ALIGN
    first, end = xen_range(memory.word)
    seen = set()
    # No page is read twice, unless page tables have several addresses for it.
    size = MAX_XEN_IMAGE + 2 * xen.dump.memory_held
    with memory.budget("candidates for Xen's console ring", size):
        may_point = _pages(memory.word, first, end)
        for page in range(base, base + MAX_XEN_IMAGE, PAGE):
            data = memory.read(page, PAGE) or b""
            # Few words are the addresses of pages.
            words = memory.split(data) if may_point(data) else ()
            for pointer in [at for at in words if first <= at < end and not at % PAGE]:
                if pointer in seen:
                    continue
                seen.add(pointer)
                head = None
                if memory.is_xen(pointer):
                    head = memory.read(pointer, PAGE)
                elif pointer % _MIN_SIZE == 0:
                    # The allocator aligns a ring to its size. The dump may lack its first page.
                    head = memory.read(pointer + PAGE, PAGE)
                if head is not None and head.count(b"\n" + _PREFIX) >= 8:
                    return pointer
    return None


def _ring_at(xen: XenHost, start: int) -> PartialBuffer:
    """The ring at ``start``. Its size is doubled while there is text in the second half."""
    size = _MIN_SIZE
    limit = min(MAX_CONSOLE_SIZE, xen.dump.memory_held)
    ring = PartialBuffer(xen.memory, start, size)
    while size < limit and _terminator(ring) is None:
        more = PartialBuffer(xen.memory, start + size, size)
        held = size - more.missing
        if not held or more.data.count(b"\n" + _PREFIX) * 500 < held:
            break
        size *= 2
        ring = PartialBuffer(xen.memory, start, size)
    return ring


def _terminator(ring: PartialBuffer) -> int | None:
    """The offset of the first NUL that the dump holds: missing bytes read as NUL, too."""
    at = ring.data.find(b"\0")
    while at >= 0 and not ring.is_complete(at, at + 1):
        # Holes consist of whole pages.
        at = ring.data.find(b"\0", (at // PAGE + 1) * PAGE)
    return at if at >= 0 else None


def _end(ring: PartialBuffer) -> int:
    """Where the text in a ring ends: at a NUL, else at the last byte that the dump holds."""
    end = _terminator(ring)
    return len(ring.data.rstrip(b"\0")) if end is None else end


def _lines(xen: XenHost, ring: PartialBuffer, text: bytes | bytearray, missing: int) -> list[str]:
    """The lines of a text, of which the dump lacks some bytes."""
    if missing:
        xen.warnings.append(
            f"{missing} of {len(ring.data)} bytes of Xen's console are not in the dump"
        )
        text = re.sub(rb"\n?\0+\n?", b"\n", text.strip(b"\0"))
    return text.decode("utf-8", "backslashreplace").rstrip("\n").split("\n")
