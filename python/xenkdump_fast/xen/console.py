"""Xen's console ring: what ``xl dmesg`` would have shown."""

from collections.abc import Iterator
from dataclasses import dataclass

from .._native import AbsentError
from ..budget import Allowance
from .host import XenHost
from .memory import IMAGE_ALIGN, PAGE

#: A ring has at least 16 KiB (_CONRING_SIZE), and its size is a power of two (conring_size=), for
#: which nobody asks more than a few MiB.
_LEAST, _MOST = 1 << 14, 1 << 24
#: Where the ring is sought without xen-syms: Xen's image is a few MiB long.
_IMAGE_SIZE = 16 << 20
#: Every line that Xen itself writes starts so.
_PREFIX = b"(XEN) "


@dataclass(frozen=True, slots=True)
class Console:
    """The text of the ring, oldest line first."""

    lines: list[str]
    #: Whether older text has been written over.
    overwritten: bool
    #: How it was found.
    how: str


def read(xen: XenHost) -> Console:
    """Reads the ring; AbsentError if it cannot be found.

    With xen-syms by ``conring`` and what stands beside it; without, by what it holds.
    """
    if xen.symbols is not None and "conring" in xen.symbols:
        return _by_symbols(xen)
    for data in _candidates(xen):
        text, _, _ = data.partition(b"\0")
        full = len(text) == len(data)
        if full:
            xen.warnings.append(
                "the console ring is full: without xen-syms its oldest line is not known, and it "
                "is shown as it lies"
            )
        return Console(_lines(text), full, "its text")
    raise AbsentError(f"{xen.dump.path}: Xen's console ring was not found; xen-syms would tell")


def _by_symbols(xen: XenHost) -> Console:
    """``conring`` is a pointer since 3.4, the ring itself before."""
    memory, symbols = xen.memory, xen.symbols
    assert symbols is not None
    at = symbols["conring"]
    symbol = symbols.lookup(at)
    size = symbol.size if symbol is not None else 0
    start: int | None = at
    if size <= memory.word:
        start = memory.pointer(at)
        size_at = symbols.get("conring_size")
        size = (memory.number(size_at, 4) if size_at is not None else None) or _LEAST
    producer_at = symbols.get("conringp")
    producer = memory.number(producer_at, 4) if producer_at is not None else None
    most = min(_MOST, xen.dump.memory_held)
    if not start or producer is None or size & (size - 1) or not _LEAST <= size <= most:
        raise AbsentError(f"{xen.dump.path}: Xen's console ring is damaged")
    data = memory.read(start, size)
    if data is None:
        raise AbsentError(f"{xen.dump.path}: Xen's console ring at {start:#x} cannot be read")
    overwritten = producer > size
    # conringp counts all that was ever written.
    split = producer % size if overwritten else 0
    text = data[split:] + data[:split] if overwritten else data[:producer]
    return Console(_lines(text), overwritten, "conring")


def _candidates(xen: XenHost) -> Iterator[bytes]:
    """What pointers in Xen's image lead to and looks like a console ring."""
    memory = xen.memory
    base = (xen.facts.head or xen.pc or 0) // IMAGE_ALIGN * IMAGE_ALIGN
    seen = set()
    # No page is looked at twice, unless page tables have several addresses for it.
    room = Allowance(xen.dump.memory_held)
    for page in range(base, base + _IMAGE_SIZE, PAGE):
        for pointer in memory.words(page, PAGE) or ():
            if pointer % PAGE or pointer in seen or not memory.is_xen(pointer):
                continue
            if not room.take(PAGE):
                return
            seen.add(pointer)
            head = memory.read(pointer, PAGE)
            if head is not None and head.count(b"\n" + _PREFIX) >= 8:
                yield _ring_at(xen, pointer)


def _ring_at(xen: XenHost, start: int) -> bytes:
    """The ring at ``start``: it doubles while there is text in its second half."""
    size = _LEAST
    data = xen.memory.read(start, size) or b""
    while len(data) == size < min(_MOST, xen.dump.memory_held) and b"\0" not in data:
        more = xen.memory.read(start + size, size) or b""
        if more.count(b"\n" + _PREFIX) * 500 < size:
            break
        data, size = data + more, size * 2
    return data


def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "backslashreplace").rstrip("\n").split("\n")
