"""Bare machine, Xen domain, file of a domain: order of P2M sources, roots, registers."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain

from .._native import P2M, AbsentError, AddressSpace, Image
from .._native import Dump as NativeDump
from .._typing import TYPE_CHECKING, NamedTuple
from ..linux.boot import roots as boot_roots
from ..linux.boot.build_id import Build
from ..linux.boot.roots import Root, Roots, space
from ..linux.cpus import VcpuContext
from .dump_file import DumpFile

if TYPE_CHECKING:
    from .._native import FrameTable, Paging
    from ..xen.domain import XenDomain
    from ..xen.host import HostDomain
    from ..xen.p2m_sources import Source


class Vcpu(NamedTuple):
    """A vCPU according to Xen."""

    number: int
    #: Empty if they are not known.
    registers: Mapping[str, int]
    #: Control registers, as far as they are known, with the machine address of the root in cr3.
    control: Mapping[str, int]
    #: Where the registers were saved, in words; None without registers.
    where: str | None
    #: Whether it was on a pCPU.
    running: bool


class Platform:
    """Where the P2M, the page-table roots and the registers of a kernel are found."""

    #: Pseudo-physical addresses are machine addresses.
    identity = False

    def __init__(self, dump: DumpFile) -> None:
        self.dump = dump

    @property
    def native(self) -> NativeDump:
        """The memory that the kernel takes for the machine's."""
        return self.dump.native

    @property
    def vmcoreinfos(self) -> list[Mapping[str, str]]:
        """The contents of the notes VMCOREINFO, which may be its kernel's."""
        return self.dump.vmcoreinfos

    @property
    def vmcoreinfo_text(self) -> bytes:
        """The text of the note VMCOREINFO that is its kernel's; empty if there is none."""
        return b""

    def p2m(self) -> P2M | None:
        """Its P2M, if it does not depend on the kernel."""
        return None

    def assumptions(self) -> list[str]:
        """Warnings about what ``p2m`` rests on."""
        return []

    def space(self, root: int, paging: "Paging", mask: int | None) -> AddressSpace:
        """The address space below one of its roots; the mask is that of the notes if it is None."""
        return space(self.dump.native, root, paging, mask)

    def m2p_roots(self) -> Iterator[tuple[int, str]]:
        """Machine addresses of page tables that map Xen's M2P, and their sources."""
        for root in (*self.own_roots(), *self.roots()):
            yield root.address, root.how

    def sources(self, image: Image | None, roots: Roots | None) -> "Iterator[Source]":
        """The sources of its P2M, the best first; ``roots`` are those of ``image``."""
        return iter(())

    def roots(self) -> Iterable[Root]:
        """Page-table roots that may be its kernel's, the likeliest first."""
        return ()

    def own_roots(self) -> Iterable[Root]:
        """Roots that are its own according to Xen, independently of its P2M."""
        return ()

    def contexts(self) -> list[VcpuContext]:
        """The registers of its CPUs."""
        return []

    def vcpus(self) -> list[Vcpu]:
        """Its vCPUs according to Xen."""
        return []

    def control(self, qemu_cpu: int) -> Mapping[str, int]:
        """The control registers of one of QEMU's CPUs, if QEMU wrote the dump of a bare machine."""
        return {}

    def frame_table(self) -> "FrameTable | None":
        """Xen's frame table; None if the dump has none."""
        return None

    def build(self) -> Build | None:
        """The build of its kernel, as far as it is known without a vmlinux."""
        return None

    def images(self) -> Iterator[Image]:
        """Images of kernels in memory that may be its own; AbsentError if there is none."""
        from ..linux.boot import image_in_memory  # only without a vmlinux

        facts = next(iter(self.vmcoreinfos), {})
        roots = chain(self.own_roots(), self.roots())
        return image_in_memory.images(
            lambda root, paging: self.space(root, paging, None), self.dump.path, facts, roots
        )

    def release(self, image: Image) -> str | None:
        """The release of a kernel, by an image in memory."""
        return Build.of(image).release


#: The control registers of a CPU that tools use.
_CONTROL = ("cr0", "cr3", "cr4", "efer")


