"""Domains of a large host: of their kernels there is just what identifies them."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ..kernels.v6_1 import functions
from ..kernels.v6_1.kernel import Linux61
from ..memory.machine import PAGE, MachineMemory
from ..memory.paging import X86_64, PageTables
from ..xen import translated as hvm
from ..xen import xen64
from ..xen.large import EXTENT, LargeXen
from ..xen.xen64 import Domain, SharedInfo, Vcpu

MIB = 1 << 20

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


class Hosting:
    """A host while domains are added to it."""

    def __init__(
        self, machine: MachineMemory, xen: LargeXen, layout: str, rng: random.Random
    ) -> None:
        self.machine = machine
        self.xen = xen
        #: The layout of Xen's page tables of translated domains.
        self.layout = layout
        self.rng = rng
        #: The address of the struct domain that owns each extent; its pfns.
        self.owners: dict[int, int] = {}
        self.pfns: dict[int, array[int] | int] = {}
        #: What a reader must find.
        self.found: list[LargeDomain] = []

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


class Light:
    """A domain of whose kernel there is only what identifies it."""

    def __init__(
        self, host: Hosting, number: int, extents: list[int], build: int, vcpus: int
    ) -> None:
        self.host = host
        self.number = number
        self.extents = extents
        self.build = build
        self.vcpus = vcpus
        self.nodename = f"guest{number}.large.example"
        self.release = f"6.{build}.{build + 3}-large"
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
