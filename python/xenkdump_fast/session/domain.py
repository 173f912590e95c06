"""One domain of a dump: its P2M, its memory by each kind of address, its kernel."""

from collections.abc import Sequence
from functools import cached_property

from .._native import P2M, AbsentError, AddressSpace, Image
from ..linux.boot import build_id
from ..linux.boot.locate import Location, Root, Roots, locate
from ..linux.system import Linux
from .dump_file import DumpFile
from .platform import Platform, Recorded

#: Why a source of the P2M cannot be used is told of so many.
_PROBLEMS = 8


class MismatchError(AbsentError):
    """The vmlinux is not the build that the dump holds."""


class Domain:
    """One domain of a dump: its P2M, its memory by each kind of address, its kernel."""

    def __init__(
        self,
        dump: DumpFile,
        number: int,
        platform: Platform,
        image: Image | None,
        p2m_source: str | None,
        force: bool,
        unwind: Sequence[str] | None,
    ) -> None:
        self.dump = dump
        self.id = number
        #: None on a machine without Xen, and where none of a domain's sources can be read.
        self.p2m: P2M | None = None
        self._platform = machine
        self._warnings: list[str] = []
        self._kernel: Linux | None = None
        self._roots: Roots | None = None
        self._location = self._find(image, p2m_source)
        if image is not None and self._location is not None:
            location = self._location
            size = dump.native.size
            self._kernel = Linux(image, location, self.virtual, size, machine.contexts, unwind)
            self._identify(image, self._kernel, force)

    def _find(self, image: Image | None, wanted: str | None) -> Location | None:
        """Sets the P2M to the first that works, and finds the kernel with it."""
        machine = self._platform
        if machine.identity and wanted is None:
            return self._locate(image, None)
        problems: list[str] = []
        offered = []
        for source in machine.sources(image):
            offered.append(source.name)
            if wanted not in (None, source.name):
                continue
            try:
                p2m = source.open()
                location = self._locate(image, p2m)
            except AbsentError as error:
                if len(problems) < _PROBLEMS:
                    problems.append(f"P2M by {source.name} ({source.detail}): {error}")
                continue
            self.p2m = p2m
            self._warnings += problems
            return location
        if wanted is not None:
            reason = (
                "; ".join(problems) or f"there is {', '.join(dict.fromkeys(offered)) or 'none'}"
            )
            raise AbsentError(
                f"{self.dump.path}: offers no P2M of domain {self.id} by {wanted!r}: {reason}"
            )
        return self._without_p2m(image, problems)

    def _without_p2m(self, image: Image | None, problems: list[str]) -> Location | None:
        """Page tables of a PV guest hold machine frames: its kernel can be read with no P2M."""
        machine = self._platform
        own = list(machine.own_roots())
        try:
            location = self._locate(image, None, own)
        except AbsentError as error:
            raise self._not_found(image, [*problems, str(error)]) from None
        self._warnings.append(
            "the P2M cannot be read, pseudo-physical memory with it: "
            + ("; ".join(problems) or "no source of it is in the dump")
        )
        if not own:
            self._warnings.append(
                f"that {location.how if location else 'its root'} is domain {self.id}'s cannot be "
                "established"
            )
        return location

    def _locate(
        self, image: Image | None, p2m: P2M | None, own: Sequence[Root] = ()
    ) -> Location | None:
        """By the roots that are its own, if any are given, else by all that may be."""
        machine, native = self._platform, self.dump.native
        if image is not None:
            if own or self._roots is None:
                self._roots = Roots(native, image, own or machine.roots())
            physical = native.physical(p2m) if p2m or machine.identity else None
            return locate(self._roots, p2m, self.dump.vmcoreinfo, physical)
        records = machine.records if isinstance(machine, Recorded) else None
        for root in own or machine.roots():
            if records is not None:
                return Location(root.address, records.paging, 0, root.how, {})
        return None

    def _not_found(self, image: Image | None, problems: list[str]) -> AbsentError:
        release = self._platform.release()
        if image is None or release is None:
            return AbsentError(f"{self.dump.path}: domain {self.id}: {'; '.join(problems)}")
        return MismatchError(
            f"{image.path} (build id {image.build_id or 'unknown'}) is not the kernel of the dump, "
            f"whose domain {self.id} runs {release}"
        )

    def _identify(self, image: Image, kernel: Linux, force: bool) -> None:
        different = build_id.mismatch(kernel)
        if different is not None:
            text = f"{image.path} is not the kernel of the dump: {different}"
            if not force:
                raise MismatchError(f"{text} (--force goes on)")
            kernel.warn(text)

    @property
    def kernel(self) -> Linux:
        """Its kernel; AbsentError if the domain was opened without a vmlinux."""
        if self._kernel is None:
            raise AbsentError(f"domain {self.id} was opened without its vmlinux")
        return self._kernel

    @cached_property
    def physical(self) -> AddressSpace:
        """Its pseudo-physical memory; AbsentError without a P2M."""
        if self.p2m is None and not self._platform.identity:
            raise AbsentError(f"{self.dump.path}: no P2M of domain {self.id} can be read")
        return self.dump.native.physical(self.p2m)

    @cached_property
    def virtual(self) -> AddressSpace:
        """Its kernel's virtual memory; AbsentError where no root of it is known."""
        location = self._location
        if location is None:
            raise AbsentError(f"{self.dump.path}: no page table of domain {self.id} is known")
        return self.dump.native.virtual(location.root, location.paging)

    @property
    def warnings(self) -> list[str]:
        """What is missing or odd, said once; of a kernel's that are alike the first few."""
        kernel = [] if self._kernel is None else self._kernel.warnings
        return [*self.dump.warnings, *self._warnings, *kernel]
