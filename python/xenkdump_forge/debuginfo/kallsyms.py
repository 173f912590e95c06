"""kallsyms: the table of symbols in a kernel's memory, as ``scripts/kallsyms`` writes it.

Names are compressed: each byte stands for one of 256 tokens.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import SyntheticDumpError

#: The first version with each form of the table.
GENERATIONS = ("2.6.10", "4.6", "4.20", "6.1", "6.2", "6.4", "6.15", "7.0")
#: Pairs of characters that get tokens. The real table has as many as there are free bytes.
_PAIRS = 40
_BLOCK = 256


class Symbol(NamedTuple):
    """A symbol with the letter that nm shows."""

    address: int
    letter: str
    name: str


class Table(NamedTuple):
    """The table, and where its parts are."""

    data: bytes
    #: Addresses of the arrays, by their names.
    parts: dict[str, int]


def table(
    symbols: Sequence[Symbol], generation: str, word: int, at: int, *, absolute_percpu: bool = True
) -> Table:
    """The table of symbols as in one of ``GENERATIONS``, to be put at address ``at``.

    ``absolute_percpu`` is CONFIG_KALLSYMS_ABSOLUTE_PERCPU, for 4.6 to 6.14.
    """
    since = GENERATIONS.index(generation)
    ordered = sorted(symbols, key=lambda symbol: symbol.address)
    align = 4 if since >= GENERATIONS.index("7.0") else word
    pointer = "<Q" if word == 8 else "<I"
    number = pointer if since < GENERATIONS.index("4.20") else "<I"
    tokens = _tokens([symbol.letter + symbol.name for symbol in ordered])
    names, markers = _names(ordered, tokens, long=since >= GENERATIONS.index("6.1"))
    strings = [token + b"\0" for token in tokens]
    starts = [sum(map(len, strings[:i])) for i in range(256)]
    by_name = sorted(range(len(ordered)), key=lambda i: ordered[i].name)
    parts = {
        "num_syms": struct.pack(number, len(ordered)),
        "names": names,
        "markers": b"".join(struct.pack(number, mark) for mark in markers),
        "token_table": b"".join(strings),
        "token_index": struct.pack("<256H", *starts),
        "seqs_of_names": b"".join(i.to_bytes(3, "big") for i in by_name),
    }
    inner = ["num_syms", "names", "markers", "token_table", "token_index"]
    if since < GENERATIONS.index("4.6"):
        order = ["addresses", *inner]
        mask = (1 << 8 * word) - 1
        addresses = (struct.pack(pointer, symbol.address & mask) for symbol in ordered)
        parts["addresses"] = b"".join(addresses)
    elif since < GENERATIONS.index("6.4"):
        order = ["offsets", "relative_base", *inner]
        if since == GENERATIONS.index("6.2"):
            order.insert(-2, "seqs_of_names")
    elif since < GENERATIONS.index("7.0"):
        order = [*inner, "offsets", "relative_base", "seqs_of_names"]
    else:
        order = [*inner, "offsets", "seqs_of_names"]
    if "offsets" in order:
        parts["offsets"] = bytes(4 * len(ordered))
    places = _places(order, parts, at, align)
    if "relative_base" in order:
        percpu = absolute_percpu and since < GENERATIONS.index("6.15")
        base = min(symbol.address for symbol in ordered if _is_located(symbol, word))
        parts["relative_base"] = struct.pack(pointer, base)
        parts["offsets"] = b"".join(_offset(symbol, base, word, percpu) for symbol in ordered)
        places = _places(order, parts, at, align)
    elif "offsets" in order:
        parts["offsets"] = b"".join(
            struct.pack("<i", symbol.address - (places["offsets"] + 4 * i))
            for i, symbol in enumerate(ordered)
        )
    data = b""
    for name in order:
        data = data.ljust(places[name] - at, b"\0") + parts[name]
    return Table(data, places)


def _is_located(symbol: Symbol, word: int) -> bool:
    """Whether it is not an offset into the per-CPU areas or a constant."""
    return symbol.address >= 1 << (8 * word - 2)


def _offset(symbol: Symbol, base: int, word: int, percpu: bool) -> bytes:
    if not percpu:
        return struct.pack("<I", symbol.address - base)
    if _is_located(symbol, word):
        return struct.pack("<i", base - symbol.address - 1)
    return struct.pack("<i", symbol.address)


def _places(order: Sequence[str], parts: dict[str, bytes], at: int, align: int) -> dict[str, int]:
    places = {}
    for name in order:
        at = -(-at // align) * align
        places[name] = at
        at += len(parts.get(name, bytes(align)))
    return places


def _tokens(texts: Sequence[str]) -> list[bytes]:
    """Characters that occur, and digits, stand for themselves; other bytes for frequent pairs."""
    used = {ord(char) for text in texts for char in text} | set(b"0123456789")
    pairs = Counter(text[i : i + 2] for text in texts for i in range(len(text) - 1))
    frequent = [pair.encode() for pair, _ in pairs.most_common(_PAIRS)]
    free = iter(frequent)
    return [bytes([i]) if i in used else next(free, b"") for i in range(256)]


def _names(
    symbols: Sequence[Symbol], tokens: Sequence[bytes], *, long: bool
) -> tuple[bytes, list[int]]:
    """The compressed names, and the offset of every 256th."""
    by_text = {token: i for i, token in enumerate(tokens) if token}
    names = bytearray()
    markers = []
    for i, symbol in enumerate(symbols):
        if i % _BLOCK == 0:
            markers.append(len(names))
        text = (symbol.letter + symbol.name).encode()
        packed = bytearray()
        at = 0
        while at < len(text):
            size = 2 if text[at : at + 2] in by_text and at + 2 <= len(text) else 1
            packed.append(by_text[text[at : at + size]])
            at += size
        if len(packed) < 0x80:
            names.append(len(packed))
        elif long:
            names += bytes([len(packed) & 0x7F | 0x80, len(packed) >> 7])
        else:
            raise SyntheticDumpError(f"the name {symbol.name} is too long before Linux 6.1")
        names += packed
    return bytes(names), markers
