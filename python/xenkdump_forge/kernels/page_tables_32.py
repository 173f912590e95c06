"""The page tables of a 32-bit PV kernel, with and without PAE."""

from __future__ import annotations

from collections.abc import Mapping

from ..memory.machine import PAGE
from ..memory.paging import ACCESSED, DIRTY, PRESENT, USER, WRITE, X86
from .base import Kernel

_DATA = PRESENT | WRITE | USER | ACCESSED | DIRTY
_CODE = PRESENT | USER | ACCESSED


def write(kernel: Kernel, hypervisor: Mapping[int, int]) -> None:
    """Maps low memory and vmalloc space; ``hypervisor`` has Xen's page-directory entries.

    With PAE these are in the directory of slot 3, which is separate for every process.
    """
    guest, spec = kernel.guest, kernel.image.spec
    root = kernel.root_address()
    tables = kernel.page_tables(root)
    low = min(guest.pages, (kernel.lowmem_end - spec.page_offset) // PAGE)
    tables.map_run(spec.page_offset, guest.frames(low), _DATA)
    for va, pfn in sorted(guest.mapped.items()):
        tables.map(va * PAGE, guest.mfn(pfn), _DATA)
    for task in kernel.tasks:
        if task.root and task.job.group == task.job.pid and task.user_registers:
            page = task.user_registers[kernel.ip] // PAGE * PAGE
            kernel.page_tables(task.root).map(page, guest.page_table_page(), _CODE)
    directory = _kernel_directory(kernel, root)
    for slot, entry in hypervisor.items():
        tables.set(directory, slot, entry)
    kernel_part = bytes(guest.machine.frame(directory))
    half = 0xC00 if kernel.paging is X86 else 0
    for task in kernel.tasks:
        if task.root and task.job.group == task.job.pid:
            own = _kernel_directory(kernel, task.root)
            guest.machine.frame(own)[half:] = kernel_part[half:]


def _kernel_directory(kernel: Kernel, root: int) -> int:
    """The mfn of the directory that maps the kernel."""
    if kernel.paging is X86:
        return root // PAGE
    return kernel.page_tables(root).table(kernel.image.spec.page_offset, 2)
