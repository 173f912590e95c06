"""Writes a vmcore: notes, then the host's memory, as a sparse file."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..memory.machine import PAGE, MachineMemory
from . import format as elf
from .notes import Note


@dataclass
class Core:
    """A core file before it is written; tests may change any part of it."""

    layout: elf.Layout
    machine: int
    memory: MachineMemory
    #: The notes of each PT_NOTE: one as in /proc/vmcore, or one per pCPU and vmcoreinfo.
    notes: list[list[Note]]
    #: ``p_vaddr`` of machine address 0; None if every ``p_vaddr`` is -1.
    page_offset: int | None = None
    #: The first machine address without a ``p_vaddr``.
    lowmem: int = 1 << 62
    #: One segment per run of frames that were written to, instead of ``memory.ranges``.
    touched_only: bool = False
    #: The maximum size of a segment.
    chop: int = 1 << 62
    #: The size to which the file is truncated.
    cut: int | None = None
    #: The program headers; empty until ``lay_out``.
    segments: list[elf.Segment] = field(default_factory=list)
    #: Called with the numbers of pages written, and of all.
    progress: Callable[[int, int], None] = lambda done, total: None

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The machine addresses of the segments."""
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
        """Makes the program headers, with their file offsets."""
        ranges = list(self.ranges())
        count = len(ranges) + len(self.notes)
        head = 16 + self.layout.ehdr.size + self.layout.phdr.size * count + self.layout.shdr.size
        at = -(-head // PAGE) * PAGE
        self.segments = []
        for group in self.notes:
            size = sum(len(note.pack()) for note in group)
            self.segments.append(elf.Segment(elf.PT_NOTE, at, 0, size, size, 0, 0))
            at += size
        at = -(-at // PAGE) * PAGE
        for start, end in ranges:
            # As in /proc/vmcore, the file offset and the address are equal modulo the page size.
            at = -(-at // PAGE) * PAGE + start % PAGE
            vaddr = -1
            if self.page_offset is not None and start < self.lowmem:
                vaddr = self.page_offset + start
            size = end - start
            self.segments.append(elf.Segment(elf.PT_LOAD, at, start, size, size, vaddr))
            at += size
        return self.segments

    def write(self, path: Path) -> None:
        """Writes the file; frames that were not written to become holes."""
        segments = self.segments or self.lay_out()
        with path.open("wb") as file:
            fd = file.fileno()
            head = elf.core_head(self.layout, self.machine, segments)
            end = _write_all(fd, head, 0)
            note_segments = [s for s in segments if s.type == elf.PT_NOTE]
            for segment, group in zip(note_segments, self.notes, strict=True):
                raw = b"".join(note.pack() for note in group)
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
                self.progress(i, len(mfns))
                skip = max(0, segment.paddr - at)
                data = bytes(self.memory.frames[mfns[i]][skip : end - at])
                _write_all(fd, data, segment.offset + at + skip - segment.paddr)


def _write_all(fd: int, data: bytes, offset: int) -> int:
    """Writes at an offset; returns the offset after the data."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
    return offset
