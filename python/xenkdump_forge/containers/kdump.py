"""Writes kdump-compressed dumps, as makedumpfile lays them out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..elf.core import Core
from ..elf.format import EM_386
from ..memory.machine import PAGE
from .compression import CODECS

#: ``status``: the dump is incomplete.
INCOMPLETE = 8


@dataclass(frozen=True)
class Options:
    """How a dump is written."""

    #: zlib, lzo, snappy or zstd; or raw.
    compression: str = "zlib"
    #: In place of the forge's own encoder.
    encoder: Callable[[bytes], bytes] | None = None
    version: int = 6
    signature: bytes = b"KDUMP   "
    #: The dump level; 1 and all odd ones exclude pages of zeros.
    level: int = 0
    #: Further frames that are excluded.
    excluded: Collection[int] = ()
    #: How many pages were not written, of each file: the last ones.
    unwritten: int = 0
    #: Texts outside of the notes.
    vmcoreinfo: bytes = b""
    eraseinfo: bytes = b""
    machine: str | None = None


def write(
    core: Core,
    paths: Sequence[Path],
    options: Options | None = None,
    *,
    compression: str | None = None,
) -> None:
    """Writes a dump; with several paths, the parts of a split one."""
    options = options or Options()
    if compression is not None:
        options = Options(compression=compression)
    writer = _Writer(core, options)
    size = -(-writer.max_mapnr // len(paths))
    for i, path in enumerate(paths):
        end = min((i + 1) * size, writer.max_mapnr)
        path.write_bytes(writer.file((i * size, end) if len(paths) > 1 else None))


class _Writer:
    def __init__(self, core: Core, options: Options) -> None:
        self.core = core
        self.options = options
        self.is_32 = core.machine == EM_386
        ranges = list(core.ranges())
        self.ram = sorted(
            {mfn for start, end in ranges for mfn in range(start // PAGE, -(-end // PAGE))}
        )
        self.max_mapnr = self.ram[-1] + 1 if self.ram else 0
        without_zeros = options.level & 1
        excluded = set(options.excluded)
        self.written = [
            mfn
            for mfn in self.ram
            if mfn not in excluded and not (without_zeros and self._is_zero(mfn))
        ]
        self.bitmap_blocks = 2 * -(-self.max_mapnr // (8 * PAGE))

    def _is_zero(self, mfn: int) -> bool:
        frame = self.core.memory.frames.get(mfn)
        return frame is None or not any(frame)

    def file(self, split: tuple[int, int] | None) -> bytes:
        """The bytes of a file with all pages, or with those of a range."""
        apart = [self._notes(), self.options.vmcoreinfo, self.options.eraseinfo]
        regions, region_bytes = self._regions(apart)
        sub_blocks = -(-(struct.calcsize("<16Q") + len(region_bytes)) // PAGE)
        head = self._header(sub_blocks).ljust(PAGE, b"\0")
        sub = self._sub_header(regions, split).ljust(128, b"\0") + region_bytes
        out = head + sub.ljust(sub_blocks * PAGE, b"\0")
        out += self._bitmap(self.ram) + self._bitmap(self.written)
        return out + self._pages(len(out), split)

    def _notes(self) -> bytes:
        if self.options.version < 4:
            return b""
        return b"".join(note.pack() for group in self.core.notes for note in group)

    def _regions(self, contents: list[bytes]) -> tuple[list[tuple[int, int]], bytes]:
        """Offset and size of each, after the sub-header, and all of them."""
        regions, out = [], b""
        for content in contents:
            at = PAGE + 128 + len(out)
            regions.append((at, len(content)) if content else (0, 0))
            out += content + bytes(-len(content) % 4)
        return regions, out

    def _header(self, sub_blocks: int) -> bytes:
        name = self.options.machine
        if name is None:
            name = "i686" if self.is_32 else "x86_64"
        names = ("Linux", "synthetic", "release", "version", name, "(none)")
        out = self.options.signature + struct.pack("<i", self.options.version)
        out += b"".join(text.encode().ljust(65, b"\0") for text in names)
        out = out.ljust(412 if self.is_32 else 424, b"\0")
        flag = CODECS[self.options.compression][0] if self.options.compression in CODECS else 0
        if self.options.unwritten:
            flag = 1 if self.options.signature == b"DISKDUMP" else flag | INCOMPLETE
        mapnr = min(self.max_mapnr, 0xFFFFFFFF)
        return out + struct.pack("<6I", flag, PAGE, sub_blocks, self.bitmap_blocks, mapnr, 0)

    def _sub_header(self, regions: list[tuple[int, int]], split: tuple[int, int] | None) -> bytes:
        if self.options.signature == b"DISKDUMP":
            # Registers, which nothing reads.
            return b"\xee" * 100
        start, end = split or (0, 0)
        version = self.options.version
        notes, vmcoreinfo, eraseinfo = regions
        long = "I" if self.is_32 else "Q"
        out = struct.pack(f"<{long}ii", 0, self.options.level, int(split is not None))
        out += struct.pack(f"<2{long}", start, end) if version >= 2 else b""
        for needed, (offset, size) in ((3, vmcoreinfo), (4, notes), (5, eraseinfo)):
            # What an older makedumpfile left in the rest of the block.
            known = version >= needed
            out += struct.pack(f"<Q{long}", offset if known else 0, size if known else 0)
        return out + struct.pack("<3Q", start, end, self.max_mapnr) if version >= 6 else out

    def _bitmap(self, pages: list[int]) -> bytes:
        out = bytearray(self.bitmap_blocks // 2 * PAGE)
        for page in pages:
            out[page >> 3] |= 1 << (page & 7)
        return bytes(out)

    def _pages(self, start: int, split: tuple[int, int] | None) -> bytes:
        first, end = split or (0, self.max_mapnr)
        pages = [mfn for mfn in self.written if first <= mfn < end]
        kept = len(pages) - self.options.unwritten
        at = start + 24 * len(pages)
        descriptors, data = bytearray(), bytearray()
        known: dict[bytes, tuple[int, int, int]] = {}
        for i, mfn in enumerate(pages):
            if i >= kept:
                descriptors += bytes(24)
                continue
            page = bytes(self.core.memory.frames.get(mfn, bytes(PAGE)))
            place = known.get(page)
            if place is None:
                flag, packed = self._pack(page)
                place = known[page] = (at + len(data), len(packed), flag)
                data += packed
            descriptors += struct.pack("<QIIQ", *place, 0)
        return bytes(descriptors + data)

    def _pack(self, page: bytes) -> tuple[int, bytes]:
        if self.options.compression not in CODECS:
            return 0, page
        flag, encoder = CODECS[self.options.compression]
        packed = (self.options.encoder or encoder)(page)
        return (flag, packed) if len(packed) < PAGE else (0, page)
