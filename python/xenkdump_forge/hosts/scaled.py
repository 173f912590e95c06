"""A host of any size, whose dom0 has any number of tasks, modules, CPUs and messages.

Other domains, PV and HVM in turn, share the rest of its memory.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from ..elf import format as elf
from ..elf.core import Core
from ..errors import WriteError
from ..kernels import task_table
from ..kernels.image import Image
from ..kernels.modules import Source
from ..kernels.printk import Line
from ..kernels.task_table import Job
from ..kernels.v6_1 import crowd, functions
from ..kernels.v6_1.crowd import Crowd
from ..kernels.v6_1.kernel import Linux61
from ..memory import p2m
from ..memory.guest import Guest
from ..memory.machine import PAGE, FramePool, MachineMemory
from ..xen.large import EXTENT, LargeXen
from ..xen.xen64 import Domain, SharedInfo, Vcpu
from .light import Hosting, Light
from .modern import DOM0

MIB, GIB = 1 << 20, 1 << 30
#: Machine address of dom0's memory, and the pid of the task that crashes.
_DOM0, _PANICKED = 64 * MIB, 1340
#: Of each other domain: the least memory, its vCPUs; how many builds of Linux they run.
_LEAST, _VCPUS, _BUILDS = 64 * MIB, 2, 8


@dataclass(frozen=True)
class Scale:
    """How much there is of each."""

    #: Bytes of machine memory; raised to what the rest needs.
    memory: int = GIB
    #: Domains with dom0. Of the kernels of the others there is only what identifies them.
    domains: int = 3
    #: Tasks of dom0, idle tasks not counted; it has about a hundred at least.
    tasks: int = 0
    modules: int = 2
    #: Virtual CPUs of dom0, and CPUs of the host.
    cpus: int = 2
    #: Binary logarithm of the bytes of dom0's log; 0 for the usual one.
    log_bits: int = 0


@dataclass(frozen=True)
class ScaledHost:
    """The files of a host, and what a reader must find."""

    vmcore: Path
    vmlinux: Path
    memory: int
    domains: int
    tasks: int
    modules: int
    cpus: int
    messages: int


def write_scaled_host(directory: str | PathLike[str], scale: Scale, seed: int = 0) -> ScaledHost:
    """Writes ``vmcore`` and ``vmlinux`` into ``directory``. Raises SyntheticDumpError."""
    host = _Host(scale, random.Random(seed))
    host.build()
    return host.write(Path(directory))


class _Kernel(Linux61):
    """A kernel with modules of one's choice."""

    wanted: Sequence[Source] = ()

    def load_modules(self, sources: Sequence[Source]) -> None:
        """Loads ``wanted``."""
        del sources
        super().load_modules(self.wanted)


