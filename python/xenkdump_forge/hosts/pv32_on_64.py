"""The kind ``32on64``: a 32-bit dom0 (Linux 4.19) on a 64-bit Xen 4.17."""

from __future__ import annotations

import random
from dataclasses import replace

from .. import plan
from ..elf import format as elf
from ..elf.core import Core
from ..errors import SyntheticDumpError
from ..kernels import task_table
from ..kernels.image import Image
from ..kernels.printk import Line
from ..kernels.v4_19 import functions
from ..kernels.v4_19.kernel import Linux419
from ..memory import p2m
from ..memory.guest import Guest
from ..memory.machine import PAGE, FramePool, MachineMemory
from ..parts import Parts
from ..xen.xen64 import Domain, SharedInfo, Vcpu, Xen64
from .modern import DOM0, carve

MIB = 1 << 20

_PANIC = "Kernel panic - not syncing: Fatal exception"
_OOPS = "BUG: unable to handle kernel NULL pointer dereference at 00000000"


def extended_cr3(root: int) -> int:
    """cr3 as a 32-bit PV guest writes it (xen_pfn_to_cr3): high bits of the mfn in the low bits."""
    mfn = root // PAGE
    return (mfn << 12 | mfn >> 20) & 0xFFFFFFFF


def build(memory: int, seed: int) -> Parts:
    """The parts, for a dom0 of ``memory`` bytes."""
    if memory > 800 * MIB:
        raise SyntheticDumpError("32on64: at most 800 MiB of memory, all of it low")
    rng = random.Random(seed)
    hole = (64 * MIB, 96 * MIB)
    top = -(-(memory + 160 * MIB) // (2 * MIB)) * 2 * MIB
    machine = MachineMemory(top + 64 * MIB, [(0x9F000, 0x100000), hole])
    xen = Xen64(machine, top, rng)
    pool = FramePool([(MIB // PAGE, hole[0] // PAGE), (hole[1] // PAGE, top // PAGE)], rng)
    image = Image(functions.spec())
    guest = Guest(machine, pool, 4, memory // PAGE, rng)
    carve(guest)
    facts = replace(DOM0, memory_pages=memory // PAGE * 9 // 10, panic=_PANIC)
    kernel = Linux419(image, guest, facts, 2, rng)
    kernel.make_tasks(task_table.modern_dom0(2))
    panicked = kernel.task(1340)
    kernel.boot_cpus([kernel.idle[0], panicked])
    idle_regs = kernel.run_idle(kernel.idle[0], functions.RUNNING["idle0"])
    panic_regs = kernel.run_panic(panicked)
    kernel.write_facts()
    kernel.assign(crashing_cpu=-1)
    kernel.variable("panic_cpu")["counter"] = panicked.job.cpu
    end = [Line(facts.uptime - 0.004, 6, "sysrq: SysRq : Trigger a crash")]
    end += [Line(facts.uptime - 0.003, 1, _OOPS), Line(facts.uptime - 0.001, 0, _PANIC)]
    kernel.write_log(kernel.log_lines(120, end))
    entries = kernel.write_p2m()
    tree = p2m.write_tree(guest, entries, zero_terminated=False)
    kernel.write_page_tables(xen.compat_slots())

    shared = SharedInfo(
        guest.pages,
        tree,
        extended_cr3(kernel.root_address()),
        kernel.p2m_vaddr,
        p2m_generation=0x40,
    )
    roots = [kernel.root_address(), panicked.root]
    tops = [xen.compat_root(root) for root in roots]
    # Those of an earlier switch: Xen left the current ones on the stack of the idle pCPU.
    stale = {**idle_regs, "ebx": 7, "esp": idle_regs["esp"] - 0x40}
    vcpus = [
        Vcpu(0, 1, stale, tops[0], guest_cr3=extended_cr3(roots[0])),
        Vcpu(1, 0, panic_regs, tops[1], running=True, guest_cr3=extended_cr3(roots[1])),
    ]
    xen.add_domain(Domain(0, guest, shared, vcpus, word=4))
    xen.add_pcpu(tops[1], panic_regs, vcpus[1].address, domain=0, vcpu=1)
    xen.add_pcpu(tops[0], idle_regs, xen.idle_vcpu(1), domain=0, vcpu=0)
    xen.write_m2p()
    xen.write_compat_m2p()
    core = Core(
        elf.ELF64, elf.EM_386, machine, [xen.notes(tree)], functions.PAGE_OFFSET, lowmem=0x38000000
    )
    dom0 = plan.domain(kernel, panicked)
    dom0 |= {
        "id": 0,
        "p2m_sources": ["list", "linear", "cr3"],
        "root": hex(kernel.root_address()),
        "frame_list_list": hex(tree),
        "p2m_vaddr": hex(kernel.p2m_vaddr),
        "p2m_cr3": hex(extended_cr3(kernel.root_address())),
    }
    out: plan.Json = {
        "xen": {"major": 4, "minor": 17, "phys_start": hex(xen.phys_start)},
        "domains": [dom0],
        "pcpus": plan.pcpus(xen.pcpus),
        "registers_in_dump": True,
    }
    return Parts(image.vmlinux(), core, out, [kernel])
