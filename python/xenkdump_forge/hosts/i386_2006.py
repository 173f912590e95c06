"""The i386 kinds: a 32-bit Xen 3 with a Linux 2.6 dom0, as in the session of June 2006."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import ClassVar

from .. import plan
from ..code.text import Frame
from ..elf import format as elf
from ..elf import notes
from ..elf.core import Core
from ..errors import SyntheticDumpError
from ..kernels import task_table
from ..kernels.facts import Facts
from ..kernels.image import Image
from ..kernels.printk import Line
from ..kernels.v2_6 import i386_functions as functions
from ..kernels.v2_6.i386 import Linux26I386
from ..memory.guest import Guest
from ..memory.machine import PAGE, FramePool, MachineMemory
from ..parts import Parts
from ..xen import text32
from ..xen.text32 import CRASHING, STOPPED, STOPPED_IDLE
from ..xen.xen32 import HEAP_END, Xen32

MIB = 1 << 20

#: 887.4 MB, as in the message of 2006.
PAGES_2006 = 227174
_CRASHKERNEL = (32 * MIB, 96 * MIB)

FACTS = Facts(
    nodename="aiko.lab.ultramonkey.org",
    date=1150297501,  # Wed Jun 14 15:05:01 2006
    uptime=280.5,
    load=(1.22, 0.39, 0.13),
    mhz=866,
    hz=250,
    panic="SysRq : Trigger a crashdump",
    memory_pages=PAGES_2006,
    model="Pentium III (Coppermine)",
)

#: The panicking task and its registers, as in the message.
DO_KDUMP = 3949
_GIVEN = {
    "eax": 4,
    "ebx": 1,
    "ecx": 0x080F8408,
    "edx": 2,
    "xds": 0x7B,
    "esi": 2,
    "xes": 0x7B,
    "edi": 0xB7F007C0,
    "xss": 0x7B,
    "esp": 0xBFB5FFC8,
    "ebp": 0xBFB5FFE4,
    "xcs": 0x73,
    "eip": 0xB7E93028,
    "orig_eax": 4,
    "eflags": 0x246,
}

#: The build of June 2006, with every address of the message.
LAYOUT_2006 = functions.Layout(
    text=0xC0100000,
    rodata=0xC0290000,
    data=0xC02CD000,
    percpu=0xC0310000,
    bss=0xC0312000,
    addresses={
        "sys_call_table": 0xC0291000,
        "init_task": 0xC02CE460,
        "init_thread_union": 0xC030E000,
    },
    functions={
        "startup_32": 0xC0100000,
        "hypercall_page": 0xC0101000,
        "ret_from_fork": 0xC0105400,
        "system_call": 0xC0105500,
        "schedule": 0xC028E5F0,
    },
    returns={
        ("schedule", ".resume"): 0xC028E648,
        ("cpu_idle", "schedule"): 0xC0103E9F,
        ("crash_kexec", ".kexec_op"): 0xC0140C45,
        ("__handle_sysrq", "*"): 0xC01F54E4,
        ("write_sysrq_trigger", "__handle_sysrq"): 0xC019CBFF,
        ("vfs_write", "*"): 0xC0168DBF,
        ("sys_write", "vfs_write"): 0xC0169736,
        ("system_call", "*"): 0xC0105542,
    },
    frames={
        "crash_kexec": Frame(("edi", "esi", "ebx"), 64),
        "__handle_sysrq": Frame(("ebp", "edi", "esi", "ebx"), 24),
        "write_sysrq_trigger": Frame(("ebx",), 16),
        "vfs_write": Frame(("ebp", "edi", "esi", "ebx"), 16),
        "sys_write": Frame(("esi", "ebx"), 28),
        "schedule": Frame(("ebp", "edi", "esi", "ebx"), 104),
        "cpu_idle": Frame(("ebx",), 4),
    },
    ends_at_cpu_idle=True,
)

#: Another build: 2.6.18-xen was linked at 16 MiB.
LAYOUT = functions.Layout(
    text=0xC1000000,
    rodata=0xC1040000,
    data=0xC1080000,
    percpu=0xC10A0000,
    bss=0xC10A4000,
    addresses={"sys_call_table": 0xC1041000},
    functions={"startup_32": 0xC1000000, "hypercall_page": 0xC1001000},
    returns={},
    frames={"crash_kexec": Frame(("ebp", "edi", "esi", "ebx"), 72)},
    init_text={"start_kernel": 0xC1030000},
)


class June2006(Linux26I386):
    """The tasks of the message, at their addresses."""

    fixed_addresses: ClassVar = {DO_KDUMP: (0xF3E64030, 0xF3DBA000)}
    fixed_registers: ClassVar = {DO_KDUMP: _GIVEN}
    ends_at_cpu_idle = True


class Later(Linux26I386):
    """The same tasks, at other addresses."""

    fixed_registers: ClassVar = {DO_KDUMP: _GIVEN}


class Host:
    """The parts that all kinds share: Xen, the guest, its kernel with its tasks."""

    def __init__(
        self,
        memory: int,
        seed: int,
        minor: str,
        pae: bool,
        layout: functions.Layout,
        kernel: type[Linux26I386],
        *,
        xen_in_dump: bool = True,
    ) -> None:
        if memory > 3 << 30:
            raise SyntheticDumpError("an i386 kind has at most 3 GiB of memory")
        rng = random.Random(seed)
        top = -(-(memory + 96 * MIB) // (4 * MIB)) * 4 * MIB
        size = max(top, 1 << 30)
        holes = [(0xA0000, MIB), _CRASHKERNEL]
        if not xen_in_dump:
            holes.append((MIB, HEAP_END))
        self.machine = MachineMemory(size, holes)
        self.xen = Xen32(self.machine, pae, (3, 0), rng)
        after = (20 * MIB // PAGE, _CRASHKERNEL[0] // PAGE)
        pool = FramePool([after, (_CRASHKERNEL[1] // PAGE, size // PAGE)], rng)
        pages = memory // PAGE
        self.guest = Guest(self.machine, pool, 4, pages, rng)
        carve(self.guest)
        release, version = (
            ("2.6.16.13-xen", "#7 SMP Fri Jun 9 16:25:32 JST 2006")
            if minor == "16"
            else ("2.6.18.8-xen", "#1 SMP Thu Nov 16 10:12:40 UTC 2006")
        )
        banner = f"Linux version {release} (builder@example) (gcc version 4.0.4) {version}\n"
        image = Image(functions.spec(release, version, banner, minor, pae, layout))
        facts = replace(FACTS, memory_pages=pages)
        self.kernel = kernel(image, self.guest, facts, 2, rng)
        self.kernel.make_tasks(task_table.dom0_2006(2))
        self.panicked = self.kernel.task(DO_KDUMP)
        self.kernel.boot_cpus([self.kernel.idle[0], self.panicked])
        self.kernel.write_facts()
        lines = [Line(facts.uptime - 0.01, 6, facts.panic)]
        self.kernel.write_log(self.kernel.log_lines(100, lines))

    def finish(self, *, maps_xen: bool = True) -> int:
        """Writes the P2M, page tables and Xen's tables; returns the frame-list-list."""
        entries = self.kernel.write_p2m()
        tree = self.kernel.write_frame_lists(entries)
        self.kernel.write_page_tables(self.xen.slots() if maps_xen else {})
        self.xen.write_m2p(self.guest)
        return tree

    def parts(
        self, core_notes: list[notes.Note], tree: int, sources: list[str], in_dump: bool
    ) -> Parts:
        """The parts; ``in_dump``: whether the vCPUs' registers are in the dump."""
        core = Core(
            elf.ELF32,
            elf.EM_386,
            self.machine,
            [core_notes],
            functions.PAGE_OFFSET,
            lowmem=0x38000000,
        )
        dom0 = plan.domain(self.kernel, self.panicked)
        dom0 |= {
            "id": 0,
            "p2m_sources": sources,
            "root": hex(self.kernel.root_address()),
            "frame_list_list": hex(tree),
        }
        pcpus = plan.pcpus(self.xen.pcpus)
        xen = {"major": self.xen.version[0], "minor": self.xen.version[1]}
        out = {"xen": xen, "domains": [dom0], "pcpus": pcpus, "registers_in_dump": in_dump}
        more = {"xen-syms": text32.xen_syms()}
        return Parts(self.kernel.image.vmlinux(), core, out, [self.kernel], more)


