"""The kind ``modern``: a 64-bit Xen 4.17 with a 6.1 dom0."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from .. import plan
from ..elf import format as elf
from ..elf.core import Core
from ..errors import SyntheticDumpError
from ..kernels import task_table
from ..kernels.facts import Facts
from ..kernels.image import Image
from ..kernels.printk import Line
from ..kernels.task_table import Job
from ..kernels.v6_1 import blocked, crashes, functions
from ..kernels.v6_1.blocked import Blocked
from ..kernels.v6_1.crashes import CRASHES, Crash
from ..kernels.v6_1.kernel import Linux61
from ..memory import p2m
from ..memory.guest import Guest
from ..memory.machine import PAGE, FramePool, MachineMemory
from ..parts import Parts
from ..xen.xen64 import Domain, SharedInfo, Vcpu, Xen64

MIB = 1 << 20

_DOMU_MEMORY = 64 * MIB
#: The P2M of a 64-bit guest has 512 x 512 x 512 entries (public/arch-x86/xen.h).
MAX_MEMORY = 512 << 30
#: Memory of dom0 that has frames.
MAX_POPULATED = 4 << 30

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
    """``build`` with a kernel from before XSA-466."""
    return build(memory, seed, functions.BY_PAGE)


def build_with_blocked_tasks(memory: int, seed: int) -> Parts:
    """``build`` with tasks in dom0 that wait for locks, two of them for each other."""
    return build(memory, seed, dom0_kernel=Blocked, extra=blocked.EXTRA, jobs=blocked.JOBS)


def build_crash(memory: int, seed: int, crash: str, kernel_build: int = 0) -> Parts:
    """``build`` with another crash than that by sysrq, in a build of the kernel."""
    chosen = CRASHES.get(crash)
    if chosen is None:
        known = ", ".join(CRASHES)
        raise SyntheticDumpError(f"unknown crash {crash!r}; the crashes are {known}")
    chosen = chosen.of_build(kernel_build)
    return build(memory, seed, extra=chosen.extra(), crash=chosen)


def build(
    memory: int,
    seed: int,
    hypercall: functions.Hypercall = functions.BY_FUNCTION,
    *,
    dom0_kernel: type[Linux61] = Linux61,
    extra: functions.Extra = functions.NOTHING,
    jobs: Sequence[Job] = (),
    crash: Crash | None = None,
) -> Parts:
    """The parts, for a dom0 of ``memory`` bytes; the guest has 64 MiB.

    All but the first ``MAX_POPULATED`` bytes of dom0 are ballooned out.
    """
    if memory > MAX_MEMORY:
        raise SyntheticDumpError(
            f"a frame-list tree of a 64-bit guest ends at {MAX_MEMORY >> 30} GiB of memory"
        )
    # More would make the dump as large as the memory, by its P2M and page tables.
    populated = min(memory, MAX_POPULATED)
    rng = random.Random(seed)
    hole = (64 * MIB, 96 * MIB)
    top = -(-(populated + _DOMU_MEMORY + 160 * MIB) // (2 * MIB)) * 2 * MIB
    machine = MachineMemory(top + 64 * MIB, [(0x9F000, 0x100000), hole])
    xen = Xen64(machine, top, rng)
    pool = FramePool([(MIB // PAGE, hole[0] // PAGE), (hole[1] // PAGE, top // PAGE)], rng)
    image = Image(functions.spec(hypercall, extra))
    dom0 = _dom0(dom0_kernel, image, machine, pool, memory, jobs, rng, crash)
    domu = _domu(image, machine, pool, rng, crash)
    for kernel in (dom0, domu):
        kernel.hypercall = hypercall
    # Pages of the guest that dom0 has mapped by grants.
    first = dom0.guest.pages * 7 // 8
    dom0.guest.map_foreign(first, [domu.guest.mfn(pfn) for pfn in (0x3000, 0x3001, 0x2F11, 7)])

    panicked = dom0.running[1]
    idle_regs = dom0.run_vcpu(dom0.idle[0], functions.RUNNING["idle0"])
    dom0.assign(crashing_cpu=-1)
    if crash is None:
        panic_regs = dom0.run_vcpu(panicked, functions.RUNNING["panic"])
        end = [Line(dom0.facts.uptime - 0.004, 6, "sysrq: Trigger a crash")]
        end.append(Line(dom0.facts.uptime - 0.002, 0, dom0.facts.panic))
        dom0.variable("panic_cpu")["counter"] = panicked.job.cpu
    else:
        panic_regs = _crash(dom0, 0, crash)
        end = _lines(dom0, 0, crash)
        xen.write_console(crash.console)
    dom0.write_log(dom0.log_lines(120, end))
    tree = p2m.write_tree(dom0.guest, dom0.write_p2m(), zero_terminated=False)
    dom0.write_page_tables(xen.slots)
    shared = SharedInfo(dom0.guest.max_pfn, tree, dom0.root_address(), dom0.p2m_vaddr, 0x80)
    # Those of an earlier switch: Xen left the current ones on the stack of the idle pCPU.
    stale = {**idle_regs, "rbx": 7, "rsp": idle_regs["rsp"] - 0x80}
    vcpus = [
        Vcpu(0, 1, stale, dom0.root_address(), dom0.percpu[0]),
        Vcpu(1, 0, panic_regs, panicked.root, dom0.percpu[1], running=True),
    ]
    xen.add_domain(Domain(0, dom0.guest, shared, vcpus))
    xen.add_pcpu(
        panicked.root, panic_regs, vcpus[1].address, domain=0, vcpu=1, gs_base=dom0.percpu[1]
    )
    # vCPU 0 is idle: its registers are still on the stack, where Xen's idle vCPU runs.
    xen.add_pcpu(
        dom0.root_address(), idle_regs, xen.idle_vcpu(1), domain=0, vcpu=0, gs_base=dom0.percpu[0]
    )
    second = _add_domu(xen, domu, crash)
    xen.write_m2p()
    core = Core(elf.ELF64, elf.EM_X86_64, machine, [xen.notes(tree)], functions.PAGE_OFFSET)
    first_plan = plan.domain(dom0, panicked) | {
        "id": 0,
        "p2m_sources": ["list", "linear", "cr3"],
        "root": hex(dom0.root_address()),
        "frame_list_list": hex(tree),
        "p2m_vaddr": hex(dom0.p2m_vaddr),
        "p2m_cr3": hex(dom0.root_address()),
    }
    out: plan.Json = {
        "xen": {"major": 4, "minor": 17, "phys_start": hex(xen.phys_start)},
        "domains": [first_plan, second],
        "pcpus": plan.pcpus(xen.pcpus),
        "registers_in_dump": True,
    }
    return Parts(image.vmlinux(), core, out, [dom0, domu])


def _dom0(
    kernel_type: type[Linux61],
    image: Image,
    machine: MachineMemory,
    pool: FramePool,
    memory: int,
    jobs: Sequence[Job],
    rng: random.Random,
    crash: Crash | None,
) -> Linux61:
    pages = min(memory, MAX_POPULATED) // PAGE
    guest = Guest(machine, pool, 8, pages, rng, memory // PAGE)
    carve(guest)
    facts = replace(DOM0, memory_pages=pages * 9 // 10)
    kernel = kernel_type(image, guest, facts, 2, rng)
    table = [*task_table.modern_dom0(2), *jobs]
    comm = "do_kdump"
    if crash is not None:
        comm = _dies(crash, 0, comm)
        if crash.blocked is not None:
            kernel.extra_sleeps = {"blocked": crash.blocked_on}
        table = [_job(job, comm, crash) for job in table]
    kernel.make_tasks(table)
    second = next((task for task in kernel.tasks if task.job.comm == comm), kernel.idle[1])
    kernel.running = [kernel.idle[0], second]
    kernel.boot_cpus(kernel.running)
    kernel.write_facts()
    return kernel


def _dies(crash: Crash, domain: int, comm: str) -> str:
    """The name of the task that crashes a domain's kernel; empty if nothing does."""
    return (crash.comm or comm) if crash.where and crash.domain == domain else ""