class Bare(Platform):
    """A machine without Xen."""

    identity = True

    @property
    def vmcoreinfo_text(self) -> bytes:
        notes = (note for note in self.dump.notes if note.kind == "vmcoreinfo")
        return next((note.data.rstrip(b"\0") for note in notes), b"")

    def roots(self) -> Iterable[Root]:
        from ..xen import p2m_sources

        yield from p2m_sources.roots(self.dump.native)
        yield from boot_roots.recorded(self.dump.vmcoreinfo)

    def contexts(self) -> list[VcpuContext]:
        exported = self.dump.exported
        if exported is not None and exported.cpus:
            # NT_PRSTATUS beside it has zeros for registers that are not known.
            return [
                VcpuContext(cpu.registers, "the note XENKDUMP", qemu_cpu=cpu.number)
                for cpu in exported.cpus
            ]
        statuses = [note.fields for note in self.dump.notes if note.kind == "prstatus"]
        # In pr_pid QEMU numbers CPUs from 1; a kernel has the pid of the CPU's task there.
        is_qemu = any(note.kind == "qemu" for note in self.dump.notes)
        return [
            VcpuContext(
                fields["registers"],
                "NT_PRSTATUS",
                note=i,
                pid=None if is_qemu else fields["pid"],
                qemu_cpu=fields["pid"] - 1 if is_qemu else None,
            )
            for i, fields in enumerate(statuses)
        ]

    def control(self, qemu_cpu: int) -> Mapping[str, int]:
        notes = [note.fields for note in self.dump.notes if note.kind == "qemu"]
        if not 0 <= qemu_cpu < len(notes):
            return {}
        return {name: notes[qemu_cpu][name] for name in ("cr0", "cr3", "cr4")}

    def build(self) -> Build | None:
        facts = self.dump.vmcoreinfo
        release = facts.get("OSRELEASE")
        return None if release is None else Build(release, build_id=facts.get("BUILD-ID"))


class Recorded(Platform):
    """A domain with records of Xen or of the toolstack."""

    @cached_property
    def records(self) -> "XenDomain | None":
        """The records; None if they cannot be found."""
        return None

    def own_roots(self) -> Iterable[Root]:
        return () if self.records is None else self.records.roots()

    def contexts(self) -> list[VcpuContext]:
        return [
            VcpuContext(start, vcpu.where or "Xen", vcpu=vcpu.id, stale=vcpu.stale)
            for vcpu in (() if self.records is None else self.records.vcpus)
            if (start := vcpu.start) is not None
        ]

    def vcpus(self) -> list[Vcpu]:
        found = []
        for vcpu in () if self.records is None else self.records.vcpus:
            control = {} if vcpu.root is None else {"cr3": vcpu.root}
            if vcpu.control is not None:
                control = {name: getattr(vcpu.control, name) for name in _CONTROL}
            registers = vcpu.registers or {}
            found.append(Vcpu(vcpu.id, registers, control, vcpu.where, vcpu.running))
        return found

    def build(self) -> Build | None:
        kernel = None if self.records is None else self.records.kernel()
        return None if kernel is None else Build(kernel.release, kernel.version)