def carve(guest: Guest) -> None:
    """Adds ballooned-out and granted pages to the P2M."""
    pages = guest.pages
    for n in range(40):
        guest.special(pages * 5 // 6 + 61 * n, 1 + n % 9, "invalid")
    guest.special(pages - pages // 64, pages // 64, "invalid")
    guest.special(pages * 4 // 5, 5, "foreign")


def session(memory: int, seed: int) -> Parts:
    """The dump of the message of June 2006.

    The only registers of vCPUs are those in the notes: Xen's memory is not in the dump.
    """
    if memory < PAGES_2006 * PAGE:
        raise SyntheticDumpError(f"2006: needs at least {PAGES_2006 * PAGE} bytes of memory")
    host = Host(memory, seed, "16", False, LAYOUT_2006, June2006, xen_in_dump=False)
    kernel = host.kernel
    kernel.swap_root(host.panicked, 0x27227)
    kernel.run_vcpu(host.panicked, functions.RUNNING["panic"])
    tree = host.finish()
    host.xen.add_pcpu(0, None)
    host.xen.add_pcpu(host.panicked.root, host.panicked.registers, domain=0, vcpu=1, chain=CRASHING)
    return host.parts(_cr3_notes(host), tree, ["cr3"], False)


def pae(memory: int, seed: int) -> Parts:
    """The same with PAE and with Xen's memory, which has the registers of both vCPUs."""
    host = Host(memory, seed, "16", True, LAYOUT, Later)
    return _by_cr3(host)


def _run(host: Host) -> None:
    """Runs both vCPUs into a hypercall."""
    kernel = host.kernel
    kernel.run_vcpu(kernel.idle[0], functions.RUNNING["idle0"])
    kernel.run_vcpu(host.panicked, functions.RUNNING["panic"])


def _by_cr3(host: Host) -> Parts:
    _run(host)
    tree = host.finish()
    kernel = host.kernel
    idle = kernel.idle[0].registers
    host.xen.add_pcpu(kernel.root_address(), idle, domain=0, vcpu=0, chain=STOPPED_IDLE)
    host.xen.add_pcpu(host.panicked.root, host.panicked.registers, domain=0, vcpu=1, chain=CRASHING)
    return host.parts(_cr3_notes(host), tree, ["cr3"], True)


def shadow(memory: int, seed: int) -> Parts:
    """A dom0 on shadow page tables: its cr3 is unknown; only the frame-list-list is known.

    Only the shadows map Xen.
    """
    host = Host(memory, seed, "16", False, LAYOUT, Later)
    _run(host)
    tree = host.finish(maps_xen=False)
    kernel = host.kernel
    for number, task in enumerate((kernel.idle[0], host.panicked)):
        chain = CRASHING if number else STOPPED
        host.xen.add_pcpu(0, task.registers, domain=0, vcpu=number, chain=chain)
    return host.parts(_crash_notes(host, 9, tree), tree, ["list"], False)


def xen3(memory: int, seed: int) -> Parts:
    """Xen 3.1: CRASH_INFO with nine words, CRASH_REGS for each pCPU; a 2.6.18 with PAE."""
    host = Host(memory, seed, "18", True, LAYOUT, Later)
    host.xen.version = (3, 1)
    _run(host)
    tree = host.finish()
    kernel = host.kernel
    roots = (kernel.root_address(), host.panicked.root)
    for number, task in enumerate((kernel.idle[0], host.panicked)):
        chain = CRASHING if number else STOPPED
        host.xen.add_pcpu(roots[number], task.registers, domain=0, vcpu=number, chain=chain)
    return host.parts(_crash_notes(host, 9, tree), tree, ["list", "cr3"], True)


def oops(memory: int, seed: int) -> Parts:
    """The same after an oops in a module's timer on the idle task of vCPU 0."""
    host = Host(memory, seed, "18", True, LAYOUT, Later)
    host.xen.version = (3, 4)
    kernel = host.kernel
    host.panicked = kernel.idle[0]
    kernel.run_oops(kernel.idle[0])
    tree = host.finish()
    kernel.run_vcpu(kernel.task(DO_KDUMP), functions.RUNNING["panic"])
    root = kernel.root_address()
    host.xen.add_pcpu(root, kernel.idle[0].registers, domain=0, vcpu=0, chain=CRASHING)
    task = kernel.task(DO_KDUMP)
    host.xen.add_pcpu(task.root, task.registers, domain=0, vcpu=1, chain=STOPPED)
    return host.parts(_crash_notes(host, 9, tree), tree, ["list", "cr3"], True)


def _cr3_notes(host: Host) -> list[notes.Note]:
    out = []
    for pcpu in host.xen.pcpus:
        out += [notes.prstatus(4, pcpu.xen), notes.kdump_cr3(pcpu.cr3 // PAGE)]
    return out


def _crash_notes(host: Host, words: int, tree: int) -> list[notes.Note]:
    cr4 = 0x6F0 if host.xen.pae else 0x6D0
    out = []
    for pcpu in host.xen.pcpus:
        out.append(notes.prstatus(4, pcpu.xen))
        out.append(notes.crash_regs(4, 0x8005003B, 0xB7F12000, pcpu.cr3, cr4))
        if pcpu.number == 0:
            out.append(host.xen.crash_info(words, tree))
    return out
