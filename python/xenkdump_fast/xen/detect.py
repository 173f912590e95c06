"""Whether a dump is a Xen host's.

Xen's own kdump writes notes of Xen. QEMU's dump of the whole machine does not. But Xen maps itself
under every page-table root of a PV guest and under its own ones, and it sets up the interrupt
descriptor table of every CPU. This table leads to Xen's image, whatever the CPU was running.
"""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from .. import qemu_notes
from .._native import AddressSpace, Dump, MemoryFault, Note
from ..budget import Budget
from ..limits import MAX_PCPUS, MAX_XEN_IMAGE
from . import memory
from .memory import PAGE, Paging

#: Kinds of note that only a Xen host's dump has.
_NOTES = {"crash_info", "crash_regs", "vmcoreinfo_xen", "xen_kdump_cr3"}
#: A string of the hypervisor: the format of the first line it prints (all versions).
_SIGNATURE = b"Xen version %d.%d"
#: The page-fault handler's gate. All gates lead to Xen.
_GATE = 14
#: The padded name of the note VMCOREINFO_XEN, and the start of its text.
_NAME = b"VMCOREINFO_XEN\0\0"
_NOTE = _NAME + b"PAGESIZE="


class XenImage(NamedTuple):
    """Where Xen's image is mapped."""

    word: int
    paging: Paging
    #: Machine address of a page-table root that maps it.
    root: int
    #: An address in Xen's code.
    handler: int


def has_notes(notes: Iterable[Note]) -> bool:
    """Whether one of the notes is Xen's."""
    return any(note.kind in _NOTES for note in notes)


def find(dump: Dump) -> XenImage | None:
    """Xen's image by QEMU's notes of the CPUs; None without these or without Xen."""
    # One search succeeds on a Xen host. In a hostile dump each CPU may have page tables of its own.
    budget = Budget("searches for Xen's image", 4 * MAX_XEN_IMAGE)
    for cpu in islice(qemu_notes.cpus(dump.notes), MAX_PCPUS):
        if cpu.has_paging and cpu.idt:
            for word in (8, 4):
                found = _find(dump, cpu, word, budget)
                if found is not None:
                    return found
    return None


def _find(dump: Dump, cpu: qemu_notes.QemuCpu, word: int, budget: Budget) -> XenImage | None:
    paging = memory.pagings(word, cpu.cr4)[0]
    root = memory.root_of(cpu.cr3, word)
    virtual = dump.virtual(root, paging)
    handler = _handler(virtual, cpu.idt, word)
    if handler is None or not memory.is_xen(virtual, word, handler):
        return None
    start, end = memory.around(word, handler, MAX_XEN_IMAGE)
    result = virtual.search(_SIGNATURE, start, end, limit=1, most=budget.remaining)
    budget.remaining -= min(result.searched, budget.remaining)
    if not result.addresses:
        return None
    return XenImage(word, paging, root, handler)


def _handler(virtual: AddressSpace, idt: int, word: int) -> int | None:
    """The page-fault handler in the interrupt descriptor table at ``idt``."""
    size = 2 * word
    try:
        gate = virtual.read((idt + _GATE * size) & memory.last(word), size)
    except MemoryFault:
        return None
    high = gate[6:12] if word == 8 else gate[6:8]
    return int.from_bytes(gate[:2] + high, "little")


def vmcoreinfo(dump: Dump, image: XenImage) -> str:
    """The text of VMCOREINFO_XEN in Xen's image; empty if it is not there.

    Xen prepares the note when dom0 loads a crash kernel (``crash_save_vmcoreinfo``).
    """
    virtual = dump.virtual(image.root, image.paging)
    start, end = memory.around(image.word, image.handler, MAX_XEN_IMAGE)
    for at in virtual.search(_NOTE, start, end, limit=1).addresses:
        try:
            return virtual.cstring(at + len(_NAME), PAGE).decode("utf-8", "backslashreplace")
        except MemoryFault:
            pass
    return ""