class Guest(Recorded):
    """A domain of a Xen host."""

    def __init__(self, dump: DumpFile, number: int) -> None:
        super().__init__(dump)
        self.number = number

    @cached_property
    def records(self) -> "XenDomain | None":
        try:
            return self.dump.hypervisor.domain(self.number)
        except AbsentError:
            # dom0 can be found by the notes alone, as in the dumps of 2006; other domains cannot.
            if self.number != 0:
                raise
            return None

    def is_translated(self) -> bool:
        """Whether it is an HVM or a PVH guest. dom0 is neither if the notes have its frame list."""
        if self.number == 0:
            kinds = [note.kind for note in self.dump.notes]
            infos = (note.fields for note in self.dump.notes if note.kind == "crash_info")
            lists = [info.get("dom0_pfn_to_mfn_frame_list_list") for info in infos]
            if "xen_kdump_cr3" in kinds or any(lists):
                return False
        return self.records is not None and self.records.is_translated

    def frame_table(self) -> "FrameTable | None":
        from ..xen import frame_table

        try:
            xen = self.dump.hypervisor
        except AbsentError:
            return None
        return frame_table.for_types(xen.memory, xen.facts.frames)

    def sources(self, image: Image | None, roots: Roots | None) -> "Iterator[Source]":
        from ..xen import p2m_sources

        native = self.dump.native
        if self.number == 0 and image is not None:
            yield from p2m_sources.by_frame_list(native, image)
        if self.records is not None:
            yield from self.records.sources
        if image is not None and roots is not None:
            yield from p2m_sources.by_cr3(native, image, roots, self._verified_roots())

    def roots(self) -> Iterable[Root]:
        from ..xen import p2m_sources

        if self.number == 0:
            yield from p2m_sources.roots(self.dump.native)
        yield from self.own_roots()

    def _verified_roots(self) -> Iterator[Root]:
        """Roots that are the domain's own: by Xen's records, and by the CR3 notes of 2006."""
        from ..xen import p2m_sources

        yield from self.own_roots()
        if self.number == 0:
            yield from p2m_sources.dom0_roots(self.dump.native)

    def contexts(self) -> list[VcpuContext]:
        found = super().contexts()
        if found or self.number != 0:
            return found
        from ..xen.pcpus import pcpus

        return [
            VcpuContext(pcpu.guest.registers, f"pCPU {pcpu.number}'s Xen stack")
            for pcpu in pcpus(self.dump.native)
            if pcpu.guest is not None
        ]


class Translated(Guest):
    """A translated guest (HVM, PVH) of a Xen host: to its kernel a machine of its own."""

    identity = True

    @cached_property
    def _domain(self) -> "HostDomain":
        return self.dump.hypervisor.domain(self.number)

    @property
    def native(self) -> NativeDump:
        return self._domain.guest

    @property
    def vmcoreinfos(self) -> list[Mapping[str, str]]:
        return []

    def p2m(self) -> P2M:
        return self._domain.nested.p2m

    def assumptions(self) -> list[str]:
        warning = self._domain.nested.warning
        return [] if warning is None else [warning]

    def space(self, root: int, paging: "Paging", mask: int | None) -> AddressSpace:
        return self._domain.space(root, paging)

    def m2p_roots(self) -> Iterator[tuple[int, str]]:
        yield self._domain.xen.memory.root, "Xen's page tables"

    def sources(self, image: Image | None, roots: Roots | None) -> "Iterator[Source]":
        from ..xen.p2m_sources import Source

        yield Source("nested", self._domain.nested.how, self.p2m)

    def roots(self) -> Iterable[Root]:
        return self.own_roots()

    def contexts(self) -> list[VcpuContext]:
        return Recorded.contexts(self)


class Core(Recorded):
    """The domain of an xl dump-core or xl save file."""

    @cached_property
    def records(self) -> "XenDomain | None":
        from ..xen.domain import CoreDomain

        return CoreDomain(self.dump.native)

    @property
    def identity(self) -> bool:  # type: ignore[override]
        """The pages of an HVM or PVH guest, and of a saved one, are listed by their pfns."""
        return self.dump.native.auto_translated or self.dump.native.is_normalised

    def sources(self, image: Image | None, roots: Roots | None) -> "Iterator[Source]":
        from ..xen.p2m_sources import Source

        native = self.dump.native
        if not self.identity:
            yield Source("dump-core", "section .xen_p2m", lambda: P2M.dump_core(native))
        if self.records is not None:
            yield from self.records.sources

    def roots(self) -> Iterable[Root]:
        return self.own_roots()


def platform_of(dump: DumpFile, number: int) -> Platform:
    """The platform of a domain; AbsentError if the dump cannot have that domain."""
    if dump.is_xen_host:
        guest = Guest(dump, number)
        return Translated(dump, number) if guest.is_translated() else guest
    if number != 0:
        raise AbsentError(f"{dump.path}: no domain {number}: not the dump of a Xen host")
    return Core(dump) if dump.is_domain_file else Bare(dump)