def _job(job: Job, comm: str, crash: Crash) -> Job:
    """A task in a crash: one of them runs, one may be blocked."""
    if job.comm == comm:
        return replace(job, state="R", cpu=1, sleep="panic")
    if job.comm == crash.blocked:
        return replace(job, sleep="blocked")
    if job.state == "R":
        return replace(job, state="S", sleep="nanosleep")
    return job


def _crash(kernel: Linux61, domain: int, crash: Crash) -> dict[str, int]:
    """Lets the task on the last CPU crash the kernel, or idle; returns its vCPU's registers."""
    task = kernel.running[-1]
    if not crash.where or crash.domain != domain:
        kernel.variable("panic_cpu")["counter"] = -1
        return kernel.run_vcpu(task, functions.RUNNING["idle" if task.job.cpu else "idle0"])
    kernel.variable("panic_cpu")["counter"] = task.job.cpu
    return kernel.crash(task, crash)


def _lines(kernel: Linux61, domain: int, crash: Crash) -> list[Line]:
    """What a kernel prints when it crashes, with the stack that it has."""
    if not crash.where or crash.domain != domain:
        return []
    frames = kernel.running[-1].frames
    if crash.blocked is not None:
        frames = next(task for task in kernel.tasks if task.job.comm == crash.blocked).frames
    stack = crashes.trace(crash, frames, kernel.describe_frames())
    start = kernel.facts.uptime - 0.5
    texts = [*crash.before, *stack, *crash.after]
    return [Line(start + n / 1000, 0, text) for n, text in enumerate(texts)]


