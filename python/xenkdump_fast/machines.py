"""What a kernel runs on: a bare machine, a domain of a Xen host, a domain in a file of its own."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from . import sources
from ._native import P2M, AbsentError, Image
from .dumpfile import DumpFile
from .linux.cpus import VcpuContext
from .linux.locate import Root
from .sources import Source

if TYPE_CHECKING:
    from .hypervisor.domain import XenDomain


class Machine:
    """What a kernel runs on: where its P2M, its roots and its registers are to be had."""

    #: Pseudo-physical addresses are machine addresses.
    identity = False

    def __init__(self, dump: DumpFile) -> None:
        self.dump = dump

    def sources(self, image: Image | None) -> Iterator[Source]:
        """The ways to its P2M, the best first."""
        return iter(())

    def roots(self) -> Iterable[Root]:
        """Page-table roots that may be its kernel's, the likeliest first."""
        return ()

    def own_roots(self) -> Iterable[Root]:
        """Those that are its own for certain, whatever its P2M says."""
        return ()

    def contexts(self) -> list[VcpuContext]:
        """The registers of its CPUs."""
        return []

    def release(self) -> str | None:
        """The kernel that it runs, in words, without that kernel's vmlinux."""
        return None


class Bare(Machine):
    """A machine without Xen."""

    identity = True

    def roots(self) -> Iterable[Root]:
        return sources.roots(self.dump.native)

    def contexts(self) -> list[VcpuContext]:
        statuses = [note.fields for note in self.dump.notes if note.kind == "prstatus"]
        # QEMU counts CPUs from 1 in pr_pid, where a kernel has the pid of the CPU's task.
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

    def release(self) -> str | None:
        facts = self.dump.vmcoreinfo
        release, build = facts.get("OSRELEASE"), facts.get("BUILD-ID")
        return None if release is None else f"{release} (build id {build or 'unknown'})"


class Recorded(Machine):
    """A domain as Xen's records, or those of the toolstack, have it."""

    @cached_property
    def records(self) -> "XenDomain | None":
        """What is recorded of it; None where nothing is left of that."""
        return None

    def own_roots(self) -> Iterable[Root]:
        return () if self.records is None else self.records.roots()

    def contexts(self) -> list[VcpuContext]:
        return [
            VcpuContext(vcpu.registers, vcpu.where or "Xen", vcpu=vcpu.id)
            for vcpu in (() if self.records is None else self.records.vcpus)
            if vcpu.registers is not None
        ]

    def release(self) -> str | None:
        kernel = None if self.records is None else self.records.kernel()
        return None if kernel is None else f"{kernel.release} {kernel.version}"


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
            # dom0 can be found by the notes alone, as in the dumps of 2006; no other domain can.
            if self.number != 0:
                raise
            return None

    def sources(self, image: Image | None) -> Iterator[Source]:
        native = self.dump.native
        if self.number == 0 and image is not None:
            yield from sources.by_frame_list(native, image)
        if self.records is not None:
            yield from self.records.sources
        if image is not None:
            yield from sources.by_cr3(native, image, self.roots())

    def roots(self) -> Iterable[Root]:
        if self.number == 0:
            yield from sources.roots(self.dump.native)
        yield from self.own_roots()

    def contexts(self) -> list[VcpuContext]:
        found = super().contexts()
        if found or self.number != 0:
            return found
        from .hypervisor.pcpus import pcpus

        return [
            VcpuContext(pcpu.guest.registers, f"pCPU {pcpu.number}'s Xen stack")
            for pcpu in pcpus(self.dump.native)
            if pcpu.guest is not None
        ]


class Core(Recorded):
    """The domain of an xl dump-core file."""

    @cached_property
    def records(self) -> "XenDomain | None":
        from .hypervisor.domain import CoreDomain

        return CoreDomain(self.dump.native)

    @property
    def identity(self) -> bool:  # type: ignore[override]
        """An HVM or PVH guest's pages are listed by what the guest calls physical."""
        return self.dump.native.auto_translated

    def sources(self, image: Image | None) -> Iterator[Source]:
        native = self.dump.native
        if not native.auto_translated:
            yield Source("dump-core", "section .xen_p2m", lambda: P2M.dump_core(native))
        if self.records is not None:
            yield from self.records.sources

    def roots(self) -> Iterable[Root]:
        return self.own_roots()
