"""The flattened format of ``makedumpfile -F``."""

from __future__ import annotations

import struct
from collections.abc import Iterable

#: The largest block that makedumpfile writes.
BLOCK = 64 << 10


def blocks(contents: bytes) -> list[tuple[int, bytes]]:
    """The blocks of a file: an empty header first, then the rest, then the real header."""
    out = [(0, bytes(min(64, len(contents))))]
    out += [(at, contents[at : at + BLOCK]) for at in range(64, len(contents), BLOCK)]
    out.append((0, contents[:64]))
    return out


def pack(parts: Iterable[tuple[int, bytes]], *, is_whole: bool = True) -> bytes:
    """A flattened file of blocks; the last block of a place counts."""
    out = [b"makedumpfile".ljust(16, b"\0") + struct.pack(">2q", 1, 1)]
    out[0] = out[0].ljust(4096, b"\0")
    for offset, data in parts:
        out.append(struct.pack(">2q", offset, len(data)) + data)
    if is_whole:
        out.append(struct.pack(">2q", -1, -1))
    return b"".join(out)


def flatten(contents: bytes) -> bytes:
    """A file in the flattened format."""
    first, *rest = blocks(contents)
    # As makedumpfile, the signature of a dump first.
    return pack([(0, contents[:64]), first, *rest])
