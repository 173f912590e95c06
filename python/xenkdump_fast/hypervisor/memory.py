"""Xen's own virtual memory: which page tables map it, and which addresses are Xen's."""

from collections.abc import Iterator
from typing import Any, Literal

from .._native import AddressSpace, Dump, MemoryFault

#: Machine address bits of a cr3.
_CR3_MASK = 0x000F_FFFF_FFFF_F000
#: XEN_VIRT_START has been a multiple of this in every version (3.2: 0xffff828c80000000, 4.17:
#: 0xffff82d040000000), and the image never was larger.
_IMAGE_ALIGN = 1 << 30
_CR4_PAE = 1 << 5

Paging = Literal["x86", "x86-pae", "x86_64"]


def paging(word: int, cr4: int | None) -> Paging:
    """The format of the page tables under which a hypervisor of this word runs."""
    if word == 8:
        return "x86_64"
    # Every 32-bit Xen that wrote CRASH_REGS could be built either way; 3.4 is PAE only.
    return "x86" if cr4 is not None and not cr4 & _CR4_PAE else "x86-pae"


def vmcoreinfo(dump: Dump) -> dict[str, str]:
    """VMCOREINFO_XEN by key; empty where the dump has no such note."""
    found = {}
    for note in dump.notes:
        if note.kind == "vmcoreinfo_xen":
            for line in note.fields["text"].split("\n"):
                key, equals, value = line.strip("\0 ").partition("=")
                if equals:
                    found[key] = value
    return found


def number(facts: dict[str, str], key: str, base: int) -> int | None:
    """A number of VMCOREINFO_XEN; None if it is missing or none."""
    try:
        return int(facts[key], base)
    except (KeyError, ValueError):
        return None


def roots(dump: Dump, cr3: int | None, word: int) -> Iterator[int]:
    """Page tables that map Xen, the best first: a pCPU's own, those of the others, Xen's idle one.

    Each guest's root maps Xen, in PV because Xen runs on the guest's page tables, in HVM because
    the cr3 of the note is the host's. A PAE table need only be aligned to 32 bytes.
    """
    mask = _CR3_MASK if word == 8 else 0xFFFF_FFE0
    seen = set()
    others = [note.fields["cr3"] for note in dump.notes if note.kind == "crash_regs"]
    for candidate in (cr3, *others):
        root = (candidate or 0) & mask
        if root and root not in seen:
            seen.add(root)
            yield root
    idle = idle_page_table(dump)
    if idle is not None and idle not in seen:
        yield idle


def idle_page_table(dump: Dump) -> int | None:
    """The machine address of idle_pg_table, by VMCOREINFO_XEN and xen_phys_start."""
    info: dict[str, Any] = next(
        (note.fields for note in dump.notes if note.kind == "crash_info"), {}
    )
    address = number(vmcoreinfo(dump), "SYMBOL(pgd_l4)", 16)
    start = info.get("xen_phys_start")
    if address is None or start is None:
        return None
    return address % _IMAGE_ALIGN + int(start)


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
