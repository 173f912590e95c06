"""What Xen keeps of a translated guest (HVM, PVH): its P2M in page tables, and its vCPUs' state."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..memory.machine import PAGE, MachineMemory
from .xen64 import VCPU_ARCH

#: Offsets in struct domain, struct vcpu and struct p2m_domain.
DOMAIN_EMULATION, DOMAIN_P2M, DOMAIN_NESTED_P2M, DOMAIN_ALTP2M = 1400, 1600, 1608, 1704
VCPU_GUEST_CR, VCPU_VMCB = VCPU_ARCH + 384, VCPU_ARCH + 1384
P2M_DOMAIN, P2M_CLASS, P2M_PHYS_TABLE, P2M_NP2M_BASE, P2M_EPTP = 16, 24, 72, 320, 400
P2M_SIZE = 704

#: p2m_class_t.
HOST, NESTED, ALTERNATE = range(3)
#: domain.options of such a guest, and its emulated devices: all, or those of PVH.
CDF_HVM, EMU_HVM, EMU_PVH = 1, 0x17F, 1
#: p2m_type_t.
RAM_RW, MMIO_DM = 0, 4
#: Entries of large pages in each format: present with all permissions, write-back.
_FLAGS = {"npt": (0x67, 0x67), "ept": (0x7, 0x8000_0000_0000_0037)}
_LARGE = 1 << 7


class NestedTables:
    """Page tables that map a guest's physical addresses. ``allocate`` returns the mfn of a page."""

    def __init__(
        self, machine: MachineMemory, allocate: Callable[[], int], layout: str = "npt"
    ) -> None:
        self.machine = machine
        self.allocate = allocate
        self.table_flags, self.page_flags = _FLAGS[layout.removesuffix("-5")]
        self.levels = 5 if layout.endswith("-5") else 4
        self.root = allocate()

    def map(self, pfn: int, mfn: int, level: int = 1, kind: int = RAM_RW) -> None:
        """Maps a page of 4 KiB, or at a higher level of 2 MiB or 1 GiB."""
        flags = 0 if kind == MMIO_DM else self.page_flags
        large = _LARGE if level > 1 and flags else 0
        self._set(pfn, level, mfn * PAGE | flags | large | kind << 52)

    def _set(self, pfn: int, level: int, entry: int) -> None:
        table = self.root
        for upper in range(self.levels, level, -1):
            frame = self.machine.frame(table)
            at = (pfn >> 9 * (upper - 1) & 511) * 8
            found = int.from_bytes(frame[at : at + 8], "little")
            if not found:
                found = self.allocate() * PAGE | self.table_flags
                frame[at : at + 8] = found.to_bytes(8, "little")
            table = (found & 0x000F_FFFF_FFFF_F000) // PAGE
        at = (pfn >> 9 * (level - 1) & 511) * 8
        self.machine.frame(table)[at : at + 8] = entry.to_bytes(8, "little")

    def eptp(self) -> int:
        """The EPT pointer: the root, write-back, levels minus 1, accessed and dirty flags."""
        return self.root * PAGE | 0x40 | (self.levels - 1) << 3 | 6


def p2m_domain(domain: int, class_: int, root: int, eptp: int, base: int = (1 << 64) - 1) -> bytes:
    """A ``struct p2m_domain``; ``base`` is the guest's root that tables of NESTED stand for."""
    out = bytearray(P2M_SIZE)
    struct.pack_into("<Q", out, P2M_DOMAIN, domain)
    struct.pack_into("<I", out, P2M_CLASS, class_)
    struct.pack_into("<Q", out, P2M_PHYS_TABLE, root)
    struct.pack_into("<Q", out, P2M_NP2M_BASE, base)
    struct.pack_into("<Q", out, P2M_EPTP, eptp)
    return bytes(out)


@dataclass
class Control:
    """The control registers of a guest's vCPU."""

    cr3: int
    cr0: int = 0x8005_0033
    cr2: int = 0
    cr4: int = 0x6F0
    efer: int = 0xD01

    def pack(self) -> bytes:
        """``guest_cr``, ``guest_efer`` and ``hw_cr`` of struct hvm_vcpu."""
        words = (self.cr0, 0, self.cr2, self.cr3, self.cr4, self.efer)
        hardware = (self.cr0 | 1 << 31, 0, 0, self.cr3, self.cr4)
        return struct.pack("<11Q", *words, *hardware)


def vmcb(control: Control, registers: dict[str, int], root: int, cs: int, ss: int) -> bytes:
    """A virtual machine control block (AMD64 manual, volume 2, appendix B)."""
    out = bytearray(PAGE)
    for at, value in {
        0x58: 1,
        0x90: 1,
        0xB0: root * PAGE,
        0x4D0: control.efer | 1 << 12,
        0x548: control.cr4,
        0x550: control.cr3,
        0x558: control.cr0,
        0x570: registers["rflags"],
        0x578: registers["rip"],
        0x5D8: registers["rsp"],
        0x5F8: registers["rax"],
        0x640: control.cr2,
    }.items():
        struct.pack_into("<Q", out, at, value)
    struct.pack_into("<H", out, 0x410, cs)
    struct.pack_into("<H", out, 0x420, ss)
    return bytes(out)
