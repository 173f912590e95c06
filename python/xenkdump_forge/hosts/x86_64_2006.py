"""The kind ``2006-x86_64``: a 64-bit Xen 3.0 with a Linux 2.6.16 dom0, and the CR3 note."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import ClassVar

from .. import plan
from ..elf import format as elf
from ..elf import notes
from ..elf.core import Core
from ..errors import SyntheticDumpError
from ..kernels import task_table
from ..kernels.image import Image
from ..kernels.printk import Line
from ..kernels.v2_6 import x86_64_functions as functions
from ..kernels.v2_6.x86_64 import Linux26X8664
from ..memory import p2m
from ..memory.guest import Guest
from ..memory.machine import PAGE, FramePool, MachineMemory
from ..parts import Parts
from ..xen.xen64 import Xen30
from .i386_2006 import DO_KDUMP, FACTS, carve

MIB = 1 << 20

#: Its P2M has no shared pages, and its host no holes: every page costs memory here.
MAX_MEMORY = 8 << 30

_RELEASE = "2.6.16.13-xen"
_VERSION = "#3 SMP Mon Jun 19 11:02:17 JST 2006"
_BANNER = f"Linux version {_RELEASE} (builder@example) (gcc version 4.0.4) {_VERSION}\n"


class Dom0(Linux26X8664):
    """With the registers of do_kdump's write()."""

    fixed_registers: ClassVar = {
        DO_KDUMP: {"rdi": 1, "rdx": 2, "rax": -38 & (1 << 64) - 1, "orig_rax": 1}
    }


def build(memory: int, seed: int) -> Parts:
    """The parts, for a dom0 of ``memory`` bytes."""
    if memory > MAX_MEMORY:
        raise SyntheticDumpError(f"2006-x86_64: at most {MAX_MEMORY >> 30} GiB of memory")
    rng = random.Random(seed)
    hole = (64 * MIB, 128 * MIB)
    size = -(-(memory + 160 * MIB) // (2 * MIB)) * 2 * MIB
    machine = MachineMemory(size, [(0xA0000, MIB), hole])
    xen = Xen30(machine, MIB, rng)
    pool = FramePool([(32 * MIB // PAGE, hole[0] // PAGE), (hole[1] // PAGE, size // PAGE)], rng)
    guest = Guest(machine, pool, 8, memory // PAGE, rng)
    carve(guest)
    image = Image(functions.spec(_RELEASE, _VERSION, _BANNER))
    facts = replace(FACTS, memory_pages=memory // PAGE, mhz=2197, model="AMD Opteron(tm) 248")
    kernel = Dom0(image, guest, facts, 2, rng)
    kernel.make_tasks(task_table.dom0_2006(2))
    panicked = kernel.task(DO_KDUMP)
    kernel.boot_cpus([kernel.idle[0], panicked])
    idle_regs = kernel.run_vcpu(kernel.idle[0], functions.RUNNING["idle0"])
    panic_regs = kernel.run_vcpu(panicked, functions.RUNNING["panic"])
    kernel.write_facts()
    kernel.write_log(kernel.log_lines(100, [Line(facts.uptime - 0.01, 6, facts.panic)]))
    entries = kernel.write_p2m()
    tree = p2m.write_tree(guest, entries, zero_terminated=True)
    kernel.write_page_tables(xen.slots)
    xen.add_pcpu(
        kernel.root_address(), idle_regs, xen.idle_vcpu(0), domain=0, vcpu=0, gs_base=kernel.pda(0)
    )
    xen.add_pcpu(
        panicked.root, panic_regs, xen.idle_vcpu(1), domain=0, vcpu=1, gs_base=kernel.pda(1)
    )
    xen.write_m2p_of([guest])
    core_notes = []
    for pcpu in xen.pcpus:
        core_notes += [notes.prstatus(8, pcpu.xen), notes.kdump_cr3(pcpu.cr3 // PAGE, 8)]
    core = Core(elf.ELF64, elf.EM_X86_64, machine, [core_notes], functions.PAGE_OFFSET)
    dom0 = plan.domain(kernel, panicked)
    dom0 |= {
        "id": 0,
        "p2m_sources": ["cr3"],
        "root": hex(kernel.root_address()),
        "frame_list_list": hex(tree),
    }
    out = {
        "xen": {"major": 3, "minor": 0},
        "domains": [dom0],
        "pcpus": plan.pcpus(xen.pcpus),
        "registers_in_dump": True,
    }
    return Parts(image.vmlinux(), core, out, [kernel])
