"""A host with terabytes and hundreds of domains, half of which are translated (HVM, PVH).

dom0, one PV and one HVM domain run a kernel with tasks. The others have just what identifies a
kernel: page tables that map an image with a banner and the names of the system.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from uuid import UUID

from ..elf import format as elf
from ..elf.core import Core
from ..errors import SyntheticDumpError, WriteError
from ..kernels import task_table
from ..kernels.base import Kernel
from ..kernels.image import Image
from ..kernels.v6_1 import functions
from ..kernels.v6_1.kernel import Linux61
from ..memory import p2m
from ..memory.guest import Guest
from ..memory.machine import PAGE, FramePool, MachineMemory
from ..xen.large import EXTENT, LargeXen
from ..xen.syms import xen_syms
from ..xen.xen64 import Domain, SharedInfo, Vcpu
from .light import Hosting, LargeDomain, Light
from .modern import DOM0, carve

MIB, GIB = 1 << 20, 1 << 30

#: Machine addresses: the memory of dom0 and of the PV domain with tasks, Xen's, the domains'.
_KERNELS, _XEN, _DOMAINS = 64 * MIB, 2 * GIB, 4 * GIB
_DOM0_MEMORY, _GUEST_MEMORY = 256 * MIB, 64 * MIB


@dataclass(frozen=True)
class LargeHost:
    """The files of a host."""

    vmcore: Path
    vmlinux: Path
    #: With DWARF, and with symbols only.
    xen_syms: Path
    xen_map: Path
    domains: list[LargeDomain]
    #: Ids of domains with tasks, besides dom0.
    pv: int
    hvm: int


def write_large_host(
    directory: str | PathLike[str],
    memory: int = 1 << 40,
    domains: int = 200,
    *,
    layout: str = "npt",
    builds: int = 8,
    vcpus: int = 4,
    pcpus: int = 64,
    views: bool = False,
    seed: int = 0,
) -> LargeHost:
    """Writes a host with ``memory`` bytes and ``domains`` domains, dom0 included.

    ``layout`` is that of Xen's page tables of a guest's memory: ``npt`` (AMD) or ``ept`` (Intel).
    The domains run ``builds`` builds of Linux. With ``views``, translated domains have tables of
    altp2m and of nested HVM too. Raises SyntheticDumpError.
    """
    least = _DOMAINS + domains * 2 * _GUEST_MEMORY
    if memory < least or memory % GIB:
        raise SyntheticDumpError(
            f"{domains} domains need at least {least} bytes of memory, a multiple of 1 GiB"
        )
    if domains < 3:
        raise SyntheticDumpError("a large host has at least three domains")
    host = _Host(memory, domains, layout, random.Random(seed))
    host.build(builds, vcpus, pcpus, views=views)
    return host.write(Path(directory))


class _Host(Hosting):
    def __init__(self, memory: int, domains: int, layout: str, rng: random.Random) -> None:
        machine = MachineMemory(memory, [(0x9F000, 0x100000)])
        super().__init__(machine, LargeXen(machine, _XEN, rng), layout, rng)
        extents = list(range(_DOMAINS // PAGE // EXTENT, memory // PAGE // EXTENT))
        rng.shuffle(extents)
        self.free = extents
        #: Number of the extents of each domain.
        self.share = len(extents) * 19 // 20 // domains
        self.count = domains
        self.image = Image(functions.spec(functions.BY_FUNCTION))
        self.tree = 0

    def build(self, builds: int, vcpus: int, pcpus: int, *, views: bool) -> None:
        """Writes every domain, then the tables of all frames."""
        self._dom0(pcpus)
        self._pv_with_tasks(1)
        for number in range(2, self.count):
            kernel = None
            if number == 2:
                kernel = self._translated_kernel()
            extents = [self.free.pop() for _ in range(self.share)]
            guest = Light(self, number, extents, number % builds, vcpus)
            if number % 2:
                guest.paravirtual()
            else:
                guest.translated("pvh" if number % 6 == 4 else "hvm", kernel, views=views)
        self.xen.write_frames(self.owners, self.pfns)

    def write(self, directory: Path) -> LargeHost:
        """Writes the files."""
        groups = [self.xen.notes(self.tree)]
        core = Core(elf.ELF64, elf.EM_X86_64, self.machine, groups, functions.PAGE_OFFSET)
        files = LargeHost(
            vmcore=directory / "vmcore",
            vmlinux=directory / "vmlinux",
            xen_syms=directory / "xen-syms",
            xen_map=directory / "xen-syms-without-types",
            domains=self.found,
            pv=1,
            hvm=2,
        )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            core.write(files.vmcore)
            files.vmlinux.write_bytes(self.image.vmlinux())
            files.xen_syms.write_bytes(xen_syms(self.xen, debug=True))
            files.xen_map.write_bytes(xen_syms(self.xen, debug=False))
        except OSError as error:
            raise WriteError(f"cannot write into {directory}: {error.strerror}") from error
        return files

    # Domains with tasks

    def _dom0(self, pcpus: int) -> None:
        kernel, guest = self._kernel(_KERNELS, _DOM0_MEMORY, 2, "aiko.large.example")
        carve(guest)
        kernel.make_tasks(task_table.modern_dom0(2))
        panicked = kernel.task(1340)
        kernel.boot_cpus([kernel.idle[0], panicked])
        kernel.write_facts()
        idle = kernel.run_vcpu(kernel.idle[0], functions.RUNNING["idle0"])
        running = kernel.run_vcpu(panicked, functions.RUNNING["panic"])
        kernel.write_log(kernel.log_lines(120, []))
        self.tree = p2m.write_tree(guest, kernel.write_p2m(), zero_terminated=False)
        kernel.write_page_tables(self.xen.slots)
        root = kernel.root_address()
        shared = SharedInfo(guest.max_pfn, self.tree, root, kernel.p2m_vaddr, 2)
        vcpus = [
            Vcpu(0, 1, idle, root, kernel.percpu[0]),
            Vcpu(1, 0, running, panicked.root, kernel.percpu[1], running=True),
        ]
        self._add_kernel(0, kernel, shared, vcpus)
        xen = self.xen
        xen.add_pcpu(panicked.root, running, vcpus[1].address, gs_base=kernel.percpu[1])
        own = xen.machine_address(xen.symbols["pgd_l4"])
        for number in range(1, pcpus):
            xen.add_pcpu(own, {}, xen.idle_vcpu(number))

    def _pv_with_tasks(self, number: int) -> None:
        kernel, _ = self._kernel(_KERNELS + _DOM0_MEMORY, _GUEST_MEMORY, 1, "pv.large.example")
        registers = self._boot(kernel)
        kernel.write_p2m()
        kernel.write_page_tables(self.xen.slots)
        root = kernel.root_address()
        shared = SharedInfo(kernel.guest.pages, (1 << 64) - 1, root, kernel.p2m_vaddr, 2)
        self._add_kernel(number, kernel, shared, [Vcpu(0, 1, registers, root, kernel.percpu[0])])

    def _translated_kernel(self) -> tuple[Linux61, dict[str, int]]:
        """A kernel in a machine of its own, whose addresses are the guest's physical ones."""
        machine = MachineMemory(_GUEST_MEMORY)
        pool = FramePool([], self.rng)
        pool.extents = [(0, _GUEST_MEMORY // PAGE)]
        guest = Guest(machine, pool, 8, _GUEST_MEMORY // PAGE, self.rng)
        facts = replace(DOM0, nodename="hvm.large.example", panic="", memory_pages=guest.pages)
        kernel = Linux61(self.image, guest, facts, 1, self.rng)
        registers = self._boot(kernel)
        kernel.write_page_tables({})
        return kernel, registers

    def _kernel(self, start: int, memory: int, cpus: int, name: str) -> tuple[Linux61, Guest]:
        pool = FramePool([(start // PAGE, (start + memory) // PAGE)], self.rng)
        guest = Guest(self.machine, pool, 8, memory // PAGE, self.rng)
        for extent in range(start // PAGE // EXTENT, (start + memory) // PAGE // EXTENT):
            self.pfns[extent] = array("Q", [(1 << 64) - 1]) * EXTENT
        for pfn, mfn in enumerate(guest.p2m):
            found = self.pfns[mfn // EXTENT]
            assert not isinstance(found, int)
            found[mfn % EXTENT] = pfn
        facts = replace(DOM0, nodename=name, panic="", memory_pages=guest.pages)
        return Linux61(self.image, guest, facts, cpus, self.rng), guest

    def _boot(self, kernel: Linux61) -> dict[str, int]:
        kernel.make_tasks(task_table.domu(1))
        kernel.boot_cpus([kernel.idle[0]])
        kernel.write_facts()
        kernel.write_log(kernel.log_lines(30, []))
        return kernel.run_vcpu(kernel.idle[0], functions.RUNNING["idle0"])

    def _add_kernel(
        self, number: int, kernel: Kernel, shared: SharedInfo, vcpus: list[Vcpu]
    ) -> None:
        guest = kernel.guest
        domain = Domain(number, guest, shared, vcpus)
        self.xen.add_domain(domain)
        for mfn in guest.p2m:
            if mfn < self.machine.size // PAGE:
                self.owners[mfn // EXTENT] = domain.address
        uuid = UUID(int=0) if number == 0 else self.uuid(domain)
        frames = sum(guest.is_frame(pfn) for pfn in range(guest.pages))
        self.found.append(
            LargeDomain(
                number,
                "pv",
                kernel.facts.nodename,
                functions.RELEASE,
                frames,
                len(vcpus),
                uuid,
                frames={pfn: guest.mfn(pfn) for pfn in (0x1000, 0x1001, 0x2345)},
            )
        )
        options = 0
        emulation = 1 << 8 if number == 0 else 0
        self.mark(domain, options, emulation)
