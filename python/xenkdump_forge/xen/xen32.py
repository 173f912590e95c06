"""A 32-bit Xen 3: its memory at the top of every address space, the stacks of pCPUs, the notes."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..code import stack
from ..elf import notes
from ..memory.guest import Guest
from ..memory.machine import PAGE, MachineMemory
from ..memory.paging import ACCESSED, DIRTY, LARGE, PRESENT, USER, WRITE
from . import text32
from .xen64 import Pcpu, SharedInfo, shared_info

#: Xen's image and heap are in the lowest 12 MiB, which are mapped at DIRECT_MAP.
DIRECT_MAP = 0xFF000000
HEAP_END = 12 << 20
_IMAGE = 0x100000
_HEAP = 0x400000
_M2P_AT = 16 << 20
_STACK = 2 * PAGE
_CPU_INFO = 76

_USER_REGS = ("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax")


def user_regs(registers: Mapping[str, int]) -> bytes:
    """``struct cpu_user_regs`` of x86_32."""

    def get(name: str) -> int:
        return registers.get(name, 0) & 0xFFFFFFFF

    out = struct.pack("<7I", *map(get, _USER_REGS)) + struct.pack("<HH", 0, 0)
    out += struct.pack("<IHBxII", get("eip"), get("cs"), 0, get("eflags"), get("esp"))
    return out + b"".join(struct.pack("<Hxx", get(name)) for name in ("ss", "es", "ds", "fs", "gs"))


@dataclass
class Xen32:
    """The hypervisor. ``version`` is (major, minor); ``pae`` selects the page-table format."""

    machine: MachineMemory
    pae: bool
    version: tuple[int, int]
    rng: random.Random
    pcpus: list[Pcpu] = field(default_factory=list)
    _free: int = _HEAP

    def __post_init__(self) -> None:
        for at in range(_IMAGE, _IMAGE + 0x8000, 64):
            self.machine.write(at, self.rng.randbytes(64))
        own = text32.text()
        self.machine.write(own.base - DIRECT_MAP, own.code)
        names = (".1", "Fri Jun 9 10:40:31 2006 -0600 10321:8bf6a8d1e9b5", "gcc version 4.0.4")
        self.strings = []
        at = _IMAGE + 0x60000
        for text in (*names, "Fri Jun 9 16:25:32 JST 2006", "16:25:32"):
            raw = text.encode() + b"\0"
            self.machine.write(at, raw)
            self.strings.append(at)
            at += len(raw)

    @property
    def machine_to_phys(self) -> int:
        """The virtual address of the M2P (machine_to_phys_mapping)."""
        return 0xF5800000 if self.pae else 0xFC000000

    def _heap(self, size: int, align: int = PAGE) -> int:
        at = -(-self._free // align) * align
        self._free = at + size
        return DIRECT_MAP + at

    def write(self, va: int, data: bytes) -> None:
        """Writes at an address of the direct map."""
        self.machine.write(va - DIRECT_MAP, data)

    def slots(self) -> dict[int, int]:
        """Xen's entries of the page directory that maps the top gigabyte (PAE) or everything."""
        size = 2 << 20 if self.pae else 4 << 20
        base = 0xC0000000 if self.pae else 0
        flags = PRESENT | ACCESSED | LARGE
        table = self.machine.size // PAGE * 4
        out = {}
        for at in range(0, table, size):
            slot = (self.machine_to_phys + at - base) // size
            out[slot] = _M2P_AT + at | flags | USER
        for at in range(0, HEAP_END, size):
            out[(DIRECT_MAP + at - base) // size] = at | flags | WRITE | DIRTY
        return out

    def write_m2p(self, guest: Guest) -> None:
        """Writes the machine-to-pseudo-physical table of the host."""
        table = array("I", [0xFFFFFFFF]) * (self.machine.size // PAGE)
        special = guest.foreign_bit | guest.identity_bit
        for pfn, mfn in enumerate(guest.p2m):
            if not mfn & special:
                table[mfn] = pfn
        self.machine.write(_M2P_AT, table.tobytes())

    def add_shared_info(self, info: SharedInfo) -> int:
        """Writes a domain's shared_info page; returns its machine address."""
        at = self._heap(PAGE)
        self.write(at, shared_info(4, info))
        return at - DIRECT_MAP

    def add_pcpu(
        self,
        cr3: int,
        guest: Mapping[str, int] | None,
        domain: int | None = None,
        vcpu: int | None = None,
        chain: tuple[str, ...] = text32.STOPPED,
    ) -> None:
        """Adds a pCPU, with the guest's registers at the top of its stack; None without a guest.

        ``chain`` lists the functions of Xen that it was in.
        """
        number = len(self.pcpus)
        low = self._heap(_STACK, _STACK)
        current = self._heap(0x400, 0x80)
        self.write(current, struct.pack("<II", vcpu or 0, number))  # vcpu_id, processor
        info = low + _STACK - _CPU_INFO
        self.write(info, user_regs(guest or {}))
        self.write(info + 68, struct.pack("<II", number, current))
        out = stack.Stack(4, low, info, info)
        for at in range(info - 0x400, info, 4):
            text = DIRECT_MAP + _IMAGE + self.rng.randrange(0x20000)
            out.poke(at, text if self.rng.random() < 0.4 else number)
        calls = text32.call(out, info, guest or {}, chain, self.rng)
        self.write(low, bytes(out.data))
        xen = {
            "eip": calls.eip,
            "esp": calls.esp,
            "ebp": low + _STACK - 1,
            "cs": 0xE008,
            "ss": 0xE010,
            "ds": 0xE010,
            "es": 0xE010,
            "eflags": 0x202,
        }
        pcpu = Pcpu(number, low, cr3, guest or {}, current, xen, domain, vcpu, calls.frames)
        self.pcpus.append(pcpu)

    def crash_info(self, words: int, frame_list_list: int) -> notes.Note:
        """CRASH_INFO of 8, 9 or 10 words; from 9 on, the last is the frame-list-list."""
        values = [*self.version, *self.strings, 0]
        if words == 10:
            values.append(_IMAGE)
        if words >= 9:
            values.append(frame_list_list)
        return notes.crash_info(4, values)
