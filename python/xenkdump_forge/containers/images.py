"""Images of memory without notes."""

from __future__ import annotations

import io
import struct

from ..elf.core import Core
from ..memory.machine import PAGE


def lime(core: Core, file: io.BufferedIOBase) -> None:
    """A LiME image: each range of memory after its header."""
    for start, end in core.ranges():
        file.write(struct.pack("<IIQQ8x", 0x4C694D45, 1, start, end - 1))
        _memory(core, file, file.tell() - start, (start, end))


def raw(core: Core, file: io.BufferedIOBase) -> None:
    """An image from address 0 on, with zeros where there is no memory (LiME's "padded")."""
    for start, end in core.ranges():
        _memory(core, file, 0, (start, end))


def _memory(core: Core, file: io.BufferedIOBase, base: int, part: tuple[int, int]) -> None:
    """Writes memory to its address plus ``base``; frames that were not written to become holes."""
    start, end = part
    for mfn in sorted(core.memory.frames):
        at = max(start, mfn * PAGE)
        last = min(end, (mfn + 1) * PAGE)
        if at < last:
            file.seek(base + at)
            file.write(core.memory.frames[mfn][at - mfn * PAGE : last - mfn * PAGE])
    file.truncate(base + end)
    file.seek(base + end)
