"""A dump as a file: its container, its notes, and which kind of host wrote it."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from . import _native
from ._native import AddressSpace, Image
from .folding import Warnings
from .linux import vmcoreinfo

if TYPE_CHECKING:
    from .hypervisor.xen import Xen

#: Kinds of note that only a Xen host's dump has.
_XEN_NOTES = {"crash_info", "crash_regs", "vmcoreinfo_xen", "xen_kdump_cr3"}


class DumpFile:
    """What a file tells before any domain of it is opened."""

    def __init__(self, path: str) -> None:
        self.native = _native.Dump(path)
        self.path = path
        self.notes = self.native.notes
        self._warnings = Warnings()

    def warn(self, text: str) -> None:
        """Notes, once, that something is missing or odd."""
        self._warnings.add(text)

    @property
    def machine(self) -> AddressSpace:
        """Machine memory."""
        return self.native.machine

    @property
    def warnings(self) -> list[str]:
        """What is broken about the file without making it useless."""
        return [*self.native.warnings, *self._warnings.told()]

    @cached_property
    def is_xen_host(self) -> bool:
        """Whether it is the dump of a Xen host."""
        return any(note.kind in _XEN_NOTES for note in self.notes)

    @cached_property
    def is_dump_core(self) -> bool:
        """Whether it is one domain's own dump, by xl dump-core."""
        return any(note.kind == "dumpcore_header" for note in self.notes)

    def xen(self, xen_syms: str | None = None) -> "Xen":
        """The hypervisor of a host's dump; AbsentError where there is none or it is broken."""
        from .hypervisor.xen import Xen

        return Xen(self.native, None if xen_syms is None else Image(xen_syms))

    @cached_property
    def hypervisor(self) -> "Xen":
        """The hypervisor as its own notes tell of it, with no xen-syms."""
        return self.xen()

    @cached_property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """The Linux kernel's own notes about itself; empty where the dump has no such note."""
        for note in self.notes:
            if note.kind == "vmcoreinfo":
                return vmcoreinfo.parse(note.fields["text"])
        return {}
