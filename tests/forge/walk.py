"""Reads a dump using only ``struct``: an ELF core, page tables, a frame-list tree.

It shares no code with the reader or the generator, so that an error in either is detected.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path


class Core:
    """The PT_LOADs and notes of an ELF core of either class."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        ident = self.at(0, 16)
        assert ident[:4] == b"\x7fELF"
        self.word = 4 * ident[4]
        self.loads: list[tuple[int, int, int]] = []
        self.notes: list[tuple[str, int, bytes]] = []
        head = self.at(0, 64)
        if self.word == 8:
            phoff, count = (
                struct.unpack_from("<Q", head, 32)[0],
                struct.unpack_from("<H", head, 56)[0],
            )
        else:
            phoff, count = (
                struct.unpack_from("<I", head, 28)[0],
                struct.unpack_from("<H", head, 44)[0],
            )
        self.machine = struct.unpack_from("<H", head, 18)[0]
        for i in range(count):
            if self.word == 8:
                kind, _, offset, _, paddr, size = struct.unpack_from(
                    "<IIQQQQ", self.at(phoff + 56 * i, 56)
                )
            else:
                kind, offset, _, paddr, size = struct.unpack_from(
                    "<5I", self.at(phoff + 32 * i, 32)
                )
            if kind == 4:
                self._notes(self.at(offset, size))
            else:
                assert kind == 1
                self.loads.append((paddr, offset, size))

    def at(self, offset: int, size: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def close(self) -> None:
        os.close(self.fd)

    def _notes(self, raw: bytes) -> None:
        at = 0
        while at < len(raw):
            namesz, descsz, kind = struct.unpack_from("<III", raw, at)
            name = raw[at + 12 : at + 12 + namesz].rstrip(b"\0").decode()
            desc = at + 12 + (namesz + 3 & ~3)
            self.notes.append((name, kind, raw[desc : desc + descsz]))
            at = desc + (descsz + 3 & ~3)

    def machine_read(self, address: int, size: int) -> bytes:
        """Bytes that are within one page."""
        for paddr, offset, length in self.loads:
            if paddr <= address and address + size <= paddr + length:
                return self.at(offset + address - paddr, size)
        raise KeyError(hex(address))

    def machine_word(self, address: int, size: int) -> int:
        return int.from_bytes(self.machine_read(address, size), "little")

    def walk(self, paging: str, root: int, va: int) -> int:
        """The machine address of a virtual address; KeyError if it is not mapped."""
        shifts, size = {
            "x86": ((22, 12), 4),
            "x86-pae": ((30, 21, 12), 8),
            "x86_64": ((39, 30, 21, 12), 8),
        }[paging]
        mask = 0x000FFFFFFFFFF000 if size == 8 else 0xFFFFF000
        at = root & ~0xFFF if paging != "x86-pae" else root & ~0x1F
        for level, shift in enumerate(shifts):
            width = (
                (48 if paging == "x86_64" else 32) - shift
                if level == 0
                else (9 if size == 8 else 10)
            )
            index = va >> shift & ((1 << width) - 1)
            entry = self.machine_word(at + index * size, size)
            if not entry & 1:
                raise KeyError(f"{va:#x}: entry {entry:#x} at shift {shift}")
            last = shift == 12 or (entry & 0x80 and not (paging == "x86-pae" and level == 0))
            if last:
                return (entry & mask & ~((1 << shift) - 1)) + (va & ((1 << shift) - 1))
            at = entry & mask
        raise AssertionError

    def read(self, paging: str, root: int, va: int, size: int) -> bytes:
        out = b""
        while len(out) < size:
            here = va + len(out)
            n = min(4096 - here % 4096, size - len(out))
            out += self.machine_read(self.walk(paging, root, here), n)
        return out

    def tree_entry(self, top_mfn: int, word: int, pfn: int) -> int | None:
        """The entry of a frame-list tree; None if a slot on the path is 0."""
        per_page = 4096 // word
        at = top_mfn
        for divisor in (per_page * per_page, per_page, 1):
            at = self.machine_word(at * 4096 + pfn // divisor % per_page * word, word)
            if at == 0 and divisor != 1:
                return None
        return at
