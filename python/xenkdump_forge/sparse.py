"""Sparse dumps of hosts with terabytes: nearly all of the file is holes."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from math import gcd
from os import PathLike
from pathlib import Path

from .elf import format as elf
from .elf import notes
from .errors import SyntheticDumpError, WriteError
from .memory.machine import PAGE, MachineMemory
from .memory.paging import ACCESSED, DIRTY, NX, PRESENT, USER, WRITE, X86_64, PageTables

_PAGE_OFFSET = 0xFFFF888000000000
#: Entries of one P2M page, and the pages that one leaf table maps: 2 MiB.
_RUN = 512
_DATA = PRESENT | WRITE | USER | ACCESSED | DIRTY | NX
_INVALID = (1 << 64) - 1


@dataclass(frozen=True)
class SparseDump:
    """A vmcore of a 64-bit Xen host with one large dom0, little of which is populated."""

    path: Path
    #: Length of the P2M in pfns.
    pages: int
    #: mfn of the top page of the frame-list tree.
    frame_list_list: int
    #: Machine address of the root, which maps the populated runs at PAGE_OFFSET.
    root: int
    #: The populated runs of 512 pfns: the number of the run, and its first mfn.
    runs: dict[int, int]
    segments: int

    @property
    def page_offset(self) -> int:
        """The start of the direct map."""
        return _PAGE_OFFSET

    def mfn(self, pfn: int) -> int | None:
        """The mfn of a pfn; None if it is not populated."""
        first = self.runs.get(pfn // _RUN)
        return None if first is None else first + pfn % _RUN


def write_sparse_dump(
    path: str | PathLike[str],
    memory: int = 1 << 40,
    segments: int = 8000,
    guest: int = 512 << 30,
    *,
    populated: int = 8 << 30,
) -> SparseDump:
    """Writes a vmcore of a host with ``memory`` bytes in ``segments`` PT_LOADs.

    Its dom0 has a P2M for ``guest`` bytes, of which ``populated`` have frames, in runs of 2 MiB
    that are scattered over both. Raises SyntheticDumpError.
    """
    if guest > 512 << 30:
        raise SyntheticDumpError("a frame-list tree of a 64-bit guest ends at 512 GiB")
    layout = _segments(memory, segments)
    pages, stride = guest // PAGE, max(1, guest // max(populated, 1))
    count = min(populated, guest) // (_RUN * PAGE)
    machine = MachineMemory(memory)
    frames = _Frames(layout)
    runs = {i * stride: frames.run(i, count) for i in range(count)}
    tree = _tree(machine, frames, pages, runs)
    root = _tables(machine, frames, runs)
    packed_notes = notes.prstatus(8, {"rip": 0xFFFF82D040221234, "rsp": 0, "cs": 0xE008}).pack()
    packed_notes += notes.crash_regs(8, 0x80050033, 0, root, 0x150660).pack()
    packed_notes += notes.crash_info(8, [4, 17, 0, 0, 0, 0, 0, 0, 0, tree]).pack()
    target = Path(path)
    work = target.with_name(f".{target.name}.tmp")
    try:
        _write(work, layout, packed_notes, machine)
        work.replace(target)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise WriteError(f"cannot write {target}: {error.strerror}") from error
    return SparseDump(target, pages, tree, root, runs, len(layout))


def _segments(memory: int, count: int) -> list[tuple[int, int]]:
    """Equal ranges, multiples of 2 MiB, with gaps of 2 MiB between them."""
    step = memory // count // (_RUN * PAGE) * (_RUN * PAGE)
    if step < 4 * _RUN * PAGE:
        raise SyntheticDumpError(f"{memory} bytes are too few for {count} segments")
    return [(i * step, (i + 1) * step - _RUN * PAGE) for i in range(count)]


class _Frames:
    """Allocates frames: tables at the start of the segments, runs scattered after them."""

    def __init__(self, layout: list[tuple[int, int]]) -> None:
        self.layout = layout
        self._tables = iter(
            mfn
            for start, _ in layout
            for mfn in range(start // PAGE + (0 if start else 16), start // PAGE + _RUN)
        )

    def table(self) -> int:
        """A frame for the P2M or a page table, in the first 2 MiB of a segment."""
        return next(self._tables)

    def run(self, i: int, count: int) -> int:
        """512 consecutive frames, each run once."""
        # The step is coprime to the number of segments, so that each is visited once per round.
        step = 2_654_435_761 % len(self.layout) | 1
        while gcd(step, len(self.layout)) != 1:
            step += 2
        start, end = self.layout[i * step % len(self.layout)]
        free = (end - start) // (_RUN * PAGE) - 1
        round_ = i // len(self.layout)
        if round_ >= free:
            raise SyntheticDumpError(
                f"the host is too small for {count * _RUN * PAGE} populated bytes"
            )
        return start // PAGE + (1 + round_) * _RUN


def _tree(machine: MachineMemory, frames: _Frames, pages: int, runs: dict[int, int]) -> int:
    """Writes the frame-list tree; as in pvops, shared pages are used for unpopulated ranges."""
    top, missing, mid_missing = frames.table(), frames.table(), frames.table()
    machine.write(missing * PAGE, b"\xff" * PAGE)
    machine.write(mid_missing * PAGE, array("Q", [missing] * 512).tobytes())
    mids = array("Q", [mid_missing] * 512)
    for i in range(-(-pages // (512 * 512))):
        mid = array("Q", [missing] * 512)
        for j in range(512):
            first = runs.get(i * 512 + j)
            if first is not None:
                mid[j] = frames.table()
                machine.write(mid[j] * PAGE, array("Q", range(first, first + _RUN)).tobytes())
        mids[i] = frames.table()
        machine.write(mids[i] * PAGE, mid.tobytes())
    machine.write(top * PAGE, mids.tobytes())
    return top


def _tables(machine: MachineMemory, frames: _Frames, runs: dict[int, int]) -> int:
    """Writes page tables that map the populated runs in the direct map."""
    tables = PageTables(X86_64, machine, frames.table)
    for run, first in runs.items():
        tables.map_run(_PAGE_OFFSET + run * _RUN * PAGE, range(first, first + _RUN), _DATA)
    return tables.root * PAGE


def _write(
    path: Path, layout: list[tuple[int, int]], packed_notes: bytes, machine: MachineMemory
) -> None:
    head = 64 + 56 * (len(layout) + 1) + 64
    note_at = -(-head // PAGE) * PAGE
    at = note_at + -(-len(packed_notes) // PAGE) * PAGE
    segments = [elf.Segment(elf.PT_NOTE, note_at, 0, len(packed_notes), len(packed_notes), 0, 0)]
    offsets = {}
    for start, end in layout:
        segments.append(elf.Segment(elf.PT_LOAD, at, start, end - start, end - start))
        offsets[start] = at
        at += end - start
    step = layout[1][0] if len(layout) > 1 else layout[0][1] + 1
    with path.open("wb") as file:
        fd = file.fileno()
        os.ftruncate(fd, at)
        os.pwrite(fd, elf.core_head(elf.ELF64, elf.EM_X86_64, segments), 0)
        os.pwrite(fd, packed_notes, note_at)
        for mfn, data in machine.frames.items():
            start = mfn * PAGE // step * step
            os.pwrite(fd, bytes(data), offsets[start] + mfn * PAGE - start)
