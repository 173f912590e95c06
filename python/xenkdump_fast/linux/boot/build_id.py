"""Whether an image is the same build as the kernel in the dump."""

import re
import struct

from ..._contexts import suppress
from ..._native import AbsentError, AddressSpace, Image, MemoryFault, Symbols
from ..._typing import NamedTuple
from ...limits import MAX_KERNEL_NOTES, MAX_LINUX_BANNER
from .image import BANNER

NT_GNU_BUILD_ID = 3
#: init/version.c: linux_banner consists of the release, the compiler, and the version.
_BANNER = r"Linux version (\S+) .* (#\S.*)"


class Build(NamedTuple):
    """The build of a kernel, as far as it is known."""

    release: str | None
    #: As ``uname -v`` prints it.
    version: str | None = None
    build_id: str | None = None

    @classmethod
    def of(cls, image: Image) -> "Build":
        """The build of an image, by its linux_banner and its build id."""
        address = image.symbols().get("linux_banner")
        text = ""
        if address is not None:
            with suppress(AbsentError):  # not in a file made by objcopy --only-keep-debug
                text = (
                    image.read(address, MAX_LINUX_BANNER).split(b"\0")[0].decode("utf-8", "replace")
                )
        match = re.match(_BANNER, text)
        release, version = match.groups() if match else (None, None)
        return cls(release, version, image.build_id)

    def differs(self, other: "Build") -> bool:
        """Whether something that is known of both is different."""
        if self.build_id is not None and other.build_id is not None:
            return self.build_id != other.build_id
        pairs = ((self.release, other.release), (self.version, other.version))
        return any(None not in pair and pair[0] != pair[1] for pair in pairs)

    def __str__(self) -> str:
        known = " ".join(part for part in (self.release, self.version) if part)
        if self.build_id is None:
            return known or "an unknown build"
        identity = f"build id {self.build_id}"
        return f"{known} ({identity})" if known else identity


def mismatch(image: Image, slide: int, virtual: AddressSpace) -> str | None:
    """How the image differs from the kernel in memory; None if they are one build.

    Compares the build ids if both have one, else the banners, which contain the date of the build.
    """
    symbols = image.symbols(slide)
    in_memory = build_id(symbols, virtual)
    if in_memory is not None and image.build_id is not None:
        if in_memory == image.build_id:
            return None
        return f"build id {image.build_id}, the kernel in the dump has {in_memory}"
    address = symbols["linux_banner"]
    try:
        expected = image.read(address - slide, MAX_LINUX_BANNER).split(b"\0")[0]
    except AbsentError:
        return None
    try:
        found = virtual.cstring(address, MAX_LINUX_BANNER)
    except MemoryFault as fault:
        return f"its linux_banner is at {address:#x}, which cannot be read: {fault.reason}"
    if found == expected:
        return None
    if not found.startswith(BANNER):
        return f"its linux_banner is at {address:#x}, where the dump has none"
    ours, theirs = (text.decode("utf-8", "replace") for text in (expected, found))
    return f"{ours!r}, the dump says {theirs!r}"


def build_id(symbols: Symbols, virtual: AddressSpace) -> str | None:
    """The build id in the notes of the kernel in memory (2.6.23 on); None if it has none."""
    start, stop = symbols.get("__start_notes"), symbols.get("__stop_notes")
    if start is None or stop is None or not 0 < stop - start <= MAX_KERNEL_NOTES:
        return None
    try:
        notes = virtual.read(start, stop - start)
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
