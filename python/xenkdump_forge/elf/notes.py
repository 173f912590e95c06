"""ELF notes as Xen and Linux write them into a crash dump."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ..code.text import names

NT_PRSTATUS = 1
XEN_CRASH_INFO = 0x1000001
XEN_CRASH_REGS = 0x1000002
#: From the kdump patches of 2006, never in Xen's tree. XEN_CRASH_INFO has one zero less.
XEN_KDUMP_CR3 = 0x10000001
NT_GNU_BUILD_ID = 3

#: The order of the registers in NT_PRSTATUS.
PRSTATUS_64 = names(
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss "
    "fs_base gs_base ds es fs gs"
)
PRSTATUS_32 = names("ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss")


@dataclass(frozen=True)
class Note:
    """A note before it is packed."""

    name: str
    type: int
    desc: bytes

    def pack(self) -> bytes:
        """12 bytes of header, then name and descriptor, each padded to 4."""
        raw = self.name.encode() + b"\0"
        return (
            struct.pack("<III", len(raw), len(self.desc), self.type)
            + raw
            + bytes(-len(raw) % 4)
            + self.desc
            + bytes(-len(self.desc) % 4)
        )


def prstatus(word: int, registers: Mapping[str, int]) -> Note:
    """CORE/NT_PRSTATUS: 336 or 144 bytes; ``pr_pid`` is 0, as in Xen."""
    order, at, size = (PRSTATUS_64, 112, 336) if word == 8 else (PRSTATUS_32, 72, 144)
    values = [registers.get(name, 0) for name in order]
    raw = struct.pack(f"<{len(order)}{'Q' if word == 8 else 'I'}", *values)
    return Note("CORE", NT_PRSTATUS, (bytes(at) + raw).ljust(size, b"\0"))


def words(word: int, values: list[int]) -> bytes:
    """Words of 4 or 8 bytes."""
    return struct.pack(f"<{len(values)}{'Q' if word == 8 else 'I'}", *values)


def crash_regs(word: int, cr0: int, cr2: int, cr3: int, cr4: int) -> Note:
    """Xen/CRASH_REGS: the control registers of one pCPU."""
    return Note("Xen", XEN_CRASH_REGS, words(word, [cr0, cr2, cr3, cr4]))


def crash_info(word: int, values: list[int]) -> Note:
    """Xen/CRASH_INFO: 8, 9 or 10 words, depending on the version of Xen."""
    return Note("Xen", XEN_CRASH_INFO, words(word, values))


def kdump_cr3(mfn: int, word: int = 4) -> Note:
    """The note of 2006 with dom0's root; the patches misspelt its name."""
    return Note("Xen Domanin-0 CR3", XEN_KDUMP_CR3, words(word, [mfn]))
