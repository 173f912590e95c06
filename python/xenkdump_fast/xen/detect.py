"""Whether a dump is a Xen host's.

Xen's own kdump writes notes of Xen. QEMU's dump of the whole machine does not. But Xen maps itself
under every page-table root of a PV guest and under its own ones, and it sets up the interrupt
descriptor table of every CPU. This table leads to Xen's image, unless the CPU was running the code
of a translated guest: then both the table and cr3 are the guest's. If all CPUs were, memory is
searched for Xen's image and for Xen's own page tables in it.
"""

from itertools import islice

from .. import qemu_notes
from .._native import AddressSpace, Dump, MemoryFault
from .._typing import NamedTuple
from ..budget import Budget
from ..limits import MAX_PCPUS, MAX_XEN_IMAGE, MAX_XEN_IMAGE_SEARCH
from . import memory
from .memory import PAGE, Paging

#: A string of the hypervisor: the format of the first line it prints (all versions). Linux has one
#: without the last %s, for its own message in a guest.
_SIGNATURE = b"Xen version %d.%d%s"
#: The page-fault handler's gate. All gates lead to Xen.
_GATE = 14
#: The padded name of the note VMCOREINFO_XEN, and the start of its text.
_NAME = b"VMCOREINFO_XEN\0\0"
_NOTE = _NAME + b"PAGESIZE="
#: Entries of a top page table: for the M2P, which starts Xen's part of the address space, and for
#: Xen's image (all versions for x86_64).
_M2P_ENTRY, _IMAGE_ENTRY = 256, 261
#: Bytes that an entry of a top page table maps.
_TOP_SPAN = 1 << 39
#: Copies of the string that are tried.
_MAX_SIGNATURES = 16
_IMAGE_START = 0xFFFF_8000_0000_0000 + (_IMAGE_ENTRY - _M2P_ENTRY) * _TOP_SPAN


class XenImage(NamedTuple):
    """Where Xen's image is mapped."""

    word: int
    paging: Paging
    #: Machine address of a page-table root that maps it.
    root: int
    #: An address in Xen's image, of its code unless the image was searched for in memory.
    handler: int
    #: Whether it was searched for in memory: no CPU leads to it.
    searched: bool = False


def find(dump: Dump) -> XenImage | None:
    """Xen's image by QEMU's notes of the CPUs; None without these or without Xen."""
    # One search succeeds on a Xen host. In a hostile dump each CPU may have page tables of its own.
    budget = Budget("searches for Xen's image", 4 * MAX_XEN_IMAGE)
    cpus = list(islice(qemu_notes.cpus(dump.notes), MAX_PCPUS))
    for cpu in cpus:
        if cpu.has_paging and cpu.idt:
            for word in (8, 4):
                found = _find(dump, cpu, word, budget)
                if found is not None:
                    return found
    if cpus and not any(_has_own_tables(dump, cpu) for cpu in cpus):
        return _in_memory(dump)
    return None


def _has_own_tables(dump: Dump, cpu: qemu_notes.QemuCpu) -> bool:
    """Whether cr3 may be a machine address: the interrupt descriptor table is mapped below it."""
    if not cpu.has_paging or not cpu.idt:
        return False
    for word in (8, 4):
        root = memory.root_of(cpu.cr3, word)
        for paging in memory.pagings(word, cpu.cr4):
            if _handler(dump.virtual(root, paging), cpu.idt, word) is not None:
                return True
    return False


def _in_memory(dump: Dump) -> XenImage | None:
    """Xen's image by its contents."""
    # Xen moves itself below 4 GiB. A file of its image may be in memory too.
    addresses = dump.machine.search(
        _SIGNATURE, 0, MAX_XEN_IMAGE_SEARCH, limit=_MAX_SIGNATURES, most=MAX_XEN_IMAGE_SEARCH
    ).addresses
    return next(filter(None, (_around(dump, at) for at in addresses)), None)


def _around(dump: Dump, signature: int) -> XenImage | None:
    """Xen's image, part of which are a string at that machine address and the page tables."""
    import numpy as np

    from ..status import Status

    first = max(0, signature - MAX_XEN_IMAGE) // PAGE * PAGE
    roots = np.arange(first, signature + MAX_XEN_IMAGE, PAGE, dtype=np.uint64)
    for index in (_M2P_ENTRY, _IMAGE_ENTRY):
        status = np.empty(len(roots), dtype=np.uint8)
        entries = dump.machine.read_many(roots + np.uint64(index * 8), 8, status=status)
        is_present = entries.view("<u8").reshape(-1) & np.uint64(1) != 0
        roots = roots[(status == Status.OK) & is_present]
    budget = Budget("searches for Xen's image", 4 * MAX_XEN_IMAGE)
    for root in roots.tolist():
        virtual = dump.virtual(root, "x86_64")
        start, end = _IMAGE_START, _IMAGE_START + _TOP_SPAN
        while budget.remaining:
            result = virtual.search(_SIGNATURE, start, end, limit=1, most=budget.remaining)
            budget.remaining -= min(max(PAGE, result.searched), budget.remaining)
            if not result.addresses:
                break
            (at,) = result.addresses
            try:
                is_same = virtual.translate(at) == signature
            except MemoryFault:
                is_same = False
            if is_same:
                return XenImage(8, "x86_64", root, at, searched=True)
            start = at + 1
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
