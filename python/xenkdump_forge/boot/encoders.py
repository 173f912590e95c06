"""Encoders for the compressions of Linux's kernels.

Those that Python does not have are valid streams of literals and runs, not small ones.
"""

from __future__ import annotations

import bz2 as _bz2
import gzip as _gzip
import lzma as _lzma
import struct
import zlib
from collections.abc import Callable, Iterator

from ..containers import compression

#: Bytes of a block of lzop, of a legacy frame of lz4, of zstd.
_LZOP_BLOCK = 256 << 10
_LZ4_BLOCK = 8 << 20
_ZSTD_BLOCK = 128 << 10


def gzip(data: bytes) -> bytes:
    """As ``gzip -n -6``."""
    return _gzip.compress(data, 6, mtime=0)


def bzip2(data: bytes) -> bytes:
    """As ``bzip2 -9``."""
    return _bz2.compress(data)


def lzma(data: bytes) -> bytes:
    """As ``lzma -9``: without a magic number, and without the size."""
    return _lzma.compress(data, _lzma.FORMAT_ALONE)


def xz(data: bytes) -> bytes:
    """As scripts/xz_wrap.sh: with the filter for x86, and CRC32."""
    filters = [{"id": _lzma.FILTER_X86}, {"id": _lzma.FILTER_LZMA2, "dict_size": 1 << 22}]
    return _lzma.compress(data, _lzma.FORMAT_XZ, _lzma.CHECK_CRC32, filters=filters)


def lzo(data: bytes) -> bytes:
    """As ``lzop``."""
    # The versions of lzop, of its library, and the one needed; LZO1X-1, level, flags (Adler-32 of
    # the unpacked data), mode, time, an empty name.
    header = struct.pack(">HHHBBIIIIB", 0x1040, 0x20A0, 0x0940, 1, 5, 1, 0o100644, 0, 0, 0)
    out = bytearray(b"\x89LZO\0\r\n\x1a\n" + header + struct.pack(">I", zlib.adler32(header)))
    for block in _blocks(data, _LZOP_BLOCK):
        packed = compression.lzo(block)
        if len(packed) >= len(block):
            packed = block
        out += struct.pack(">III", len(block), len(packed), zlib.adler32(block)) + packed
    return bytes(out + bytes(4))


def lz4(data: bytes) -> bytes:
    """As ``lz4 -l``."""
    out = bytearray(struct.pack("<I", 0x184C2102))
    for block in _blocks(data, _LZ4_BLOCK):
        packed = _lz4_block(block)
        out += struct.pack("<I", len(packed)) + packed
    return bytes(out)


def _lz4_block(data: bytes) -> bytes:
    """A block: literals, and matches with the byte before. Its last twelve bytes are literals."""
    out = bytearray()
    body = max(len(data) - 12, 0)
    pending = b""
    for literal, repeats in compression.pieces(data[:body]):
        pending += literal
        if repeats >= 4:
            out += _lz4_sequence(pending, repeats)
            pending = b""
        else:
            pending += literal[-1:] * repeats
    return bytes(out + _lz4_sequence(pending + data[body:], 0))


def _lz4_sequence(literal: bytes, match: int) -> bytes:
    long_literal, long_match = min(len(literal), 15), min(max(match - 4, 0), 15)
    out = bytes([long_literal << 4 | long_match])
    if long_literal == 15:
        out += _lz4_length(len(literal) - 15)
    out += literal
    if match:
        out += struct.pack("<H", 1)
        if long_match == 15:
            out += _lz4_length(match - 4 - 15)
    return out


def _lz4_length(length: int) -> bytes:
    full, rest = divmod(length, 255)
    return b"\xff" * full + bytes([rest])


def zstd(data: bytes) -> bytes:
    """A zstd frame of raw blocks and of blocks that repeat a byte."""
    # Magic number; single segment; content size of four bytes.
    out = bytearray(b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)))
    blocks: list[tuple[int, int, bytes]] = []
    for literal, repeats in compression.pieces(data):
        blocks += ((0, len(part), part) for part in _blocks(literal, _ZSTD_BLOCK))
        for done in range(0, repeats, _ZSTD_BLOCK):
            blocks.append((1, min(repeats - done, _ZSTD_BLOCK), literal[-1:]))
    for i, (kind, size, part) in enumerate(blocks):
        last = i == len(blocks) - 1
        out += (size << 3 | kind << 1 | last).to_bytes(3, "little") + part
    return bytes(out)


def _blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


#: By the name of the compression in Linux's configuration.
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip,
    "bzip2": bzip2,
    "lzma": lzma,
    "xz": xz,
    "lzo": lzo,
    "lz4": lz4,
    "zstd": zstd,
}
