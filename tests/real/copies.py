"""Copies of real dumps whose notes and memory can be replaced."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PT_LOAD, PT_NOTE = 1, 4
PAGE = 4096


class Note(NamedTuple):
    """A note whose descriptor ends in ``zeros`` zero bytes."""

    name: bytes
    kind: int
    desc: bytes
    zeros: int = 0


class Segment(NamedTuple):
    """A program header: its offset in the file, type and fields."""

    header: int
    kind: int
    offset: int
    address: int
    size: int


class Copy:
    """A copy of a dump whose notes can be replaced. Parses the format independently."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        header = self.read(0, 64)
        self.word = 8 if header[4] == 2 else 4
        (start,) = struct.unpack_from("<Q" if self.word == 8 else "<I", header, 24 + self.word)
        size, count = struct.unpack_from("<HH", header, 54 if self.word == 8 else 42)
        form = "<I4xQ8xQQ" if self.word == 8 else "<II4xII"
        self.segments = [
            Segment(at, *struct.unpack_from(form, self.read(at, size)))
            for at in range(start, start + size * count, size)
        ]
        (self.segment,) = (segment for segment in self.segments if segment.kind == PT_NOTE)
        self.notes = list(self._notes(self.read(self.segment.offset, self.segment.size)))
        self.cpus = [note for note in self.notes if note.name == b"CORE"]
        self.others = [note for note in self.notes if note.name != b"CORE"]

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the file."""
        with self.path.open("rb") as file:
            return os.pread(file.fileno(), size, at)

    def offset(self, physical: int) -> int:
        """The file offset of a physical address."""
        return next(
            segment.offset + physical - segment.address
            for segment in self.segments
            if segment.kind == PT_LOAD
            and segment.address <= physical < segment.address + segment.size
        )

    @staticmethod
    def _notes(raw: bytes) -> Iterator[Note]:
        at = 0
        while at + 12 <= len(raw):
            name_size, size, kind = struct.unpack_from("<III", raw, at)
            if not (name_size or size or kind):
                return
            desc = at + 12 + (name_size + 3 & ~3)
            name = raw[at + 12 : at + 12 + name_size].rstrip(b"\0")
            yield Note(name, kind, raw[desc : desc + size])
            at = desc + (size + 3 & ~3)

    def with_notes(self, *notes: Note) -> str:
        """Appends replacement notes to the file and returns its path."""
        start = (self.size + PAGE - 1) & ~(PAGE - 1)
        with self.path.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            for note in notes:
                name = note.name + b"\0" if note.name else b""
                size = len(note.desc) + note.zeros
                file.write(struct.pack("<III", len(name), size, note.kind))
                file.write(name + bytes(-len(name) % 4) + note.desc)
                file.seek(note.zeros + -size % 4, os.SEEK_CUR)
            end = file.tell()
            file.truncate(end)
            offset, sizes = (8, 32) if self.word == 8 else (4, 16)
            form = "<Q" if self.word == 8 else "<I"
            for at, value in ((offset, start), (sizes, end - start), (sizes + self.word, 0)):
                file.seek(self.segment.header + at)
                file.write(struct.pack(form, value))
        return str(self.path)

    def move_program_headers(self) -> None:
        """Moves the program headers behind the ELF header, over the section headers."""
        header = bytearray(self.read(0, 64))
        size, count = struct.unpack_from("<HH", header, 54)
        (start,) = struct.unpack_from("<Q", header, 32)
        assert self.word == 8
        assert 64 + size * count <= self.segment.offset
        struct.pack_into("<QQ", header, 32, 64, 0)
        struct.pack_into("<HHHHHH", header, 52, 64, size, count, 0, 0, 0)
        self.write(0, bytes(header) + self.read(start, size * count))

    def write(self, at: int, data: bytes) -> bytes:
        """Overwrites bytes of the file and returns the old ones."""
        with self.path.open("r+b") as file:
            old = os.pread(file.fileno(), len(data), at)
            os.pwrite(file.fileno(), data, at)
        return old
