"""Writes a vmcore: notes, then the host's memory, sparse in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import elf
from .machine import PAGE, Machine


@dataclass
class Core:
    """A core file before it is written. A test may change any part of it first."""

    layout: elf.Layout
    machine: int
    memory: Machine
    #: The content of each PT_NOTE: one of /proc/vmcore, or one for each pCPU.
    notes: list[bytes]
    #: What ``p_vaddr`` counts from; None leaves it at -1.
    page_offset: int | None = None
    #: The last machine address with a ``p_vaddr`` of its own.
    lowmem: int = 1 << 62
    #: Only frames that were written to, each run of them a segment.
    touched_only: bool = False
    segments: list[elf.Segment] = field(default_factory=list)

    def ranges(self) -> list[tuple[int, int]]:
        """The machine addresses that get a segment."""
        if not self.touched_only:
            return self.memory.ranges
        out: list[tuple[int, int]] = []
        for mfn in sorted(self.memory.frames):
            if out and out[-1][1] == mfn * PAGE:
                out[-1] = (out[-1][0], mfn * PAGE + PAGE)
            else:
                out.append((mfn * PAGE, mfn * PAGE + PAGE))
        return out

    def lay_out(self) -> list[elf.Segment]:
        """The program headers, with their places in the file."""
        ranges = self.ranges()
        count = len(ranges) + len(self.notes)
        head = 16 + self.layout.ehdr.size + self.layout.phdr.size * count + self.layout.shdr.size
        at = -(-head // PAGE) * PAGE
        segments = []
        for raw in self.notes:
            segments.append(elf.Segment(elf.PT_NOTE, at, 0, len(raw), len(raw), 0, 0))
            at += -(-len(raw) // 4) * 4
        at = -(-at // PAGE) * PAGE
        for start, end in ranges:
            # As /proc/vmcore has it: the offset in the file keeps the offset in the page.
            at = -(-at // PAGE) * PAGE + start % PAGE
            vaddr = -1
            if self.page_offset is not None and start < self.lowmem:
                vaddr = self.page_offset + start
            size = end - start
            segments.append(elf.Segment(elf.PT_LOAD, at, start, size, size, vaddr))
            at += size
        return segments

    def write(self, path: Path) -> None:
        """Writes the file."""
        segments = self.segments or self.lay_out()
        self.segments = segments
        with path.open("wb") as file:
            file.write(elf.core_head(self.layout, self.machine, segments))
            note_segments = [s for s in segments if s.type == elf.PT_NOTE]
            for segment, raw in zip(note_segments, self.notes, strict=True):
                elf.write_sparse(file, segment.offset, raw)
            end = file.tell()
            loads = [s for s in segments if s.type == elf.PT_LOAD]
            for segment in loads:
                end = max(end, segment.offset + segment.filesz)
                self._write_segment(file.fileno(), segment)
            file.truncate(end)

    def _write_segment(self, fd: int, segment: elf.Segment) -> None:
        import os

        first, last = segment.paddr // PAGE, -(-(segment.paddr + segment.filesz) // PAGE)
        frames = self.memory.frames
        mfns: Sequence[int] = sorted(m for m in frames if first <= m < last)
        for mfn in mfns:
            data = frames[mfn]
            at = mfn * PAGE - segment.paddr
            skip = max(0, -at)
            keep = min(PAGE, segment.filesz - at)
            if any(data):
                os.pwrite(fd, bytes(data[skip:keep]), segment.offset + at + skip)
