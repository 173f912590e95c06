"""Copies of ELF64 dumps from which pages of machine memory can be left out."""

import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path

PAGE = 4096
PT_LOAD = 1
HEADER = struct.Struct("<IIQQQQQQ")


class Dump:
    """The copy. Its program headers are written anew at its end; the rest of it stays as it is."""

    def __init__(self, source: str, path: Path) -> None:
        shutil.copyfile(source, path)
        self.path = str(path)
        with open(path, "rb") as file:
            header = file.read(64)
            (start,) = struct.unpack_from("<Q", header, 32)
            (count,) = struct.unpack_from("<H", header, 56)
            file.seek(start)
            self._headers = [HEADER.unpack(file.read(HEADER.size)) for _ in range(count)]
            self._end = file.seek(0, os.SEEK_END) + 7 & ~7

    def leave_out(self, pages: Iterable[int]) -> str:
        """Leaves out the pages with these machine addresses, and no others; returns the path."""
        headers = self._headers
        for page in pages:
            headers = [part for header in headers for part in _without(header, page)]
        with open(self.path, "r+b") as file:
            file.truncate(self._end)
            file.seek(32)
            file.write(struct.pack("<Q", self._end))
            file.seek(56)
            file.write(struct.pack("<H", len(headers)))
            file.seek(self._end)
            file.writelines(HEADER.pack(*header) for header in headers)
        return self.path


def _without(header: tuple[int, ...], page: int) -> Iterable[tuple[int, ...]]:
    """The parts of a segment before and after a page."""
    kind, flags, offset, vaddr, paddr, filesz, memsz, align = header
    if kind != PT_LOAD or not paddr <= page < paddr + memsz:
        yield header
        return
    before, after = page - paddr, page + PAGE - paddr
    if before:
        yield kind, flags, offset, vaddr, paddr, min(filesz, before), before, align
    if after < memsz:
        rest = (vaddr + after) % (1 << 64), page + PAGE
        yield kind, flags, offset + after, *rest, max(filesz - after, 0), memsz - after, align
