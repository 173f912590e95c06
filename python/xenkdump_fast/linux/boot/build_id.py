"""Whether an image is the very build that the dump holds."""

import struct

from ..._native import AbsentError, MemoryFault
from ..kernel import Kernel

NT_GNU_BUILD_ID = 3
MAX_NOTES = 1 << 16


def mismatch(kernel: Kernel) -> str | None:
    """What differs between the image and the kernel in memory; None where they are one build.

    By the build id where both have one, else by the banner, which has the date of the build in it.
    """
    in_memory = build_id(kernel)
    if in_memory is not None and kernel.image.build_id is not None:
        if in_memory == kernel.image.build_id:
            return None
        return f"build id {kernel.image.build_id}, the kernel in the dump has {in_memory}"
    address = kernel.symbol("linux_banner")
    try:
        expected = kernel.image.read(address - kernel.location.slide, 512).split(b"\0")[0]
    except AbsentError:
        return None
    found = kernel.cstring(address, 512)
    if found == expected:
        return None
    ours, theirs = (text.decode("utf-8", "replace") for text in (expected, found))
    return f"{ours!r}, the dump says {theirs!r}"


def build_id(kernel: Kernel) -> str | None:
    """The build id in the notes of the kernel in memory (2.6.23 on); None if it has none."""
    start, stop = kernel.symbols.get("__start_notes"), kernel.symbols.get("__stop_notes")
    if start is None or stop is None or not 0 < stop - start <= MAX_NOTES:
        return None
    try:
        notes = kernel.data(start, stop - start)
    except MemoryFault:
        return None
    at = 0
    while at + 12 <= len(notes):
        name_size, desc_size, kind = struct.unpack_from("<III", notes, at)
        desc = at + 12 + (name_size + 3 & ~3)
        if kind == NT_GNU_BUILD_ID and notes[at + 12 : at + 16] == b"GNU\0":
            return notes[desc : desc + desc_size].hex()
        at = desc + (desc_size + 3 & ~3)
    return None
