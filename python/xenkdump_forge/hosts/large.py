"""A host with terabytes and hundreds of domains, half of which are translated (HVM, PVH).

dom0, one PV and one HVM domain run a kernel with tasks. The others have just what identifies a
kernel: page tables that map an image with a banner and the names of the system.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from ..memory.paging import X86_64, PageTables
from ..xen import translated as hvm
from ..xen import xen64
from ..xen.large import EXTENT, LargeXen
from ..xen.syms import xen_syms
from ..xen.xen64 import Domain, SharedInfo, Vcpu
from .modern import DOM0, carve

MIB, GIB = 1 << 20, 1 << 30

#: Machine addresses: the memory of dom0 and of the PV domain with tasks, Xen's, the domains'.
_KERNELS, _XEN, _DOMAINS = 64 * MIB, 2 * GIB, 4 * GIB
_DOM0_MEMORY, _GUEST_MEMORY = 256 * MIB, 64 * MIB
#: Extents of pfns below the MMIO hole, which ends at 4 GiB.
_HOLE = range(0xF0000 // EXTENT, (1 << 20) // EXTENT)
_DATA = 0x63
_LARGE = 0x80
#: Where the light kernels map their image: 32 MiB, with KASLR in multiples of 2 MiB.
_IMAGE, _IMAGE_SIZE, _PHYSICAL = 0xFFFFFFFF81000000, 32 * MIB, 16 * MIB
_BANNER_AT, _UTS_AT = 0x1000000, 0x1A00000


@dataclass(frozen=True)
class LargeDomain:
    """What a reader must find of a domain."""

    number: int
    #: "pv", "hvm" or "pvh".
    kind: str
    nodename: str
    release: str
    pages: int
    vcpus: int
    uuid: UUID
    #: mfn of the root of Xen's page tables of its memory; None of a PV domain.
    root: int | None = None
    #: Some of its pfns with their mfns.
    frames: dict[int, int] = field(default_factory=dict)


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


class _Host:
    def __init__(self, memory: int, domains: int, layout: str, rng: random.Random) -> None:
        self.machine = MachineMemory(memory, [(0x9F000, 0x100000)])
        self.xen = LargeXen(self.machine, _XEN, rng)
        self.rng = rng
        self.layout = layout
        extents = list(range(_DOMAINS // PAGE // EXTENT, memory // PAGE // EXTENT))
        rng.shuffle(extents)
        self.free = extents
        #: Extents of each domain.
        self.share = len(extents) * 19 // 20 // domains
        self.count = domains
        self.owners: dict[int, int] = {}
        self.pfns: dict[int, array[int] | int] = {}
        self.found: list[LargeDomain] = []
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
            guest = _Light(self, number, builds, vcpus)
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

    def uuid(self, domain: Domain) -> UUID:
        """Gives a domain a UUID."""
        uuid = UUID(bytes=self.rng.randbytes(16), version=4)
        self.xen.write(domain.address + xen64.DOMAIN_HANDLE, uuid.bytes)
        return uuid

    def mark(self, domain: Domain, options: int, emulation: int) -> None:
        """Writes what tells the kind of a domain."""
        at = domain.address
        self.xen.write(at + xen64.DOMAIN_OPTIONS, options.to_bytes(4, "little"))
        self.xen.write(at + hvm.DOMAIN_EMULATION, emulation.to_bytes(4, "little"))


class _Light:
    """A domain of whose kernel there is only what identifies it."""

    def __init__(self, host: _Host, number: int, builds: int, vcpus: int) -> None:
        self.host = host
        self.number = number
        self.build = number % builds
        self.vcpus = vcpus
        self.extents = [host.free.pop() for _ in range(host.share)]
        self.nodename = f"guest{number}.large.example"
        self.release = f"6.{self.build}.{number % builds + 3}-large"
        self._next = _PHYSICAL // PAGE // 2

    def mfn(self, pfn: int) -> int:
        """The mfn of a pfn."""
        block, within = divmod(pfn, EXTENT)
        if block >= _HOLE.stop:
            block -= len(_HOLE)
        return self.extents[block] * EXTENT + within

    def blocks(self) -> list[int]:
        """The numbers of the guest's extents of pfns."""
        below = range(min(len(self.extents), _HOLE.start))
        above = range(_HOLE.stop, _HOLE.stop + max(0, len(self.extents) - _HOLE.start))
        return [*below, *above]

    def write(self, pfn: int, offset: int, data: bytes) -> None:
        """Writes to one of its pages."""
        self.host.machine.write(self.mfn(pfn) * PAGE + offset, data)

    def new_page(self) -> int:
        """Allocates a page; returns its pfn."""
        self._next += 1
        return self._next - 1

    def names(self) -> None:
        """Writes the banner and ``init_uts_ns``."""
        version = f"#1 SMP large host build {self.build}"
        banner = f"Linux version {self.release} (builder@example) (gcc 12.2.0) {version}\n"
        first = _PHYSICAL // PAGE
        self.write(first + (_BANNER_AT >> 12) + self.build, 0x40, banner.encode() + b"\0")
        values = ("Linux", self.nodename, self.release, version, "x86_64", "(none)")
        uts = b"".join(value.encode().ljust(65, b"\0") for value in values)
        uts += bytes(-len(uts) % 8) + bytes(24) + (0xEFFFFFFE).to_bytes(8, "little")
        self.write(first + (_UTS_AT >> 12) + 2 * self.build, 0x40, uts)

    def registers(self, image: int, index: int, selectors: tuple[int, int]) -> dict[str, int]:
        """Registers of a vCPU that is idle."""
        out = dict.fromkeys(("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"), index)
        out |= {f"r{i}": i for i in range(8, 16)}
        out |= {"rip": image + 0x1234, "rflags": 0x246, "rsp": 0xFFFF888000400F00 + index * 0x4000}
        return out | dict(zip(("cs", "ss"), selectors, strict=True))

    def add(self, kind: str, vcpus: list[Vcpu], shared: bytes) -> Domain:
        """Adds the struct domain, its vCPUs and its shared_info."""
        host, xen = self.host, self.host.xen
        # Its frames are in no Guest.
        domain = Domain(self.number, None, SharedInfo(0, 0), vcpus)  # type: ignore[arg-type]
        pages = len(self.extents) * EXTENT
        xen.add_struct(domain, pages, pages + 1024)
        xen.write(domain.shared_address, shared)
        emulation = {"pv": 0, "hvm": hvm.EMU_HVM, "pvh": hvm.EMU_PVH}[kind]
        host.mark(domain, 0 if kind == "pv" else hvm.CDF_HVM, emulation)
        for block in self.blocks():
            extent = self.mfn(block * EXTENT) // EXTENT
            host.owners[extent] = domain.address
            host.pfns[extent] = block * EXTENT
        return domain

    def found(self, kind: str, domain: Domain, root: int | None, more: dict[str, str]) -> None:
        """Records what a reader must find."""
        blocks = self.blocks()
        picks = (blocks[1] * EXTENT, blocks[len(blocks) // 2] * EXTENT + 77, blocks[-1] * EXTENT)
        self.host.found.append(
            LargeDomain(
                self.number,
                kind,
                more.get("nodename", self.nodename),
                more.get("release", self.release),
                len(self.extents) * EXTENT,
                len(domain.vcpus),
                self.host.uuid(domain),
                root,
                {pfn: self.mfn(pfn) for pfn in picks},
            )
        )

    def paravirtual(self) -> None:
        """A PV domain: page tables with machine frames."""
        host = self.host
        tables = PageTables(X86_64, host.machine, lambda: self.mfn(self.new_page()))
        first = _PHYSICAL // PAGE
        mfns = [self.mfn(first + i) for i in range(_IMAGE_SIZE // PAGE)]
        tables.map_run(_IMAGE, mfns, _DATA | 4)
        # The P2M list has one page.
        at, page = 0xFFFFC90000000000, self.new_page()
        self.write(page, 0, array("Q", map(self.mfn, range(512))).tobytes())
        tables.map(at, self.mfn(page), _DATA | 4)
        for slot, entry in host.xen.slots.items():
            tables.set(tables.root, slot, entry)
        self.names()
        root = tables.root * PAGE
        vcpus = [
            Vcpu(i, i, self.registers(_IMAGE, i, (0xE033, 0xE02B)), root, 0xFFFF888000010000)
            for i in range(self.vcpus)
        ]
        shared = SharedInfo(len(self.extents) * EXTENT, (1 << 64) - 1, root, at, 2)
        domain = self.add("pv", vcpus, xen64.shared_info(8, shared))
        self.found("pv", domain, None, {})

    def translated(
        self, kind: str, kernel: tuple[Linux61, dict[str, int]] | None, *, views: bool
    ) -> None:
        """An HVM or PVH domain, of ``kernel`` if there is one."""
        host = self.host
        slide = host.rng.randrange(0, 256) * 2 * MIB
        image, more = _IMAGE + slide, {}
        if kernel is None:
            cr3 = self._image_tables(image)
            self.names()
            registers = [self.registers(image, i, (0, 0)) for i in range(self.vcpus)]
        else:
            linux, own = kernel
            for pfn, data in linux.guest.machine.frames.items():
                self.write(pfn, 0, bytes(data))
            cr3 = linux.root_address()
            registers = [{**own, "cs": 0, "ss": 0}]
            more = {"nodename": linux.facts.nodename, "release": functions.RELEASE}
        tables = self._nested(self.blocks())
        vcpus = [Vcpu(i, i, regs, self._monitor()) for i, regs in enumerate(registers)]
        domain = self.add(kind, vcpus, bytes(PAGE))
        for vcpu, regs in zip(vcpus, registers, strict=True):
            self._hvm_vcpu(vcpu, hvm.Control(cr3), regs, tables.root)
        self._view(domain, hvm.DOMAIN_P2M, hvm.HOST, tables)
        if views:
            self._views(domain)
        self.found(kind, domain, tables.root, more)

    def _monitor(self) -> int:
        """The root with which Xen runs a translated vCPU (its monitor table)."""
        xen = self.host.xen
        mfn = xen.heap_page()
        for slot, entry in xen.slots.items():
            xen.machine.write(mfn * PAGE + 8 * slot, _word(entry))
        return mfn * PAGE

    def _image_tables(self, image: int) -> int:
        """The guest's page tables, which map its image by large pages; returns cr3."""
        top, third, second = (self.new_page() for _ in range(3))
        self.write(top, (image >> 39 & 511) * 8, _word(third * PAGE | _DATA))
        self.write(third, (image >> 30 & 511) * 8, _word(second * PAGE | _DATA))
        for at in range(0, _IMAGE_SIZE, 2 * MIB):
            entry = _PHYSICAL + at | _DATA | _LARGE
            self.write(second, (image + at >> 21 & 511) * 8, _word(entry))
        return top * PAGE

    def _nested(self, blocks: Sequence[int]) -> hvm.NestedTables:
        """Xen's tables of its memory: the first extent by small pages, with a frame buffer."""
        tables = hvm.NestedTables(self.host.machine, self.host.xen.heap_page, self.host.layout)
        for block in blocks:
            if block:
                tables.map(block * EXTENT, self.mfn(block * EXTENT), 2)
                continue
            for pfn in range(EXTENT):
                if pfn not in range(0xA0, 0xC0):
                    tables.map(pfn, self.mfn(pfn))
                else:
                    tables.map(pfn, 0, kind=hvm.MMIO_DM)
        return tables

    def _hvm_vcpu(self, vcpu: Vcpu, control: hvm.Control, regs: dict[str, int], root: int) -> None:
        xen = self.host.xen
        xen.write(vcpu.address + hvm.VCPU_GUEST_CR, control.pack())
        if self.host.layout.startswith("npt"):
            page = xen.heap_page() * PAGE
            xen.machine.write(page, hvm.vmcb(control, regs, root, 0x10, 0x18))
            xen.write_u64(vcpu.address + hvm.VCPU_VMCB, xen64.DIRECT_MAP + page, page)

    def _view(self, domain: Domain, at: int, class_: int, tables: hvm.NestedTables | None) -> None:
        """A struct p2m_domain; None for one that is not used."""
        xen = self.host.xen
        address = xen64.DIRECT_MAP + xen.heap_page() * PAGE
        is_ept = self.host.layout.startswith("ept")
        root = 0 if tables is None else tables.root
        eptp = tables.eptp() if tables is not None and is_ept else 0
        xen.write(address, hvm.p2m_domain(domain.address, class_, root, eptp))
        xen.write_u64(domain.address + at, address)

    def _views(self, domain: Domain) -> None:
        """Every struct p2m_domain that Xen allocates. Some are in use, with the same contents as
        the host's: a view without changes, and one of a nested guest that has all memory.
        """
        for i in range(10):
            copy = self._nested(self.blocks()) if i < 2 else None
            self._view(domain, hvm.DOMAIN_NESTED_P2M + 8 * i, hvm.NESTED, copy if i else None)
            self._view(domain, hvm.DOMAIN_ALTP2M + 8 * i, hvm.ALTERNATE, copy)


def _word(value: int) -> bytes:
    return value.to_bytes(8, "little")
