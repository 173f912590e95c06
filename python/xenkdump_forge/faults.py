"""Faults: changes of a dump's parts, for ``write_dump(..., extra=...)``.

Each takes the parts and changes them; they can be combined::

    write_dump(directory, "modern", extra=faults.per_cpu_notes)
    write_dump(directory, "2006", extra=lambda parts: faults.truncate(parts, 1 << 20))
"""

from __future__ import annotations

import random
from itertools import pairwise

from .elf import format as elf
from .elf.notes import Note
from .memory.machine import PAGE
from .parts import Parts


def drop_notes(parts: Parts, *names: str, types: tuple[int, ...] = ()) -> None:
    """Drops the notes with these names or types."""
    parts.core.notes = [
        [note for note in group if note.name not in names and note.type not in types]
        for group in parts.core.notes
    ]


def per_cpu_notes(parts: Parts) -> None:
    """Makes a PT_NOTE for each pCPU and each vmcoreinfo, as kexec-tools does."""
    groups: list[list[Note]] = []
    for group in parts.core.notes:
        for note in group:
            if note.name in ("CORE", "VMCOREINFO", "VMCOREINFO_XEN") or not groups:
                groups.append([])
            groups[-1].append(note)
    parts.core.notes = groups


def truncate(parts: Parts, size: int) -> None:
    """Truncates the file to ``size`` bytes."""
    parts.core.cut = size


def hole(parts: Parts, start: int, end: int) -> None:
    """Removes a range of machine addresses from the segments."""
    memory = parts.core.memory
    memory.holes = sorted([*memory.holes, (start, end)])


def exclude(parts: Parts, start: int) -> None:
    """Excludes memory from a machine address on: p_filesz < p_memsz."""
    for segment in parts.core.segments or parts.core.lay_out():
        if segment.type == elf.PT_LOAD and segment.paddr + segment.filesz > start:
            segment.filesz = max(0, start - segment.paddr)


def shuffle_segments(parts: Parts, seed: int = 0) -> None:
    """Shuffles the PT_LOADs."""
    segments = parts.core.segments or parts.core.lay_out()
    loads = [s for s in segments if s.type == elf.PT_LOAD]
    random.Random(seed).shuffle(loads)
    parts.core.segments = [s for s in segments if s.type != elf.PT_LOAD] + loads


def overlap_segments(parts: Parts) -> None:
    """Adds a segment that repeats the end of another."""
    loads = [s for s in parts.core.segments or parts.core.lay_out() if s.type == elf.PT_LOAD]
    before = loads[-2]
    extra = min(16 * PAGE, before.filesz)
    start = before.filesz - extra
    again = elf.Segment(elf.PT_LOAD, before.offset + start, before.paddr + start, extra, extra)
    parts.core.segments.append(again)


def many_segments(parts: Parts, size: int = PAGE) -> None:
    """Splits the memory; section 0 counts more than 65,534 segments (PN_XNUM)."""
    parts.core.chop = size


def drop_untouched(parts: Parts, least: int = 1 << 20) -> None:
    """Removes runs of at least ``least`` bytes to which nothing was written from the segments."""
    memory = parts.core.memory
    written = [-1, *sorted(memory.frames), -(-memory.size // PAGE)]
    gaps = [((a + 1) * PAGE, b * PAGE) for a, b in pairwise(written)]
    memory.holes = sorted([*memory.holes, *((a, b) for a, b in gaps if b - a >= least)])


def touched_only(parts: Parts) -> None:
    """Makes a segment for each run of frames that were written to: a small file."""
    parts.core.touched_only = True


def loop_task_list(parts: Parts, at: int = 10, back_to: int = 3) -> None:
    """Makes dom0's task list loop from one task to an earlier one, bypassing the head."""
    kernel = parts.kernels[0]
    leaders = [t for t in kernel.tasks if t.job.pid == t.job.group]
    kernel.guest.write(
        leaders[at].view.at("tasks"),
        leaders[back_to].view.at("tasks").to_bytes(kernel.word, "little"),
    )


def break_task_list(parts: Parts, at: int = 10) -> None:
    """Makes dom0's task list point to unmapped memory."""
    kernel = parts.kernels[0]
    leaders = [t for t in kernel.tasks if t.job.pid == t.job.group]
    kernel.guest.write(leaders[at].view.at("tasks"), (0xDEAD4EAD).to_bytes(kernel.word, "little"))
