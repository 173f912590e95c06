"""What drgn reads from a core file: the registers of CPUs, and VMCOREINFO."""

import os
from collections.abc import Iterable, Mapping

from drgn import Program

from ... import elf_notes
from ..._native import AbsentError

#: Characters of the name of a memfd, whose limit is 249 bytes.
MAX_NAME = 60


def attach(
    program: Program,
    name: str,
    word: int,
    cpus: Iterable[tuple[int, Mapping[str, int]]],
    vmcoreinfo: bytes | None,
) -> None:
    """Opens a core file without memory that has these notes.

    ``name`` is what drgn shows in place of the dump's. ``cpus`` are the numbers of threads for
    drgn, with registers. Without VMCOREINFO, drgn does not take it for a Linux kernel. AbsentError
    if drgn cannot use it.
    """
    notes = [elf_notes.prstatus_notes(cpus, word)]
    if vmcoreinfo is not None:
        notes.append(elf_notes.note("VMCOREINFO", elf_notes.NT_VMCOREINFO, vmcoreinfo))
    descriptor = os.memfd_create(os.path.basename(name)[:MAX_NAME] or "vmcore")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(elf_notes.notes_only_core(notes, word))
    try:
        program.set_core_dump(descriptor)  # which closes it
    except Exception as error:  # of no common class
        raise AbsentError(f"drgn rejects the kernel's VMCOREINFO: {error}") from None
