"""Encoders for pages: valid streams of literals and runs, not small ones.

Only zlib is in Python's library. Real encoders use more of each format.
"""

from __future__ import annotations

import re
import struct
import zlib as _zlib
from collections.abc import Iterator

#: A byte, then the same at least seven times.
_RUN = re.compile(rb"(.)\1{7,}", re.DOTALL)


def pieces(page: bytes) -> Iterator[tuple[bytes, int]]:
    """Literals, each with how often its last byte is repeated after it."""
    at = 0
    for run in _RUN.finditer(page):
        yield page[at : run.start() + 1], run.end() - run.start() - 1
        at = run.end()
    if at < len(page):
        yield page[at:], 0


def zlib(page: bytes) -> bytes:
    """As makedumpfile -c."""
    return _zlib.compress(page, 1)


def lzo(page: bytes) -> bytes:
    """LZO1X: long literals, and matches with the byte before."""
    out = bytearray()
    for literal, repeats in pieces(page):
        # In this order only a literal of four bytes or more may follow a match.
        if len(literal) < 4:
            return page
        out += _lzo_length(len(literal) - 3, 15, 0) + literal
        if repeats:
            # M3: a match of any length, less than 16 KiB back; no literals after it.
            out += _lzo_length(repeats - 2, 31, 0x20) + b"\0\0"
    return bytes(out + b"\x11\0\0")


def _lzo_length(length: int, most: int, opcode: int) -> bytes:
    if length <= most:
        return bytes([opcode | length])
    full, rest = divmod(length - most - 1, 255)
    return bytes([opcode]) + bytes(full) + bytes([rest + 1])


def snappy(page: bytes) -> bytes:
    """Raw snappy: literals, and copies with offset 1."""
    out = bytearray(_varint(len(page)))
    for literal, repeats in pieces(page):
        if len(literal) <= 60:
            out.append((len(literal) - 1) << 2)
        else:
            out += bytes([61 << 2]) + struct.pack("<H", len(literal) - 1)
        out += literal
        for done in range(0, repeats, 64):
            count = min(repeats - done, 64)
            out += bytes([(count - 1) << 2 | 2]) + struct.pack("<H", 1)
    return bytes(out)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zstd(page: bytes) -> bytes:
    """A zstd frame of raw blocks and of blocks that repeat a byte."""
    # Magic number; single segment; content size of two bytes, to which 256 is added.
    out = bytearray(b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", len(page) - 256))
    blocks = []
    for literal, repeats in pieces(page):
        blocks.append((0, len(literal), literal))
        if repeats:
            blocks.append((1, repeats, literal[-1:]))
    for i, (kind, size, data) in enumerate(blocks):
        last = i == len(blocks) - 1
        out += (size << 3 | kind << 1 | last).to_bytes(3, "little") + data
    return bytes(out)


#: By name: the flag of a page descriptor, and the encoder.
CODECS = {"zlib": (1, zlib), "lzo": (2, lzo), "snappy": (4, snappy), "zstd": (0x20, zstd)}
