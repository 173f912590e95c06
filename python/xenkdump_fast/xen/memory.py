"""Xen's own virtual memory: which page tables map it, and which addresses are Xen's."""

import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from .. import parsing
from .._native import AddressSpace, Dump, MemoryFault

PAGE = 4096
#: Machine address bits of a cr3.
_CR3_MASK = 0x000F_FFFF_FFFF_F000
#: XEN_VIRT_START has been a multiple of this in every version (3.2: 0xffff828c80000000, 4.17:
#: 0xffff82d040000000), and the image never was larger.
IMAGE_ALIGN = 1 << 30
_CR4_PAE = 1 << 5
#: So many of other pCPUs are tried where a pCPU's own is lost: all of them map Xen alike.
_ROOTS = 8
#: VMCOREINFO_XEN fills at most a page (VMCOREINFO_BYTES): of longer ones so much is believed.
_MAX_TEXT = 16 * PAGE

Paging = Literal["x86", "x86-pae", "x86_64"]


def pagings(word: int, cr4: int | None) -> tuple[Paging, ...]:
    """The formats of page tables under which a hypervisor of this word may run."""
    if word == 8:
        return ("x86_64",)
    # A 32-bit Xen could be built for either; the notes of 2006 have no cr4 that would tell.
    if cr4 is None:
        return ("x86-pae", "x86")
    return ("x86-pae",) if cr4 & _CR4_PAE else ("x86",)


def vmcoreinfo(dump: Dump) -> dict[str, str]:
    """VMCOREINFO_XEN by key; empty where the dump has no such note."""
    found = {}
    left = _MAX_TEXT
    for note in dump.notes:
        if note.kind == "vmcoreinfo_xen" and left:
            text = note.fields["text"][:left]
            left -= len(text)
            for line in text.split("\n"):
                key, equals, value = line.strip("\0 ").partition("=")
                if equals:
                    found[key] = value
    return found


def number(facts: Mapping[str, str], key: str, base: int) -> int | None:
    """A number of VMCOREINFO_XEN; None if it is missing, or none that Xen writes."""
    found = parsing.number(facts.get(key, ""), base)
    return None if found is None or found < 0 else found


class Roots:
    """Page tables that map Xen.

    Each guest's root does, in PV because Xen runs on the guest's page tables, in HVM because the
    cr3 of the note is the host's. A PAE table need only be aligned to 32 bytes.
    """

    def __init__(self, dump: Dump, word: int) -> None:
        self._mask = _CR3_MASK if word == 8 else 0xFFFF_FFE0
        notes = dump.notes
        found = [note.fields["cr3"] & self._mask for note in notes if note.kind == "crash_regs"]
        # The notes of 2006 have no CRASH_REGS, but the frame number of dom0's root.
        found += [note.fields["mfn"] * PAGE for note in notes if note.kind == "xen_kdump_cr3"]
        some = islice(dict.fromkeys(root for root in found if 0 < root <= _CR3_MASK), _ROOTS)
        self._known = dict.fromkeys([*some, idle_page_table(dump) or 0])
        self._known.pop(0, None)

    def of(self, cr3: int | None) -> Iterator[int]:
        """The best first: the pCPU's own by its cr3, those of the others, Xen's idle one."""
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
    return found if found <= _CR3_MASK else None


def is_xen(virtual: AddressSpace, word: int, address: int) -> bool:
    """Whether an address is in the hypervisor's part of memory and can be read."""
    if not (
        0xFFFF_8000_0000_0000 <= address < 0xFFFF_8800_0000_0000
        if word == 8
        else 0xF580_0000 <= address < 0x1_0000_0000
    ):
        return False
    try:
        virtual.u8(address)
    except MemoryFault:
        return False
    return True


class XenMemory:
    """The hypervisor's memory, read without exceptions: what cannot be read is None."""

    def __init__(self, dump: Dump, word: int, paging: Paging, root: int, probe: int) -> None:
        self.dump = dump
        #: Word size of the hypervisor.
        self.word = word
        self.paging: Paging = paging
        self.root = root
        self.virtual = dump.virtual(root, paging)
        self._probe = probe
        self._probed = self.translate(probe)
        self._pages: dict[int, bool] = {}

    def words(self, address: int, size: int) -> tuple[int, ...] | None:
        """The words of the ``size`` bytes at ``address``."""
        data = self.read(address, size)
        return None if data is None else self.split(data)

    def split(self, data: bytes) -> tuple[int, ...]:
        """The words of some bytes of memory, the rest behind the last whole one left out."""
        count = len(data) // self.word
        return struct.unpack_from(f"<{count}{'Q' if self.word == 8 else 'I'}", data)

    def read(self, address: int, size: int) -> bytes | None:
        """The ``size`` bytes at ``address``."""
        try:
            return self.virtual.read(address, size)
        except MemoryFault:
            return None

    def struct(self, address: int, size: int) -> bytes | None:
        """The ``size`` bytes at ``address``, or as many whole pages' as can be read."""
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
        try:
            return self.virtual.word(address, size)
        except MemoryFault:
            return None

    def is_xen(self, address: int) -> bool:
        """Whether the address is in Xen's part of memory and can be read."""
        page = address // PAGE
        known = self._pages.get(page)
        if known is None:
            known = self._pages[page] = is_xen(self.virtual, self.word, address)
        return known

    def translate(self, address: int) -> int | None:
        """The machine address of one of Xen's."""
        try:
            return self.virtual.translate(address)
        except MemoryFault:
            return None

    def frame(self, mfn: int) -> bytes | None:
        """A machine frame."""
        try:
            return self.dump.machine.read(mfn * PAGE, PAGE)
        except MemoryFault:
            return None

    def is_root(self, address: int) -> bool:
        """Whether page tables below ``address`` map Xen as ours do: every guest's roots must."""
        if self._probed is None or address <= 0 or address >> 52:
            return False
        try:
            return self.dump.virtual(address, self.paging).translate(self._probe) == self._probed
        except MemoryFault:
            return False