def _domu(
    image: Image,
    machine: MachineMemory,
    pool: FramePool,
    rng: random.Random,
    crash: Crash | None,
) -> Linux61:
    """A guest with the same kernel, idle unless it crashes."""
    guest = Guest(machine, pool, 8, _DOMU_MEMORY // PAGE, rng)
    guest.special(guest.pages - 64, 64, "invalid")
    facts = replace(
        DOM0, nodename="domu1.lab.example", uptime=97.5, memory_pages=guest.pages - 900, panic=""
    )
    kernel = Linux61(image, guest, facts, 1, rng)
    table = task_table.domu(1)
    if crash is not None and crash.domain == 1:
        table = [replace(_job(job, crash.comm or "", crash), cpu=0) for job in table]
    kernel.make_tasks(table)
    running = (task for task in kernel.tasks if task.job.state == "R")
    kernel.running = [next(running, kernel.idle[0])]
    kernel.boot_cpus(kernel.running)
    kernel.write_facts()
    kernel.assign(crashing_cpu=-1)
    kernel.variable("panic_cpu")["counter"] = -1
    if crash is None:
        kernel.write_log(kernel.log_lines(30, []))
    return kernel


def _add_domu(xen: Xen64, kernel: Linux61, crash: Crash | None) -> plan.Json:
    """Adds the domain, without a frame-list tree, as toolstacks since Xen 4.6 do."""
    if crash is None:
        registers = kernel.run_vcpu(kernel.idle[0], functions.RUNNING["idle0"])
    else:
        registers = _crash(kernel, 1, crash)
        kernel.write_log(kernel.log_lines(30, _lines(kernel, 1, crash)))
    kernel.write_p2m()
    kernel.write_page_tables(xen.slots)
    root = kernel.root_address()
    shared = SharedInfo(kernel.guest.pages, (1 << 64) - 1, root, kernel.p2m_vaddr, 2)
    vcpu = Vcpu(0, 1, registers, root, kernel.percpu[0])
    xen.add_domain(Domain(1, kernel.guest, shared, [vcpu]))
    return plan.domain(kernel, None) | {
        "id": 1,
        "p2m_sources": ["linear", "cr3"],
        "root": hex(root),
        "frame_list_list": hex((1 << 64) - 1),
        "p2m_vaddr": hex(kernel.p2m_vaddr),
        "p2m_cr3": hex(root),
    }


def carve(guest: Guest) -> None:
    """Adds identity and ballooned-out entries to the P2M, as in a dom0."""
    guest.special(0x9F, 0x61, "identity")
    pages = guest.pages
    guest.special(pages - pages // 16, pages // 16, "invalid")  # ballooned out
    for n in range(12):
        guest.special(pages * 3 // 4 + 37 * n, 1 + n % 5, "invalid")
