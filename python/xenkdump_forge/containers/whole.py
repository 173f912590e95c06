"""Compresses files as a whole.

zstd, which Python's library lacks before 3.14, is written as raw blocks and blocks that repeat a
byte.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import SyntheticDumpError
from ..formats import COMPRESSIONS

#: Bytes that are read at once, and contents of a frame in a seekable file.
PIECE = 1 << 20
#: The largest block of zstd.
_BLOCK = 128 << 10
_MAGIC = b"\x28\xb5\x2f\xfd"
#: Of the skippable frame with the seek table, and of the table.
_SEEK_TABLE, _SEEKABLE = 0x184D2A5E, 0x8F92EAB1


def compress(path: Path, name: str) -> None:
    """Compresses a file in a way of ``COMPRESSIONS``; its name remains."""
    if name not in _WRITERS:
        raise SyntheticDumpError(f"unknown compression {name!r}; known: {', '.join(COMPRESSIONS)}")
    work = path.with_name(f"{path.name}.tmp")
    with path.open("rb") as source, work.open("wb") as target:
        _WRITERS[name](_pieces(source), target)
    work.replace(path)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(PIECE):
        yield piece


def _gzip(pieces: Iterator[bytes], target: BinaryIO) -> None:
    # Without a name and a time: the same bytes each time.
    with gzip.GzipFile("", "wb", 1, target, mtime=0) as file:
        file.writelines(pieces)


def _bzip2(pieces: Iterator[bytes], target: BinaryIO) -> None:
    with bz2.BZ2File(target, "wb", compresslevel=1) as file:
        file.writelines(pieces)


def _xz(pieces: Iterator[bytes], target: BinaryIO) -> None:
    with lzma.LZMAFile(target, "wb", preset=0) as file:
        file.writelines(pieces)


def _zstd(pieces: Iterator[bytes], target: BinaryIO) -> None:
    target.write(frame(pieces))


def _seekable(pieces: Iterator[bytes], target: BinaryIO) -> None:
    sizes = []
    for piece in pieces:
        data = frame(iter([piece]))
        target.write(data)
        sizes.append((len(data), len(piece)))
    target.write(seek_table(sizes))


def frame(pieces: Iterator[bytes]) -> bytes:
    """A frame that does not say how large its contents are, as programs write that read a pipe."""
    out = io.BytesIO()
    # A window of 1 MiB.
    out.write(_MAGIC + b"\x00\x50")
    for piece in pieces:
        for at in range(0, len(piece), _BLOCK):
            block = piece[at : at + _BLOCK]
            if block.strip(block[:1]):
                out.write((len(block) << 3).to_bytes(3, "little") + block)
            else:
                out.write((len(block) << 3 | 2).to_bytes(3, "little") + block[:1])
    # The last block is empty.
    out.write(b"\x01\x00\x00")
    return out.getvalue()


def seek_table(sizes: list[tuple[int, int]], checksums: list[int] | None = None) -> bytes:
    """The seek table of frames with these sizes, in the file and of their contents."""
    table = b""
    for i, entry in enumerate(sizes):
        table += struct.pack("<2I", *entry)
        if checksums is not None:
            table += struct.pack("<I", checksums[i])
    flags = 0 if checksums is None else 0x80
    table += struct.pack("<IBI", len(sizes), flags, _SEEKABLE)
    return struct.pack("<2I", _SEEK_TABLE, len(table)) + table


_WRITERS: dict[str, Callable[[Iterator[bytes], BinaryIO], None]] = {
    "gzip": _gzip,
    "bzip2": _bzip2,
    "xz": _xz,
    "zstd": _zstd,
    "zstd-seekable": _seekable,
}
