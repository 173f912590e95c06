"""open() -> Dump -> Domain: puts the native pieces together."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from . import _native, sources
from ._native import P2M, AbsentError, AddressSpace, DumpError, Image
from .linux import identity, vmcoreinfo
from .linux.cpus import VcpuContext
from .linux.kernel import Kernel
from .linux.locate import Location, locate

#: Kinds of note that only a Xen host's dump has.
_XEN_NOTES = {"crash_info", "crash_regs", "vmcoreinfo_xen", "xen_kdump_cr3"}


class MismatchError(AbsentError):
    """The vmlinux is not the build that the dump holds."""


def open(path: str) -> "Dump":  # noqa: A001 - xenkdump_fast.open, as in gzip.open
    """Opens the dump at ``path`` read-only; OSError or DumpError if that cannot be done."""
    return Dump(path)


class Dump:
    """A dump file: its notes, its machine memory, the domains in it."""

    def __init__(self, path: str) -> None:
        self.native = _native.Dump(path)
        self.path = path
        self.notes = self.native.notes

    @property
    def machine(self) -> AddressSpace:
        """Machine memory."""
        return self.native.machine

    @property
    def warnings(self) -> list[str]:
        """What is broken about the file without making it useless."""
        return self.native.warnings

    @cached_property
    def is_xen(self) -> bool:
        """Whether it is the dump of a Xen host."""
        return any(note.kind in _XEN_NOTES for note in self.notes)

    def domain(
        self,
        number: int = 0,
        vmlinux: str | None = None,
        *,
        p2m_source: str | None = None,
        force: bool = False,
        unwind: Sequence[str] | None = None,
    ) -> "Domain":
        """A domain and its kernel; on a machine without Xen there is but domain 0, the machine.

        ``p2m_source`` forces one of ``sources.NAMES``; ``force`` accepts a vmlinux of another
        build; ``unwind`` limits the methods of the unwinder.

        Raises AbsentError where the dump does not hold it, MismatchError for a vmlinux of another
        build, DumpError or OSError for a vmlinux that cannot be used.
        """
        if vmlinux is None:
            raise AbsentError("a kernel's vmlinux is needed to find it in the dump")
        image = Image(vmlinux)
        if not self.is_xen:
            if number != 0:
                raise AbsentError(f"{self.path}: no domain {number}: not the dump of a Xen host")
            return self._bare(image, force, unwind)
        if number != 0:
            raise AbsentError(f"{self.path}: only domain 0 can be opened yet")
        return self._dom0(image, p2m_source, force, unwind)

    def _bare(self, image: Image, force: bool, unwind: Sequence[str] | None) -> "Domain":
        location = locate(self.native, image, sources.roots(self.native), None, self.vmcoreinfo)
        contexts = [
            VcpuContext(note.fields["registers"], "NT_PRSTATUS", note=i)
            for i, note in enumerate(note for note in self.notes if note.kind == "prstatus")
        ]
        return Domain(self, 0, image, None, location, contexts, force, unwind)

    def _dom0(
        self, image: Image, p2m_source: str | None, force: bool, unwind: Sequence[str] | None
    ) -> "Domain":
        roots = sources.roots(self.native)
        problems = []
        for source in (
            *sources.by_frame_list(self.native, image),
            *sources.by_cr3(self.native, image, roots),
        ):
            if p2m_source not in (None, source.name):
                continue
            try:
                p2m = source.open()
                location = locate(self.native, image, roots, p2m, {})
            except AbsentError as error:
                problems.append(f"P2M by {source.name} ({source.detail}): {error}")
                continue
            return Domain(self, 0, image, p2m, location, self._guests(), force, unwind)
        if p2m_source is not None and not problems:
            raise AbsentError(f"{self.path}: offers no P2M source {p2m_source!r} for domain 0")
        raise AbsentError(
            f"{self.path}: no P2M of domain 0 can be read: "
            + ("; ".join(problems) or "neither a frame list nor a cr3 that maps its kernel")
        )

    def _guests(self) -> list[VcpuContext]:
        """The guests' registers on the pCPUs' Xen stacks."""
        from .hypervisor.pcpus import pcpus

        return [
            VcpuContext(pcpu.guest.registers, f"pCPU {pcpu.number}'s Xen stack")
            for pcpu in pcpus(self.native)
            if pcpu.guest is not None
        ]

    @cached_property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """The Linux kernel's own notes about itself; empty where the dump has no such note."""
        for note in self.notes:
            if note.kind == "vmcoreinfo":
                return vmcoreinfo.parse(note.fields["text"])
        return {}


class Domain:
    """One domain of a dump: its P2M, its memory by each kind of address, its kernel."""

    def __init__(
        self,
        dump: Dump,
        number: int,
        image: Image,
        p2m: P2M | None,
        location: Location,
        vcpus: Sequence[VcpuContext],
        force: bool,
        unwind: Sequence[str] | None,
    ) -> None:
        self.dump = dump
        self.id = number
        #: None on a machine without Xen.
        self.p2m = p2m
        self.physical = dump.native.physical(p2m)
        self.virtual = dump.native.virtual(location.root, location.paging)
        self.kernel = Kernel(image, location, self.virtual, vcpus, unwind)
        different = identity.mismatch(self.kernel)
        if different is not None:
            text = f"{image.path} is not the kernel of the dump: {different}"
            if not force:
                raise MismatchError(f"{text} (--force goes on)")
            self.kernel.warn(text)

    @property
    def warnings(self) -> list[str]:
        """What is missing or odd, said once."""
        return [*self.dump.warnings, *self.kernel.warnings]


__all__ = ["Domain", "Dump", "DumpError", "MismatchError", "open"]
