"""Xen's own virtual memory: which page tables map it, and which addresses are Xen's."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from .. import parsing
from .._native import AddressSpace, Dump, MemoryFault
from .._typing import Any, Literal
from ..budget import Charged
from ..limits import MAX_OTHER_ROOTS, MAX_UNRELEASED_XEN_READS, MAX_VMCOREINFO_XEN
from . import compat

PAGE = 4096
#: Machine address bits of a cr3, by Xen's word. A PAE table is aligned to 32 bytes only.
_CR3_MASK = {8: 0x000F_FFFF_FFFF_F000, 4: 0xFFFF_FFE0}
#: Xen's image starts at a multiple of this, and is smaller.
IMAGE_ALIGN: int = compat.value("alignment of the image")
_CR4_PAE = 1 << 5
#: The virtual addresses that are Xen's, by its word.
_RANGES: dict[int, tuple[int, int]] = {
    8: compat.value("virtual range 8"),
    4: compat.value("virtual range 4"),
}

Paging = Literal["x86", "x86-pae", "x86_64"]


def pagings(word: int, cr4: int | None) -> tuple[Paging, ...]:
    """The paging formats of a hypervisor with this word size."""
    if word == 8:
        return ("x86_64",)
    # A 32-bit Xen could be built for either until 3.2; the notes of 2006 have no cr4.
    if cr4 is None:
        return ("x86-pae", "x86")
    return ("x86-pae",) if cr4 & _CR4_PAE else ("x86",)


def vmcoreinfo(dump: Dump) -> dict[str, str]:
    """VMCOREINFO_XEN by key; empty if the dump has no such note."""
    notes = (note for note in dump.notes if note.kind == "vmcoreinfo_xen")
    return parse_vmcoreinfo(note.fields["text"] for note in notes)


def parse_vmcoreinfo(texts: Iterable[str]) -> dict[str, str]:
    """The lines of some texts by key."""
    found = {}
    remaining = MAX_VMCOREINFO_XEN
    for text in texts:
        for line in text[:remaining].split("\n"):
            key, equals, value = line.strip("\0 ").partition("=")
            if equals:
                found[key] = value
        remaining -= min(len(text), remaining)
    return found


def number(facts: Mapping[str, str], key: str, base: int) -> int | None:
    """A number of VMCOREINFO_XEN; None if it is missing or is not one that Xen writes."""
    found = parsing.number(facts.get(key, ""), base)
    return None if found is None or found < 0 else found


def root_of(cr3: int, word: int) -> int:
    """The machine address of the page-table root in a processor's cr3."""
    return cr3 & _CR3_MASK[word]


class Roots:
    """Page tables that map Xen.

    Each cr3 in the notes does: while a PV guest runs, Xen uses the guest's page tables, and for an
    HVM guest the note has the host's cr3. ``more`` are other roots.
    """

    def __init__(self, dump: Dump, word: int, more: Iterable[int] = ()) -> None:
        self._mask = _CR3_MASK[word]
        notes = dump.notes
        found = [*more]
        found += [note.fields["cr3"] & self._mask for note in notes if note.kind == "crash_regs"]
        # The notes of 2006 have no CRASH_REGS, but the frame number of dom0's root.
        found += [note.fields["mfn"] * PAGE for note in notes if note.kind == "xen_kdump_cr3"]
        some = islice(
            dict.fromkeys(root for root in found if 0 < root <= _CR3_MASK[8]), MAX_OTHER_ROOTS
        )
        self._known = dict.fromkeys([*some, idle_page_table(dump) or 0])
        self._known.pop(0, None)

    def of(self, cr3: int | None) -> Iterator[int]:
        """The best first: the pCPU's own cr3, those of other pCPUs, Xen's idle_pg_table."""
        own = (cr3 or 0) & self._mask
        if own:
            yield own
        yield from (root for root in self._known if root != own)


def idle_page_table(dump: Dump) -> int | None:
    """The machine address of idle_pg_table, by VMCOREINFO_XEN and xen_phys_start."""
    info: dict[str, Any] = next(
        (note.fields for note in dump.notes if note.kind == "crash_info"), {}
    )
    address = number(vmcoreinfo(dump), "SYMBOL(pgd_l4)", 16)
    start = info.get("xen_phys_start")
    if address is None or start is None:
        return None
    found = address % IMAGE_ALIGN + int(start)
    return found if found <= _CR3_MASK[8] else None


def virtual_range(word: int) -> tuple[int, int]:
    """The virtual addresses that are Xen's: the first one, and the end."""
    return _RANGES[word]


