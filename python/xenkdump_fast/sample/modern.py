"""The kind ``modern``: a 64-bit Xen 4.17 with a 6.1 dom0."""

from __future__ import annotations

import random
from dataclasses import replace

from . import elf, p2m, plan, roster
from .core import Core
from .facts import Facts
from .guest import Guest
from .image import Image
from .kernels import v6_1_text as source
from .kernels.v6_1 import Linux61
from .machine import PAGE, FramePool, Machine
from .parts import Parts
from .printk import Line
from .xen64 import Domain, SharedInfo, Vcpu, Xen64

MIB = 1 << 20

DOM0 = Facts(
    nodename="aiko.lab.example",
    date=1794838527,
    uptime=341.27,
    load=(1.22, 0.39, 0.13),
    mhz=2445,
    hz=250,
    panic="Kernel panic - not syncing: sysrq triggered crash",
    memory_pages=0,
)


def build_with_hypercall_page(memory: int, seed: int) -> Parts:
    """As ``build``, with a kernel of before XSA-466."""
    return build(memory, seed, source.BY_PAGE)


def build(memory: int, seed: int, hypercall: source.Hypercall = source.BY_FUNCTION) -> Parts:
    """The files' content, for a dom0 of ``memory`` bytes."""
    rng = random.Random(seed)
    xen_size = 64 * MIB
    hole = (64 * MIB, 96 * MIB)
    guest_top = -(-(memory + 128 * MIB + hole[1] - hole[0]) // (2 * MIB)) * 2 * MIB
    size = guest_top + xen_size
    machine = Machine(size, [(0x9F000, 0x100000), hole])
    xen = Xen64(machine, guest_top, rng)
    pool = FramePool([(MIB // PAGE, hole[0] // PAGE), (hole[1] // PAGE, guest_top // PAGE)], rng)
    image = Image(source.spec(hypercall))

    guest = Guest(machine, pool, 8, memory // PAGE, rng)
    carve(guest)
    facts = replace(DOM0, memory_pages=memory // PAGE * 9 // 10)
    kernel = Linux61(image, guest, facts, 2, rng)
    kernel.hypercall = hypercall
    kernel.make_tasks(roster.modern_dom0(2))
    panicked = kernel.task(1340)
    running = [kernel.idle[0], panicked]
    kernel.boot_cpus(running)
    idle_regs = kernel.run_vcpu(kernel.idle[0], source.RUNNING["idle0"])
    panic_regs = kernel.run_vcpu(panicked, source.RUNNING["panic"])
    kernel.write_facts()
    kernel.assign(crashing_cpu=-1)
    kernel.variable("panic_cpu")["counter"] = panicked.job.cpu
    kernel.write_log(
        kernel.log_lines(
            120,
            [
                Line(facts.uptime - 0.004, 6, "sysrq: Trigger a crash"),
                Line(facts.uptime - 0.002, 0, facts.panic),
            ],
        )
    )
    entries = kernel.write_p2m()
    tree = p2m.write_tree(guest, entries, zero_terminated=False)
    kernel.write_page_tables(xen.slots)

    shared = SharedInfo(guest.pages, tree, kernel.root_address(), kernel.p2m_vaddr, 0x80)
    vcpus = [
        Vcpu(0, 1, idle_regs, kernel.root_address(), kernel.percpu[0]),
        Vcpu(1, 0, panic_regs, panicked.root, kernel.percpu[1], running=True),
    ]
    xen.add_domain(Domain(0, guest, shared, vcpus))
    xen.add_pcpu(
        panicked.root,
        panic_regs,
        vcpus[1].address,
        domain=0,
        vcpu=1,
        gs_base=kernel.percpu[1],
    )
    # vCPU 0 had gone to sleep: its registers are still on the stack, Xen's idle vCPU runs there.
    xen.add_pcpu(
        kernel.root_address(),
        idle_regs,
        xen.idle_vcpu(1),
        domain=0,
        vcpu=0,
        gs_base=kernel.percpu[0],
    )
    xen.write_m2p()
    core = Core(elf.ELF64, elf.EM_X86_64, machine, [xen.notes(tree)], source.PAGE_OFFSET)
    dom0 = plan.domain(kernel, panicked)
    dom0 |= {
        "id": 0,
        "root": hex(kernel.root_address()),
        "frame_list_list": hex(tree),
        "p2m_vaddr": hex(kernel.p2m_vaddr),
    }
    out: plan.Json = {
        "xen": {"major": 4, "minor": 17, "phys_start": hex(xen.phys_start)},
        "domains": [dom0],
        "pcpus": plan.pcpus(xen.pcpus),
    }
    return Parts(image.vmlinux(), core, out)


def carve(guest: Guest) -> None:
    """Gives the P2M the special entries that a dom0's has."""
    guest.special(0x9F, 0x61, "identity")
    pages = guest.pages
    guest.special(pages - pages // 16, pages // 16, "invalid")  # ballooned out
    guest.special(pages - pages // 8, 7, "foreign")
    for n in range(12):
        guest.special(pages * 3 // 4 + 37 * n, 1 + n % 5, "invalid")
