"""A synthetic domain as the toolstack saves it: pages by pfn, page tables with pfns, vCPUs."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SyntheticDumpError
from ..kernels.base import Kernel
from ..memory.machine import PAGE
from ..memory.paging import PRESENT, X86_64, X86_PAE
from ..xen.xen64 import SharedInfo, shared_info, user_regs

#: ``XEN_DOMCTL_PFINFO_*`` without the shift: L1TAB to L4TAB are 1 to 4.
PINNED, XALLOC, XTAB = 8, 0xE, 0xF

#: Bits of a page-table entry that hold the frame.
_FRAME = 0x000F_FFFF_FFFF_F000
#: The entries of a 64-bit guest's top table that are Xen's.
_XEN_SLOTS = range(256, 272)
_ONLINE, _IN_KERNEL = 1 << 5, 1 << 2
_USER_REGS_32 = "ebx ecx edx esi edi ebp eax"


@dataclass
class Vcpu:
    """A vCPU that is up."""

    number: int
    registers: Mapping[str, int]
    #: The mfn of its top page table.
    root: int
    gs_base: int = 0


class SavedDomain:
    """What a save file has of a domain, independent of the version of the stream."""

    def __init__(
        self,
        word: int,
        frames: Sequence[int | None],
        read: Callable[[int], bytes],
        roots: Iterable[int],
        vcpus: Sequence[Vcpu],
        p2m_frames: Sequence[int],
        shared_info: bytes,
    ) -> None:
        """``frames`` are the mfns by pfn, None for pfns without memory; ``read`` reads a frame.

        ``roots`` are the mfns of all top page tables.
        """
        self.word = word
        self.levels = 4 if word == 8 else 3
        self.frames = frames
        self.vcpus = vcpus
        #: The pfns of the pages of the guest's P2M.
        self.p2m_frames = p2m_frames
        #: The shared_info page, with the frames of the host on which the domain ran.
        self.shared_info = shared_info
        self._read = read
        self._pfns = {mfn: pfn for pfn, mfn in enumerate(frames) if mfn is not None}
        #: The level of each page table, by its pfn.
        self.tables: dict[int, int] = {}
        #: The pfns of the top tables, which are pinned.
        self.roots = {self._pfns[mfn] for mfn in roots}
        for pfn in self.roots:
            self._find_tables(pfn, self.levels)

    @classmethod
    def of(cls, kernel: Kernel) -> SavedDomain:
        """The domain of a synthetic kernel."""
        if kernel.paging not in (X86_64, X86_PAE):
            raise SyntheticDumpError(f"a domain with {kernel.paging.name} page tables is not saved")
        guest, own = kernel.guest, kernel.root_address()
        running = {}
        for task in (*kernel.idle, *kernel.tasks):
            if task.registers:
                base = kernel.percpu[task.job.cpu] if guest.word == 8 else 0
                root = (task.root or own) // PAGE
                running[task.job.cpu] = Vcpu(task.job.cpu, task.registers, root, base)
        # Kernels of 2006 have it in an array, whose pages no reader needs.
        start = getattr(kernel, "p2m_vaddr", None)
        pages = range(-(-guest.pages // (PAGE // guest.word)))
        return cls(
            guest.word,
            guest.frames(guest.pages),
            lambda mfn: bytes(guest.machine.frames.get(mfn, bytes(PAGE))),
            [own // PAGE, *(task.root // PAGE for task in kernel.tasks if task.root)],
            [running[number] for number in sorted(running)],
            [0 if start is None else guest.pfn_of(start + i * PAGE) for i in pages],
            shared_info(
                guest.word, SharedInfo(guest.pages, (1 << 8 * guest.word) - 1, own, start or 0)
            ),
        )

    def _find_tables(self, pfn: int, level: int) -> None:
        if pfn in self.tables:
            return
        self.tables[pfn] = level
        if level == 1:
            return
        for entry in self._entries(pfn, level):
            below = self._pfns.get((entry & _FRAME) // PAGE)
            if entry & PRESENT and below is not None:
                self._find_tables(below, level - 1)

    def _entries(self, pfn: int, level: int) -> array[int]:
        """The entries of a table, without those that are Xen's."""
        entries = array("Q", self._frame(pfn))
        if level == 4:
            entries[_XEN_SLOTS.start : _XEN_SLOTS.stop] = array("Q", bytes(8 * len(_XEN_SLOTS)))
        elif level == 3 and self.levels == 3:
            entries[4:] = array("Q", bytes(8 * 508))
        return entries

    def _frame(self, pfn: int) -> bytes:
        mfn = self.frames[pfn]
        assert mfn is not None, hex(pfn)
        return self._read(mfn)

    def page(self, pfn: int) -> bytes:
        """A page; page tables have pfns in place of mfns, and no entries of foreign frames."""
        level = self.tables.get(pfn)
        if level is None:
            return self._frame(pfn)
        entries = self._entries(pfn, level)
        for i, entry in enumerate(entries):
            if entry & PRESENT:
                below = self._pfns.get((entry & _FRAME) // PAGE)
                entries[i] = 0 if below is None else entry & ~_FRAME | below * PAGE
        return entries.tobytes()

    def kind(self, pfn: int) -> int:
        """The type of a page, as the stream has it."""
        if self.frames[pfn] is None:
            return XTAB
        level = self.tables.get(pfn, 0)
        return level | PINNED if pfn in self.roots else level

    def context(self, vcpu: Vcpu) -> bytes:
        """``struct vcpu_guest_context`` with the pfn of the root in cr3."""
        if self.word == 8:
            out = bytearray(5168)
            struct.pack_into("<Q", out, 512, _ONLINE | _IN_KERNEL)
            regs = user_regs(vcpu.registers)
            out[520 : 520 + len(regs)] = regs
            struct.pack_into("<QQQQ", out, 4984, 0x80050033, 0, 0, self._pfns[vcpu.root] * PAGE)
            struct.pack_into("<QQQ", out, 5144, 0, vcpu.gs_base, 0)
            return bytes(out)
        out = bytearray(2800)
        struct.pack_into("<I", out, 512, _ONLINE | _IN_KERNEL)

        def get(name: str) -> int:
            return vcpu.registers.get(name, 0)

        general = [get(name) for name in _USER_REGS_32.split()]
        rest = [get(name) for name in ("eip", "cs", "eflags", "esp", "ss", "es", "ds", "fs", "gs")]
        struct.pack_into("<7II9I", out, 516, *general, 0, *rest)
        root = self._pfns[vcpu.root]
        folded = (root << 12 | root >> 20) & 0xFFFF_FFFF
        struct.pack_into("<IIII", out, 2716, 0x80050033, 0, 0, folded)
        return bytes(out)

    def hvm_context(self) -> bytes:
        """Xen's HVM context: a header, a ``struct hvm_hw_cpu`` for each vCPU, an end."""
        header = struct.pack("<IIQII", 0x54381286, 1, 0, 0, 0)
        out = struct.pack("<HHI", 1, 0, len(header)) + header
        for vcpu in self.vcpus:
            cpu = self._hw_cpu(vcpu)
            out += struct.pack("<HHI", 2, vcpu.number, len(cpu)) + cpu
            # Another type of record between them.
            out += struct.pack("<HHI", 5, vcpu.number, 16) + bytes(16)
        return out + struct.pack("<HHI", 0, 0, 0)

    def _hw_cpu(self, vcpu: Vcpu) -> bytes:
        regs = vcpu.registers

        def get(name: str) -> int:
            return regs.get(f"r{name}", regs.get(f"e{name}", regs.get(name, 0)))

        out = bytearray(1032)
        names = ["ax", "bx", "cx", "dx", "bp", "si", "di", "sp", *map(str, range(8, 16))]
        struct.pack_into("<18Q", out, 512, *map(get, names), get("ip"), get("flags"))
        is_64 = self.word == 8
        cr4, efer = (0x20, 0xD01) if is_64 else (0x20, 0)
        struct.pack_into("<4Q", out, 656, 0x80050033, 0x7F00, self._pfns[vcpu.root] * PAGE, cr4)
        struct.pack_into("<6I", out, 736, *map(get, ("cs", "ds", "es", "fs", "gs", "ss")))
        struct.pack_into("<QQ", out, 832, 0, vcpu.gs_base)
        struct.pack_into("<Q", out, 992, efer)
        return bytes(out)