def xen_range(word: int) -> tuple[int, int]:
    """Xen's part of the address space: its first address, and the first one after it."""
    return _RANGES[word]


def is_in_range(word: int, address: int) -> bool:
    """Whether an address is in Xen's part of the address space."""
    start, end = _RANGES[word]
    return start <= address < end


def last(word: int) -> int:
    """The last virtual address."""
    return (1 << word * 8) - 1


def around(word: int, address: int, size: int) -> tuple[int, int]:
    """The addresses within ``size`` bytes of one of Xen's, as [start, end)."""
    start, end = _RANGES[word]
    return max(start, address - size), min(end, address + size)


def is_xen(virtual: AddressSpace, word: int, address: int) -> bool:
    """Whether an address is in Xen's part of the address space and can be read."""
    if not is_in_range(word, address):
        return False
    try:
        virtual.u8(address)
    except MemoryFault:
        return False
    return True


class XenMemory(Charged):
    """The hypervisor's memory. Except for ``data``, reads return None for what cannot be read."""

    _reads = 0

    def __init__(self, dump: Dump, word: int, paging: Paging, root: int, probe: int) -> None:
        self.dump = dump
        #: Word size of the hypervisor.
        self.word = word
        self.paging: Paging = paging
        self.root = root
        self.virtual = dump.virtual(root, paging)
        #: An address in Xen's image.
        self.probe = probe
        self._probed = self.translate(probe)
        self._pages: dict[int, bool] = {}

    def _count(self, size: int) -> None:
        """Counts and charges a read of ``size`` bytes.

        The structs of thousands of CPUs are scattered over memory: the file's pages are unmapped
        after some reads, so that they do not count as memory of this process.
        """
        self.charge(size)
        self._reads += 1
        if self._reads % MAX_UNRELEASED_XEN_READS == 0:
            self.dump.release()

    def words(self, address: int, size: int) -> tuple[int, ...] | None:
        """The words of the ``size`` bytes at ``address``."""
        data = self.read(address, size)
        return None if data is None else self.split(data)

    def split(self, data: bytes) -> tuple[int, ...]:
        """The words of some bytes of memory, without an incomplete one at the end."""
        count = len(data) // self.word
        return struct.unpack_from(f"<{count}{'Q' if self.word == 8 else 'I'}", data)

    @property
    def memory_held(self) -> int:
        """Bytes of memory that the dump holds."""
        return self.dump.memory_held

    def data(self, address: int, size: int) -> bytes:
        """The ``size`` bytes at ``address``; MemoryFault if any of them cannot be read."""
        self._count(size)
        return self.virtual.read(address, size)

    def read(self, address: int, size: int) -> bytes | None:
        """The ``size`` bytes at ``address``."""
        try:
            return self.data(address, size)
        except MemoryFault:
            return None

    def struct(self, address: int, size: int) -> bytes | None:
        """The ``size`` bytes at ``address``, or those up to the first page that cannot be read."""
        for end in range(address + size, address, -PAGE):
            data = self.read(address, (end if end == address + size else end & -PAGE) - address)
            if data is not None:
                return data
        return None

    def pointer(self, address: int) -> int | None:
        """The word at ``address``."""
        return self.number(address, self.word)

    def number(self, address: int, size: int) -> int | None:
        """The number of ``size`` bytes at ``address``."""
        self._count(size)
        try:
            return self.virtual.word(address, size)
        except MemoryFault:
            return None

    def is_xen(self, address: int) -> bool:
        """Whether the address is in Xen's part of memory and can be read."""
        page = address // PAGE
        known = self._pages.get(page)
        if known is None:
            self.charge(1)
            known = self._pages[page] = is_xen(self.virtual, self.word, address)
        return known

    def translate(self, address: int) -> int | None:
        """The machine address of one of Xen's virtual addresses."""
        self.charge(1)
        try:
            return self.virtual.translate(address)
        except MemoryFault:
            return None

    def frame(self, mfn: int) -> bytes | None:
        """The contents of a machine frame."""
        self.charge(PAGE)
        try:
            return self.dump.machine.read(mfn * PAGE, PAGE)
        except MemoryFault:
            return None

    def is_root(self, address: int) -> bool:
        """Whether page tables below ``address`` map Xen as ours do: those of every guest must."""
        self.charge(1)
        if self._probed is None or address <= 0 or address >> 52:
            return False
        try:
            return self.dump.virtual(address, self.paging).translate(self.probe) == self._probed
        except MemoryFault:
            return False
