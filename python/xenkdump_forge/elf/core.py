"""Writes a vmcore: notes, then the host's memory, sparse in the file."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..memory.machine import PAGE, Machine
from . import format as elf
from .notes import Note


@dataclass
class Core:
    """A core file before it is written. A test may change any part of it first."""

    layout: elf.Layout
    machine: int
    memory: Machine
    #: The notes of each PT_NOTE: one of /proc/vmcore, or one for each pCPU and each vmcoreinfo.
    notes: list[list[Note]]
    #: What ``p_vaddr`` counts from; None leaves it at -1.
    page_offset: int | None = None
    #: The first machine address without a ``p_vaddr`` of its own.
    lowmem: int = 1 << 62
    #: Only frames that were written to, each run of them a segment.
    touched_only: bool = False
    #: The most that one segment may cover.
    chop: int = 1 << 62
    #: Where the file ends, if it is to end early.
    cut: int | None = None
    #: The program headers; ``lay_out`` makes them where there are none.
    segments: list[elf.Segment] = field(default_factory=list)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The machine addresses that get a segment."""
        for start, end in self._touched() if self.touched_only else self.memory.ranges:
            for at in range(start, end, self.chop):
                yield at, min(at + self.chop, end)

    def _touched(self) -> list[tuple[int, int]]:
        out: list[tuple[int, int]] = []
        for mfn in sorted(self.memory.frames):
            if out and out[-1][1] == mfn * PAGE:
                out[-1] = (out[-1][0], mfn * PAGE + PAGE)
            else:
                out.append((mfn * PAGE, mfn * PAGE + PAGE))
        return out

    def lay_out(self) -> list[elf.Segment]:
        """The program headers, with their places in the file."""
        ranges = list(self.ranges())
        count = len(ranges) + len(self.notes)
        head = 16 + self.layout.ehdr.size + self.layout.phdr.size * count + self.layout.shdr.size
        at = -(-head // PAGE) * PAGE
        self.segments = []
        for told in self.notes:
            size = sum(len(note.pack()) for note in told)
            self.segments.append(elf.Segment(elf.PT_NOTE, at, 0, size, size, 0, 0))
            at += size
        at = -(-at // PAGE) * PAGE
        for start, end in ranges:
            # As /proc/vmcore has it: the offset in the file keeps the offset in the page.
            at = -(-at // PAGE) * PAGE + start % PAGE
            vaddr = -1
            if self.page_offset is not None and start < self.lowmem:
                vaddr = self.page_offset + start
            size = end - start
            self.segments.append(elf.Segment(elf.PT_LOAD, at, start, size, size, vaddr))
            at += size
        return self.segments

    def write(self, path: Path) -> None:
        """Writes the file; what nobody wrote to becomes a hole of it."""
        segments = self.segments or self.lay_out()
        with path.open("wb") as file:
            fd = file.fileno()
            head = elf.core_head(self.layout, self.machine, segments)
            end = _write_all(fd, head, 0)
            note_segments = [s for s in segments if s.type == elf.PT_NOTE]
            for segment, told in zip(note_segments, self.notes, strict=True):
                raw = b"".join(note.pack() for note in told)
                end = max(end, _write_all(fd, raw, segment.offset))
            for segment in segments:
                if segment.type == elf.PT_LOAD:
                    end = max(end, segment.offset + segment.filesz)
            self._write_memory(fd, [s for s in segments if s.type == elf.PT_LOAD])
            os.ftruncate(fd, end if self.cut is None else min(end, self.cut))

    def _write_memory(self, fd: int, segments: list[elf.Segment]) -> None:
        mfns = sorted(mfn for mfn, data in self.memory.frames.items() if any(data))
        for segment in segments:
            end = segment.paddr + segment.filesz
            for i in range(bisect_left(mfns, segment.paddr // PAGE), len(mfns)):
                at = mfns[i] * PAGE
                if at >= end:
                    break
                skip = max(0, segment.paddr - at)
                data = bytes(self.memory.frames[mfns[i]][skip : end - at])
                _write_all(fd, data, segment.offset + at + skip - segment.paddr)


def _write_all(fd: int, data: bytes, offset: int) -> int:
    """Writes at an offset, however often the system has to be asked; gives where it ended."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
    return offset
