"""One domain of a dump: its P2M, its memory by each kind of address, its kernel."""

from collections.abc import Sequence
from functools import cached_property

from .._native import P2M, AbsentError, AddressSpace, Image
from ..limits import MAX_P2M_WARNINGS
from ..linux.boot import build_id
from ..linux.boot.claims import NOTHING_GIVEN, Given
from ..linux.boot.locate import Location
from ..linux.boot.roots import space
from ..linux.system import Linux
from .locator import Locator
from .platform import Platform


class MismatchError(AbsentError):
    """The vmlinux is not the build that the dump holds."""


class Domain:
    """One domain of a dump: its P2M, its memory and its kernel."""

    def __init__(
        self,
        number: int,
        platform: Platform,
        image: Image | None,
        p2m_source: str | None,
        force: bool,
        unwind: Sequence[str] | None,
        given: Given = NOTHING_GIVEN,
    ) -> None:
        self.dump = platform.dump
        #: Its number; 0 on a bare machine.
        self.id: int = number
        #: Its P2M; None on a bare machine, and if no source of it can be read.
        self.p2m: P2M | None = None
        self._platform = platform
        self._warnings: list[str] = []
        self._kernel: Linux | None = None
        self._location = self._locate(image, p2m_source, given, force=force)
        if image is not None and self._location is not None:
            location = self._location
            size = self.dump.native.memory_held
            self._kernel = Linux(image, location, self.virtual, size, platform.contexts, unwind)
            for text in location.warnings:
                self._kernel.warn(text)
            self._identify(image, self._kernel, force)

    def _locate(
        self, image: Image | None, wanted: str | None, given: Given, *, force: bool
    ) -> Location | None:
        # What is found and verified comes before what is forced, whatever the P2M source.
        claims_forced = force and bool(given.claims())
        try:
            return self._find(Locator(self._platform, image, given, force=claims_forced), wanted)
        except AbsentError:
            if not force or claims_forced or image is None:
                raise
        self._warnings.clear()
        return self._find(Locator(self._platform, image, given, force=True), wanted)

    def _find(self, locator: Locator, wanted: str | None) -> Location | None:
        """Sets the P2M to the first that works, and finds the kernel with it."""
        if self._platform.identity and wanted is None:
            try:
                return locator.locate(None)
            except AbsentError as error:
                raise self._not_found(locator.image, [str(error)]) from None
        problems: list[str] = []
        for candidate in locator.candidates(wanted):
            if candidate.p2m is not None:
                self.p2m = candidate.p2m
                self._warnings += problems
                if not candidate.source.verified:
                    self._warnings.append(
                        f"cannot verify that {candidate.source.detail} belongs to domain {self.id}"
                    )
                return candidate.location
            if len(problems) < MAX_P2M_WARNINGS:
                source = candidate.source
                problems.append(f"P2M by {source.name} ({source.detail}): {candidate.problem}")
        if wanted is not None:
            reason = "; ".join(problems) or f"it offers {', '.join(locator.offered()) or 'none'}"
            raise AbsentError(f"{self.dump.path}: domain {self.id}: no P2M by {wanted!r}: {reason}")
        return self._without_p2m(locator, problems)

    def _without_p2m(self, locator: Locator, problems: list[str]) -> Location | None:
        try:
            location = locator.locate_by_own_roots()
        except AbsentError as error:
            raise self._not_found(locator.image, [*problems, str(error)]) from None
        reason = "; ".join(problems) or "the dump offers no source of it"
        self._warnings.append(f"the P2M and pseudo-physical memory cannot be read: {reason}")
        if not any(self._platform.own_roots()):
            root = location.how if location else "the root"
            self._warnings.append(f"cannot verify that {root} belongs to domain {self.id}")
        return location

    def _not_found(self, image: Image | None, problems: list[str]) -> AbsentError:
        reason = self._platform.obstacle() or "; ".join(problems)
        build = None if image is None else self._platform.build()
        if image is None or build is None:
            return AbsentError(f"{self.dump.path}: domain {self.id}: {reason}")
        own = build_id.Build.of(image)
        if own.differs(build):
            return MismatchError(
                f"{image.path} is not the kernel of the dump: it is {own}, the dump's domain "
                f"{self.id} runs {build}"
            )
        return AbsentError(f"{self.dump.path}: domain {self.id}, which runs {build}: {reason}")

    def _identify(self, image: Image, kernel: Linux, force: bool) -> None:
        different = build_id.mismatch(image, kernel.location.slide, kernel.virtual)
        if different is not None:
            text = f"{image.path} is not the kernel of the dump: {different}"
            if not force:
                raise MismatchError(f"{text} (--force continues anyway)")
            kernel.warn(text)

    @property
    def kernel(self) -> Linux:
        """Its kernel. Raises AbsentError if the domain was opened without a vmlinux."""
        if self._kernel is None:
            raise AbsentError(f"domain {self.id} was opened without its vmlinux")
        return self._kernel

    @cached_property
    def physical(self) -> AddressSpace:
        """Its pseudo-physical memory. Raises AbsentError if no P2M can be read."""
        if self.p2m is None and not self._platform.identity:
            raise AbsentError(f"{self.dump.path}: no P2M of domain {self.id} can be read")
        return self.dump.native.physical(self.p2m)

    @cached_property
    def virtual(self) -> AddressSpace:
        """Its kernel's virtual memory. Raises AbsentError if no root page table is known."""
        location = self._location
        if location is None:
            raise AbsentError(f"{self.dump.path}: no page table of domain {self.id} is known")
        mask = location.encryption_mask
        return space(self.dump.native, location.root, location.paging, mask)

    @property
    def warnings(self) -> list[str]:
        """Deduplicated warnings about the file, the domain and its kernel."""
        kernel = [] if self._kernel is None else self._kernel.warnings
        return [*self.dump.warnings, *self._warnings, *kernel]
