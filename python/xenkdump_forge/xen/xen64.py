"""A 64-bit Xen 4.17: its image, heap, domains, vCPUs and the stacks of its pCPUs."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..code.stack import StackFrame
from ..code.text import names
from ..elf import notes
from ..memory.guest import Guest
from ..memory.machine import PAGE, MachineMemory
from ..memory.paging import ACCESSED, DIRTY, LARGE, NX, PRESENT, USER, WRITE, X86_64, PageTables

DIRECT_MAP = 0xFFFF830000000000
#: _CONRING_SIZE.
CONSOLE_SIZE = 1 << 14
#: The M2P that guests may read, and Xen's own mapping of it. Page tables of 32-bit guests have only
#: the latter.
M2P = 0xFFFF800000000000
RDWR_M2P = 0xFFFF828000000000
#: The M2P of 32-bit guests, of 4-byte entries: its end as they see it (it starts below
#: 0xf5800000 + 2 MiB on hosts with much memory only), and Xen's own mapping of it.
COMPAT_M2P_END = 0xFFE00000
RDWR_COMPAT_M2P = 0xFFFF82D000000000
INVALID_M2P = (1 << 64) - 1

#: Offsets in Xen's structs, of 4.17.
DOMAIN_ID, DOMAIN_MAX_VCPUS, DOMAIN_VCPU, DOMAIN_SHARED_INFO = 0, 4, 8, 16
DOMAIN_TOT_PAGES, DOMAIN_MAX_PAGES, DOMAIN_NEXT, DOMAIN_OPTIONS = 88, 100, 136, 316
DOMAIN_HANDLE, DOMAIN_SIZE = 1928, 2304
VCPU_ID, VCPU_PROCESSOR, VCPU_INFO, VCPU_DOMAIN, VCPU_NEXT = 0, 4, 8, 16, 24
VCPU_IS_RUNNING, VCPU_PAUSE_FLAGS = 271, 296
VCPU_ARCH = 640
VCPU_USER_REGS = VCPU_ARCH + 8
VCPU_CTRLREG = VCPU_ARCH + 384 + 296
VCPU_GS_BASE_KERNEL = VCPU_ARCH + 384 + 416
VCPU_CR3 = VCPU_ARCH + 2216
VCPU_SIZE = 3136

_IDLE_DOMAIN = 0x7FFF

_USER_REGS = names("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi")

#: The 64-bit names of a 32-bit guest's registers.
_WIDE = {
    f"r{name}": f"e{name}"
    for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip", "flags")
}


def user_regs(registers: Mapping[str, int]) -> bytes:
    """``struct cpu_user_regs``, of a 64-bit or 32-bit guest."""

    def get(name: str) -> int:
        return registers.get(name, registers.get(_WIDE.get(name, ""), 0))

    out = b"".join(struct.pack("<Q", get(name)) for name in _USER_REGS)
    out += struct.pack("<II", get("error_code"), get("entry_vector"))
    out += struct.pack("<QHxxBxxxQQQ", get("rip"), get("cs"), 0, *map(get, ("rflags", "rsp", "ss")))
    return out + b"".join(struct.pack("<Q", get(name)) for name in ("es", "ds", "fs", "gs"))


@dataclass
class Vcpu:
    """A vCPU: its saved registers, and the pCPU that it runs on or ran on last."""

    number: int
    processor: int
    registers: Mapping[str, int]
    cr3: int
    gs_base: int = 0
    running: bool = False
    #: The guest's cr3, if Xen runs the guest with a root of its own.
    guest_cr3: int | None = None
    address: int = 0


@dataclass
class SharedInfo:
    """The P2M that a guest publishes in shared_info (``struct arch_shared_info``)."""

    max_pfn: int
    frame_list_list: int
    p2m_cr3: int = 0
    p2m_vaddr: int = 0
    p2m_generation: int = 0


@dataclass
class Domain:
    """A domain of Xen."""

    number: int
    guest: Guest
    shared: SharedInfo
    vcpus: list[Vcpu]
    word: int = 8
    address: int = 0
    shared_address: int = 0


@dataclass
class Pcpu:
    """A pCPU: the registers of the interrupted guest, and those of Xen at the crash."""

    number: int
    stack: int
    cr3: int
    guest: Mapping[str, int]
    current: int
    xen: dict[str, int] = field(default_factory=dict)
    domain: int | None = None
    vcpu: int | None = None
    #: Xen's own frames, innermost first; empty if not known.
    frames: list[StackFrame] = field(default_factory=list)


class Xen64:
    """The hypervisor, in machine frames from ``phys_start`` on."""

    version = (4, 17)
    #: XEN_VIRT_START: the virtual address of the image.
    virt_start = 0xFFFF82D040000000
    stack_pages = 8
    #: Size of ``struct cpu_info`` at the top of a stack.
    cpu_info = 264

    def __init__(self, machine: MachineMemory, phys_start: int, rng: random.Random) -> None:
        self.machine = machine
        self.phys_start = phys_start
        self.rng = rng
        self._free = phys_start + 0x800000
        self.domains: list[Domain] = []
        self.pcpus: list[Pcpu] = []
        self._data = self.data + 0x100
        self.symbols: dict[str, int] = {}
        for name in ("frame_table", "max_page", "dom_xen", "dom_io", "domain_list"):
            self.symbols[name] = self._reserve(64)
        self.symbols["pgd_l4"] = self.data + 0x10000
        self.strings = {
            name: self._string(text)
            for name, text in (
                ("extra", ".5"),
                ("changeset", "Mon Jul 8 16:21:57 2024 +0200 git:0000000000"),
                ("compiler", "gcc (Debian 12.2.0-14) 12.2.0"),
                ("date", "Mon Nov 16 09:12:03 UTC 2026"),
                ("time", "09:12:03"),
            )
        }
        self.idle = self._heap(PAGE)
        #: Where the pointer to the next domain of the list is.
        self._next_domain = self.symbols["domain_list"]
        self.slots = self._map_self()
        for at in range(0x200000, 0x240000, 64):  # random code
            machine.write(phys_start + at, rng.randbytes(64))

    @property
    def text(self) -> int:
        """The start of Xen's text."""
        return self.virt_start + 0x200000

    @property
    def data(self) -> int:
        """The start of Xen's data."""
        return self.virt_start + 0x400000

    @property
    def end(self) -> int:
        """The first machine address after Xen's heap."""
        return self._free

    def _reserve(self, size: int) -> int:
        at = self._data
        self._data += size
        return at

    def machine_address(self, va: int) -> int:
        """The machine address of an address in Xen's image or direct map."""
        if va >= DIRECT_MAP:
            return va - DIRECT_MAP
        return va - self.virt_start + self.phys_start

    def write(self, va: int, data: bytes) -> None:
        """Writes at an address of Xen's image or direct map."""
        self.machine.write(self.machine_address(va), data)

    def write_u64(self, va: int, *values: int) -> None:
        """Writes 8-byte words."""
        self.write(va, struct.pack(f"<{len(values)}Q", *values))

    def _string(self, text: str) -> int:
        """Writes a string to Xen's data; returns its machine address, for CRASH_INFO."""
        raw = text.encode() + b"\0"
        va = self._reserve(-(-len(raw) // 8) * 8)
        self.write(va, raw)
        return self.machine_address(va)

    def write_console(self, last: Sequence[str]) -> None:
        """Writes the console ring, with some lines of the start and the last ones."""
        version = f"{self.version[0]}.{self.version[1]}.5"
        boot = (
            f"Xen version {version} (builder@example) (gcc (Debian 12.2.0-14) 12.2.0) debug=n",
            "Command line: placeholder console=com1 dom0_mem=256M crashkernel=160M",
            *(f"CPU{n}: APICs established" for n in range(8)),
            "*** Serial input to DOM0 (type 'CTRL-a' three times to switch input)",
        )
        text = "".join(f"(XEN) {line}\n" for line in (*boot, *last)).encode()
        ring = self._heap(CONSOLE_SIZE, CONSOLE_SIZE)
        self.write(ring, text.ljust(CONSOLE_SIZE, b"\0"))
        self.write_u64(self._reserve(8), ring)

    def _heap(self, size: int, align: int = PAGE) -> int:
        """Allocates pages of Xen's heap; returns an address in the direct map."""
        at = -(-self._free // align) * align
        self._free = at + -(-size // PAGE) * PAGE
        for mfn in range(at // PAGE, self._free // PAGE):
            self.machine.frame(mfn)
        return DIRECT_MAP + at

    def _map_self(self) -> dict[int, int]:
        """Maps Xen; returns its slots of an L4 table, which every root of the host shares."""

        def page() -> int:
            return (self._heap(PAGE) - DIRECT_MAP) // PAGE

        root = (self.machine_address(self.symbols["pgd_l4"])) // PAGE
        flags = PRESENT | WRITE | ACCESSED | DIRTY
        tables = self._tables = PageTables(X86_64, self.machine, page, root, flags)
        large = 2 << 20
        image = range(0, 0x800000, large) if self.virt_start < DIRECT_MAP else ()
        for offset in image:
            tables.map(self.virt_start + offset, (self.phys_start + offset) // PAGE, flags, 2)
        for at in range(0, self.machine.size, large):
            tables.map(DIRECT_MAP + at, at // PAGE, flags | NX, 2)
        size = self.machine.size // PAGE * 8
        self.compat_m2p = 0
        self.m2p = self._heap(-(-size // large) * large, large) - DIRECT_MAP
        for at in range(0, size, large):
            # Guests may read the M2P.
            tables.map(M2P + at, (self.m2p + at) // PAGE, PRESENT | ACCESSED | USER | NX, 2)
            tables.map(RDWR_M2P + at, (self.m2p + at) // PAGE, flags | NX, 2)
        return {slot: tables.get(root, slot) for slot in range(256, 272) if tables.get(root, slot)}

    def add_domain(self, domain: Domain) -> None:
        """Writes a domain, its vCPUs and its shared_info."""
        frames = sum(domain.guest.is_frame(p) for p in range(domain.guest.pages))
        self.add_struct(domain, frames, domain.guest.max_pfn)
        self.write(domain.shared_address, shared_info(domain.word, domain.shared))
        self.domains.append(domain)

    def add_struct(self, domain: Domain, pages: int, max_pages: int) -> None:
        """Writes a domain's struct and its vCPUs, and reserves its shared_info."""
        domain.address = self._heap(DOMAIN_SIZE)
        domain.shared_address = self._heap(PAGE)
        array_ = self._heap(max(8 * len(domain.vcpus), 1))
        at = domain.address
        self.write(at, struct.pack("<HxxI", domain.number, len(domain.vcpus)))
        self.write_u64(at + DOMAIN_VCPU, array_, domain.shared_address)
        self.write(at + DOMAIN_TOT_PAGES, struct.pack("<I", pages))
        self.write(at + DOMAIN_MAX_PAGES, struct.pack("<I", max_pages))
        if domain.number:
            self.write(at + DOMAIN_HANDLE, self.rng.randbytes(16))
        for i, vcpu in enumerate(domain.vcpus):
            vcpu.address = self._heap(VCPU_SIZE)
            self.write_u64(array_ + 8 * i, vcpu.address)
            self._write_vcpu(domain, vcpu)
        for vcpu, following in zip(domain.vcpus, domain.vcpus[1:], strict=False):
            self.write_u64(vcpu.address + VCPU_NEXT, following.address)
        self.write_u64(self._next_domain, at)
        self._next_domain = at + DOMAIN_NEXT

    def _write_vcpu(self, domain: Domain, vcpu: Vcpu) -> None:
        at = vcpu.address
        self.write(at, struct.pack("<II", vcpu.number, vcpu.processor))
        self.write_u64(at + VCPU_INFO, domain.shared_address + 64 * vcpu.number, domain.address)
        self.write(at + VCPU_IS_RUNNING, bytes([int(vcpu.running)]))
        self.write(at + VCPU_USER_REGS, user_regs(vcpu.registers))
        guest_cr3 = vcpu.cr3 if vcpu.guest_cr3 is None else vcpu.guest_cr3
        self.write_u64(at + VCPU_CTRLREG, 0x80050033, 0, 0, guest_cr3)
        self.write_u64(at + VCPU_GS_BASE_KERNEL, vcpu.gs_base)
        self.write_u64(at + VCPU_CR3, vcpu.cr3)

    def add_pcpu(
        self,
        cr3: int,
        guest: Mapping[str, int],
        current: int,
        *,
        domain: int | None = None,
        vcpu: int | None = None,
        gs_base: int = 0,
    ) -> None:
        """Adds a pCPU with its stack: the guest's registers at the top, Xen's calls below."""
        number = len(self.pcpus)
        size = self.stack_pages * PAGE
        low = self._heap(size, size)
        info = low + size - self.cpu_info
        self.write(info, user_regs(guest))
        self.write(info + 200, struct.pack("<IIQ", number, 0, current))
        if self.cpu_info > 224:
            self.write_u64(info + 224, 0x150660, cr3)
        sp = info - 0xF0 - 8 * self.rng.randrange(0, 40)
        for at in range(sp, info, 8):
            word = self.text + self.rng.randrange(0x40000) if self.rng.random() < 0.4 else number
            self.write_u64(at, word)
        rip = self.text + 0x1E9D2
        xen = {
            "rip": rip,
            "rsp": sp,
            "cs": 0xE008,
            "ss": 0xE010 if number else 0,
            "rflags": 0x202,
            "rbp": low + size - 1,
            "rbx": self.symbols["domain_list"],
            "gs_base": gs_base,
        }
        self.pcpus.append(Pcpu(number, low, cr3, guest, current, xen, domain, vcpu))

    def idle_vcpu(self, number: int) -> int:
        """The address of Xen's idle vCPU of a processor."""
        if not hasattr(self, "_idle_vcpus"):
            self._idle_vcpus: dict[int, int] = {}
            self.write(self.idle, struct.pack("<HxxI", _IDLE_DOMAIN, 2))
        if number not in self._idle_vcpus:
            at = self._heap(VCPU_SIZE)
            self.write(at, struct.pack("<II", number, number))
            self.write_u64(at + VCPU_DOMAIN, self.idle)
            self.write(at + VCPU_IS_RUNNING, b"\1")
            self._idle_vcpus[number] = at
        return self._idle_vcpus[number]

    def compat_root(self, pdpt: int) -> int:
        """The L4 table with which Xen runs a 32-bit guest; slot 0 points to the guest's PDPT."""
        at = self._heap(PAGE)
        self.write_u64(at, pdpt | 0x27)
        for slot, entry in self.slots.items():
            if slot != M2P >> 39 & 511:
                self.write_u64(at + 8 * slot, entry)
        return at - DIRECT_MAP

    def compat_slots(self) -> dict[int, int]:
        """Xen's entries of a 32-bit guest's last page directory: the compat M2P, read-only."""
        large = 2 << 20
        size = self.machine.size // PAGE * 4
        self.compat_m2p = self._heap(-(-size // large) * large, large) - DIRECT_MAP
        for at in range(0, size, large):
            writable = PRESENT | WRITE | ACCESSED | DIRTY | NX
            self._tables.map(RDWR_COMPAT_M2P + at, (self.compat_m2p + at) // PAGE, writable, 2)
        count = -(-size // large)
        first = (COMPAT_M2P_END - 0xC0000000) // large - count
        flags = PRESENT | ACCESSED | USER | LARGE
        return {first + n: self.compat_m2p + n * large | flags for n in range(count)}

    def write_compat_m2p(self) -> None:
        """Writes the compat M2P: the M2P in words of 4 bytes."""
        wide = array("Q", self.machine.read(self.m2p, self.machine.size // PAGE * 8))
        table = array("I", [pfn & 0xFFFFFFFF for pfn in wide])
        self.machine.write(self.compat_m2p, table.tobytes())

    def write_m2p(self) -> None:
        """Writes the machine-to-pseudo-physical table of the host."""
        self.write_m2p_of([domain.guest for domain in self.domains])

    def write_m2p_of(self, guests: Iterable[Guest]) -> None:
        """Writes the M2P of given guests, with or without a ``struct domain``."""
        table = array("Q", [INVALID_M2P]) * (self.machine.size // PAGE)
        for guest in guests:
            special = guest.foreign_bit | guest.identity_bit
            for pfn, mfn in enumerate(guest.p2m):
                if not mfn & special:
                    table[mfn] = pfn
        self.machine.write(self.m2p, table.tobytes())

    def notes(self, frame_list_list: int) -> list[notes.Note]:
        """The notes of all pCPUs; only the first has CRASH_INFO."""
        out = []
        for pcpu in self.pcpus:
            out.append(notes.prstatus(8, pcpu.xen))
            out.append(notes.crash_regs(8, 0x80050033, 0x5EB1E0, pcpu.cr3, 0x150660))
            if pcpu.number == 0:
                out.append(notes.crash_info(8, self.crash_info(frame_list_list)))
        out.append(notes.Note("VMCOREINFO_XEN", 0, self.vmcoreinfo().ljust(4068, b"\0")))
        return out

    def crash_info(self, frame_list_list: int) -> list[int]:
        """The words of XEN_ELFNOTE_CRASH_INFO."""
        s = self.strings
        strings = [s["extra"], s["changeset"], s["compiler"], s["date"], s["time"]]
        return [*self.version, *strings, 0, self.phys_start, frame_list_list]

    def vmcoreinfo(self) -> bytes:
        """The content of VMCOREINFO_XEN."""
        s = self.symbols
        lines = [
            "PAGESIZE=4096",
            *(f"SYMBOL({n})={s[n]:x}" for n in ("domain_list", "frame_table", "max_page")),
            "SIZE(page_info)=32",
            f"SIZE(domain)={DOMAIN_SIZE}",
            "OFFSET(page_info.count_info)=8",
            "OFFSET(page_info._domain)=24",
            f"OFFSET(domain.domain_id)={DOMAIN_ID}",
            f"OFFSET(domain.next_in_list)={DOMAIN_NEXT}",
            *(f"SYMBOL({n})={s[n]:x}" for n in ("dom_xen", "dom_io", "pgd_l4")),
        ]
        return ("\n".join(lines) + "\n").encode()


def shared_info(word: int, info: SharedInfo) -> bytes:
    """The content of shared_info, in the layout of a guest of ``word`` bytes."""
    out = bytearray(PAGE)
    values = [info.max_pfn, info.frame_list_list, 0, info.p2m_cr3, info.p2m_vaddr]
    values.append(info.p2m_generation)
    raw = notes.words(word, [v & ((1 << 8 * word) - 1) for v in values])
    at = 3088 if word == 8 else 2316
    out[at : at + len(raw)] = raw
    return bytes(out)


class Xen30(Xen64):
    """Xen 3.0 of 2006: its image is in the direct map, its release builds have small stacks."""

    version = (3, 0)
    virt_start = DIRECT_MAP + 0x100000
    stack_pages = 2
    cpu_info = 216

    def machine_address(self, va: int) -> int:
        """The machine address of an address in the direct map, which contains all of Xen."""
        return va - DIRECT_MAP
