"""The page tables of a 64-bit PV kernel: its image, vmalloc space, direct map, and Xen's slots."""

from __future__ import annotations

from collections.abc import Mapping

from ..memory.machine import PAGE
from ..memory.paging import ACCESSED, DIRTY, NX, PRESENT, USER, WRITE
from .base import Kernel

DATA = PRESENT | WRITE | USER | ACCESSED | DIRTY
CODE = PRESENT | USER | ACCESSED


def write(kernel: Kernel, hypervisor: Mapping[int, int], no_execute: int = NX) -> None:
    """Maps everything; ``hypervisor`` has Xen's entries of an L4 table."""
    guest, image, spec = kernel.guest, kernel.image, kernel.image.spec
    root = kernel.root_address()
    tables = kernel.page_tables(root)
    first, last = (image.text.base - spec.map_base) // PAGE, (image.end - spec.map_base) // PAGE
    tables.map_run(image.text.base, [guest.mfn(p) for p in range(first, last)], DATA)
    for va, pfn in sorted(guest.mapped.items()):
        tables.map(va * PAGE, guest.mfn(pfn), DATA | no_execute)
    # One user page per process, so that the user half is not empty.
    for task in kernel.tasks:
        if task.root and task.job.group == task.job.pid and task.user_registers:
            page = task.user_registers[kernel.ip] // PAGE * PAGE
            kernel.page_tables(task.root).map(page, guest.page_table_page(), CODE)
    tables.map_run(spec.page_offset, guest.frames(guest.pages), DATA | no_execute)
    for slot, entry in hypervisor.items():
        tables.set(tables.root, slot, entry)
    half = bytes(guest.machine.frame(root // PAGE)[PAGE // 2 :])
    for task in kernel.tasks:
        if task.root:
            guest.machine.frame(task.root // PAGE)[PAGE // 2 :] = half