class _Host(Hosting):
    def __init__(self, scale: Scale, rng: random.Random) -> None:
        self.scale = scale
        own = 192 * MIB + int(scale.tasks * crowd.PAGES_PER_TASK) * PAGE
        own += scale.modules * 16 * PAGE + scale.cpus * 64 * PAGE + (8 << scale.log_bits)
        self.dom0_memory = _rounded(own, 2 * MIB)
        xen = _DOM0 + self.dom0_memory
        # Xen's page tables of its tables of all frames, its stacks and vCPUs.
        heap = 64 * MIB + (16 * scale.cpus + 64 * scale.domains) * PAGE
        heap += self.dom0_memory + scale.memory >> 11
        self.domains_at = _rounded(xen + heap, 2 * MIB)
        memory = _rounded(max(scale.memory, self.domains_at + scale.domains * _LEAST), GIB)
        machine = MachineMemory(memory, [(0x9F000, 0x100000)])
        super().__init__(machine, LargeXen(machine, xen, rng), "npt", rng)
        self.image = Image(functions.spec(extra=crowd.EXTRA, cpus=scale.cpus))
        self.tree = 0

    def build(self) -> None:
        """Writes dom0 and the others, then the tables of all frames."""
        self._dom0()
        extents = list(
            range(self.domains_at // PAGE // EXTENT, self.machine.size // PAGE // EXTENT)
        )
        self.rng.shuffle(extents)
        share = len(extents) // max(self.scale.domains - 1, 1)
        for number in range(1, self.scale.domains):
            mine = [extents.pop() for _ in range(share)]
            guest = Light(self, number, mine, number % _BUILDS, _VCPUS)
            if number % 2:
                guest.paravirtual()
            else:
                guest.translated("hvm", None, views=False)
        self.xen.write_frames(self.owners, self.pfns)

    def _dom0(self) -> None:
        scale, cpus = self.scale, self.scale.cpus
        pool = FramePool([], self.rng)
        pages = self.dom0_memory // PAGE
        pool.extents = [(_DOM0 // PAGE, pages)]
        guest = Guest(self.machine, pool, 8, pages, self.rng)
        facts = replace(DOM0, memory_pages=pages * 9 // 10)
        kernel = self.kernel = _Kernel(self.image, guest, facts, cpus, self.rng)
        kernel.wanted = _modules(scale.modules)
        kernel.make_tasks(_jobs(cpus))
        more = scale.tasks - len(kernel.tasks)
        added = Crowd(kernel, more) if more > 0 else None
        self.tasks = len(kernel.tasks) + (0 if added is None else added.count)
        panicked = kernel.task(_PANICKED)
        kernel.boot_cpus([*kernel.idle[:-1], panicked])
        kernel.write_facts()
        kernel.assign(nr_threads=self.tasks)
        registers = (
            [kernel.run_vcpu(kernel.idle[0], functions.RUNNING["idle0"])] if cpus > 1 else []
        )
        registers += [kernel.run_vcpu(t, functions.RUNNING["idle"]) for t in kernel.idle[1:-1]]
        registers.append(kernel.run_vcpu(panicked, functions.RUNNING["panic"]))
        self._log(kernel)
        self.tree = p2m.write_tree(guest, kernel.write_p2m(), zero_terminated=False)
        kernel.write_page_tables(self.xen.slots)
        if added is not None:
            added.map_stacks()
        self._add(kernel, registers, panicked.root)

    def _log(self, kernel: Linux61) -> None:
        bits = self.scale.log_bits
        if not bits:
            kernel.write_log(kernel.log_lines(120, []))
            return
        # As many messages as have space.
        text = "scaled host: a message of average length that fills the ring, number {}"
        count = (1 << bits) // (8 + len(text) + 8)
        kernel.write_large_log([Line(i / 1000, 6, text.format(i)) for i in range(count)], bits)

    def _add(self, kernel: Linux61, registers: list[dict[str, int]], root: int) -> None:
        guest, xen = kernel.guest, self.xen
        own = kernel.root_address()
        shared = SharedInfo(guest.max_pfn, self.tree, own, kernel.p2m_vaddr, 2)
        last = len(registers) - 1
        vcpus = [
            Vcpu(i, 0 if i == last else i + 1, found, own, kernel.percpu[i], running=i == last)
            for i, found in enumerate(registers)
        ]
        vcpus[last].cr3 = root
        domain = Domain(0, guest, shared, vcpus)
        xen.add_domain(domain)
        self.mark(domain, 0, 1 << 8)
        for extent in range(_DOM0 // PAGE // EXTENT, (_DOM0 + self.dom0_memory) // PAGE // EXTENT):
            self.owners[extent] = domain.address
            self.pfns[extent] = extent * EXTENT - _DOM0 // PAGE
        xen.add_pcpu(root, registers[last], vcpus[last].address, gs_base=kernel.percpu[last])
        table = xen.machine_address(xen.symbols["pgd_l4"])
        for number in range(1, self.scale.cpus):
            xen.add_pcpu(table, {}, xen.idle_vcpu(number))

    def write(self, directory: Path) -> ScaledHost:
        """Writes the files."""
        core = Core(
            elf.ELF64,
            elf.EM_X86_64,
            self.machine,
            [self.xen.notes(self.tree)],
            functions.PAGE_OFFSET,
        )
        scale = self.scale
        files = ScaledHost(
            directory / "vmcore",
            directory / "vmlinux",
            self.machine.size,
            scale.domains,
            self.tasks,
            len(self.kernel.modules),
            scale.cpus,
            len(self.kernel.log),
        )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            core.write(files.vmcore)
            files.vmlinux.write_bytes(self.image.vmlinux())
        except OSError as error:
            raise WriteError(f"cannot write into {directory}: {error.strerror}") from error
        return files


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _jobs(cpus: int) -> list[Job]:
    """The usual tasks of a machine with one CPU; the one that crashes is on the last."""
    jobs = task_table.modern_dom0(1)
    return [replace(job, cpu=cpus - 1) if job.pid == _PANICKED else job for job in jobs]


def _modules(count: int) -> list[Source]:
    """The usual modules, then as many as are missing."""
    usual = list(Linux61.module_sources)
    names = (f"scaled_{i:04}" for i in range(count - len(usual)))
    return usual + [
        Source(name, (("schedule_timeout", f"{name}_wait", "kthread"),)) for name in names
    ]
