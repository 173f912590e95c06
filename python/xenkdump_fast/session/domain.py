"""One domain of a dump: its P2M, its memory by each kind of address, its kernel."""

from _thread import RLock  # threading imports more
from collections.abc import Callable, Sequence
from functools import cached_property
from operator import methodcaller

from .._native import P2M, AbsentError, AddressSpace, Image, SourceLines
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_P2M_WARNINGS
from ..linux.boot import build_id
from ..linux.boot.claims import NOTHING_GIVEN, Given
from ..linux.boot.locate import Location
from ..linux.system import Linux
from ..linux.tasks import Task
from ..mismatch import MismatchError
from .dump_file import DumpFile
from .locator import Locator
from .platform import Platform

if TYPE_CHECKING:
    from .bare import BareMachine


class Options(NamedTuple):
    """How a domain was opened; ``Dump.domain`` describes them."""

    p2m_source: str | None = None
    force: bool = False
    unwind: Sequence[str] | None = None
    kaslr_offset: int | None = None
    phys_base: int | None = None
    vmcoreinfo: str | None = None


class _Problem(NamedTuple):
    """Why a source of the P2M cannot be used."""

    source: str
    why: str

    def __str__(self) -> str:
        return f"{self.source}: {self.why}"


def _joined(problems: Sequence[_Problem]) -> str:
    """The problems as one text, each reason once."""
    sources: dict[str, list[str]] = {}
    for problem in problems:
        sources.setdefault(problem.why, []).append(problem.source)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in sources.items())


class Domain:
    """One domain of a dump: its P2M, its memory and its kernel.

    It is valid as long as its dump is open. A pickled domain is its dump, its id, and the path and
    the options that it was opened with: unpickling opens it again, without earlier warnings and
    objects.
    """

    def __init__(
        self,
        number: int,
        platform: Platform,
        image: Image | None,
        options: Options,
        given: Given = NOTHING_GIVEN,
    ) -> None:
        self.dump = platform.dump
        #: Its number; 0 on a bare machine.
        self.id: int = number
        self._options = options
        self._image = image
        self._p2m: P2M | None = None
        self._platform = platform
        self._warnings: list[str] = []
        self._kernel: Linux | None = None
        #: Held during the search for the kernel, which replaces the P2M as it goes on.
        self._search = RLock()
        #: Why there is no kernel, after a search for it.
        self._no_kernel: str | None = None
        self._found_vmlinux = False
        self._given = given
        self._bare: BareMachine | None = None
        self._location = self._locate(image, options.p2m_source, given, force=options.force)
        if image is not None and self._location is not None:
            self._kernel = self._linux(image, self._location)
            self._identify(self._kernel, options.force)

    def __reduce__(self) -> tuple[Callable[[DumpFile], "Domain"], tuple[DumpFile]]:
        path = None if self._image is None else self._image.path
        reopen = methodcaller("domain", self.id, path, **self._options._asdict())
        return reopen, (self.dump,)

    def __repr__(self) -> str:
        p2m = "no P2M" if self._p2m is None else f"P2M by {self._p2m.source}"
        kernel = "no vmlinux" if self._image is None else repr(self._image.path)
        return f"<Domain {self.id} of {self.dump.path!r}: {p2m}, {kernel}>"

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
                self._p2m = self._platform.p2m()
                self._warnings += self._platform.assumptions()
                return locator.locate(None)
            except AbsentError as error:
                raise self._not_found(locator.image, str(error)) from None
        problems: list[_Problem] = []
        for candidate in locator.candidates(wanted):
            if candidate.p2m is not None:
                self._p2m = candidate.p2m
                self._warnings += map(str, problems)
                if not candidate.source.verified:
                    self._warnings.append(
                        f"cannot verify that {candidate.source.detail} belongs to domain {self.id}"
                    )
                return candidate.location
            if len(problems) < MAX_P2M_WARNINGS:
                source = candidate.source
                what = f"P2M by {source.name} ({source.detail})"
                problems.append(_Problem(what, candidate.problem or ""))
        if wanted is not None:
            reason = _joined(problems) or f"it offers {', '.join(locator.offered()) or 'none'}"
            raise AbsentError(f"{self.dump.path}: domain {self.id}: no P2M by {wanted!r}: {reason}")
        return self._without_p2m(locator, problems)

    def _without_p2m(self, locator: Locator, problems: "Sequence[_Problem]") -> Location | None:
        try:
            location = locator.locate_by_own_roots()
        except AbsentError as error:
            # What is wrong with the image is so with every source.
            if all(problem.why == str(error) for problem in problems):
                raise self._not_found(locator.image, str(error)) from None
            reason = f"{_joined(problems)}; {error}"
            raise self._not_found(locator.image, reason) from None
        reason = _joined(problems) or "the dump offers no source of it"
        self._warnings.append(f"the P2M and pseudo-physical memory cannot be read: {reason}")
        if not any(self._platform.own_roots()):
            root = location.how if location else "the root"
            self._warnings.append(f"cannot verify that {root} belongs to domain {self.id}")
        return location

    def _not_found(self, image: Image | None, reason: str) -> AbsentError:
        build = None if image is None else self._platform.build()
        if image is None or build is None:
            return AbsentError(f"{self.dump.path}: domain {self.id}: {reason}{self._hint(image)}")
        if image.symbol_source == "map":
            return MismatchError(
                f"{self._not_the_map(image)}: the dump's domain {self.id} runs {build}: {reason}",
                can_force=False,
            )
        own = build_id.Build.of(image)
        if own.differs(build):
            return MismatchError(
                f"{image.path} is not the kernel of the dump: it is {own}, the dump's domain "
                f"{self.id} runs {build}"
            )
        return AbsentError(f"{self.dump.path}: domain {self.id}, which runs {build}: {reason}")

    @staticmethod
    def _not_the_map(image: Image) -> str:
        from . import debug_files

        release = debug_files.release_of(image.path)
        named = "" if release is None else f" (by its name, of {release})"
        return f"{image.path}{named} is not the map of the kernel in the dump"

    def _identify(self, kernel: Linux, force: bool) -> None:
        image = kernel.image
        if image.symbol_source == "map":
            text = self._compare_map(kernel)
        else:
            different = build_id.mismatch(image, kernel.location.slide, kernel.virtual)
            text = different and f"{image.path} is not the kernel of the dump: {different}"
        if text:
            if not force:
                raise MismatchError(text)
            kernel.warn(text)

    def _compare_map(self, kernel: Linux) -> str | None:
        """Why a System.map is not the kernel's; None if it is, or if that cannot be verified."""
        from ..linux.boot import system_map

        image = kernel.image
        slide = kernel.location.slide
        found = system_map.compare(image, slide, kernel.virtual, kernel.vmcoreinfo)
        if found.different:
            build = self._platform.build() or build_id.Build(kernel.release or None)
            reason = "; ".join(found.different)
            return f"{self._not_the_map(image)}, which is {build}: {reason}"
        if not found.is_certain:
            kernel.warn(f"cannot verify that {image.path} is the map of the kernel in the dump")
        return None

    @property
    def kernel(self) -> Linux:
        """Its kernel.

        If the domain was opened without a vmlinux, it is searched for once, when it or what depends
        on it is first used: a vmlinux of the same build on this machine is used, else what the
        memory has in its place. Raises AbsentError if there is no kernel.
        """
        if self._kernel is None:
            # Threads that ask for it at the same time wait for one search.
            with self._search:
                if self._kernel is None:
                    self._kernel = self._search_kernel()
        return self._kernel

    def _search_kernel(self) -> Linux:
        if self._no_kernel is not None:
            raise AbsentError(self._no_kernel)
        try:
            return self._find_kernel()
        except AbsentError as error:
            self._no_kernel = str(error)
            raise

    def _kernel_or_none(self) -> Linux | None:
        """Its kernel, None if there is none.

        What depends on the kernel asks for it first: the P2M and the top page table that belong to
        it may be others than those that Xen records, which are used if there is no kernel.
        """
        try:
            return self.kernel
        except AbsentError:
            return None

    @property
    def found_vmlinux(self) -> bool:
        """Whether its vmlinux was not given, but found on this machine by the kernel's build id."""
        self._kernel_or_none()
        return self._found_vmlinux

    def _find_kernel(self) -> Linux:
        """The kernel by its own memory; also sets the P2M that belongs to it."""
        problems: list[str] = []
        try:
            for own in self._platform.images():
                release = self._platform.release(own)
                from . import debug_files

                image = debug_files.find(own.build_id, release, self.dump.warn)
                try:
                    self.dump.native.release()
                    kernel = self._try_image(image or own)
                    self._found_vmlinux = image is not None
                    return kernel
                except AbsentError as error:
                    problems.append(str(error))
                finally:
                    # Of the searches for the kernel, which read much more than is used later.
                    self.dump.native.release()
        except AbsentError as error:
            problems.append(str(error))
        reason = "; ".join(problems)
        raise AbsentError(f"{self.dump.path}: domain {self.id}: {reason}{self._hint(None)}")

    def _hint(self, image: Image | None) -> str:
        """What to try if no kernel was found, with or without an image of it."""
        if self.dump.notes or self.dump.is_dump_core:
            return ""
        vmlinux = "the kernel's vmlinux, or " if image is None else ""
        return (
            " (the dump has no notes, as images of memory, and without notes the kernels of a Xen "
            f"host cannot be found. Try: {vmlinux}an ELF or a kdump-compressed dump)"
        )

    def _try_image(self, image: Image) -> Linux:
        """The kernel with this image."""
        before = self._warnings, self._p2m, self._location
        self._warnings = []
        try:
            options = self._options
            location = self._locate(image, options.p2m_source, self._given, force=options.force)
            if location is None:
                raise AbsentError("no page table is known")
            self._location = location
            return self._linux(image, location)
        except BaseException:
            # Also after an interrupt: the P2M of another image must not be taken for Xen's.
            self._warnings, self._p2m, self._location = before
            raise

    def _linux(self, image: Image, location: Location) -> Linux:
        size = self.dump.native.memory_held
        contexts, methods = self._platform.contexts, self._options.unwind
        virtual = self._space(location)
        if image.symbol_source == "map":
            image = image.with_memory(virtual, location.slide)
        elif image.symbol_source == "kallsyms" and not image.is_memory:
            image = self._with_variables(image, location)
        kernel = Linux(image, location, virtual, size, contexts, methods)
        for text in location.warnings:
            kernel.warn(text)
        return kernel

    def _space(self, location: Location) -> AddressSpace:
        return self._platform.space(location.root, location.paging, location.encryption_mask)

    def _with_variables(self, image: Image, location: Location) -> Image:
        """The image in memory, if that of a vmlinuz has the names of functions only.

        Without CONFIG_KALLSYMS_ALL, variables are found by what the running kernel has besides.
        """
        if "modules" in image.symbols():
            return image
        from ..linux.boot import image_in_memory, variables

        virtual = self._space(location)
        try:
            name = f"the kernel in {self.dump.path}"
            own = image_in_memory.of_space(virtual, image.word, name)
        except AbsentError:
            return image
        return variables.complete(own, virtual, location.facts).unmoved(location.slide)

    @cached_property
    def source_lines(self) -> SourceLines:
        """The source lines of its kernel's code. Raises AbsentError without DWARF.

        Modules are not included. A debug file on this machine is used if the vmlinux has no DWARF.
        """
        kernel = self.kernel
        release = kernel.release or None
        from . import debug_files

        return debug_files.source_lines(kernel.image, kernel.location.slide, release)

    @property
    def page_tables_hold_mfns(self) -> bool:
        """Whether its page tables hold mfns, as those of PV domains; known without a P2M, too."""
        return not self._platform.identity

    @property
    def has_p2m(self) -> bool:
        """Whether it has a P2M that can be read; a bare machine has none."""
        return self._chosen_p2m is not None

    @property
    def _chosen_p2m(self) -> P2M | None:
        if not self._platform.identity or self._options.p2m_source is not None:
            self._kernel_or_none()
        return self._p2m

    @property
    def p2m(self) -> P2M:
        """Its P2M. Raises AbsentError if it has none, or none that can be read: see ``has_p2m``."""
        p2m = self._chosen_p2m
        if p2m is None:
            why = f"no P2M of domain {self.id} can be read"
            if self._platform.identity:
                why = "no P2M: pseudo-physical addresses are machine addresses here"
            raise AbsentError(f"{self.dump.path}: {why}")
        return p2m

    @cached_property
    def physical(self) -> AddressSpace:
        """Its pseudo-physical memory. Raises AbsentError if no P2M can be read."""
        p2m = None if self._platform.identity and not self.has_p2m else self.p2m
        return self.dump.native.physical(p2m)

    @cached_property
    def virtual(self) -> AddressSpace:
        """Its kernel's virtual memory; without a kernel, what a root that Xen records maps.

        Raises AbsentError if no root page table is known.
        """
        kernel = self._kernel_or_none()
        if kernel is not None:
            return kernel.virtual
        if self._location is None:
            raise AbsentError(
                f"{self.dump.path}: no page table of domain {self.id} is known: {self._no_kernel}"
            )
        return self._space(self._location)

    def user(self, task: Task) -> AddressSpace:
        """The address space of a task: its process's user memory, and the kernel's.

        Raises AbsentError if the task has no user space, as kernel threads and tasks that have
        exited, or if its top page table cannot be found.
        """
        from ..linux.mm import page_table

        return self.address_space(page_table(self.kernel, task))

    def address_space(self, page_table: int) -> AddressSpace:
        """The address space whose top page table is at this virtual address, as ``mm_struct.pgd``.

        Raises AbsentError if it cannot be found.
        """
        table = self.virtual.mapping(page_table)
        # Page tables of a translated guest hold its physical addresses.
        root = table.machine if table.physical is None else table.physical
        paging = self.kernel.location.paging
        if self.kernel.word == 4 and paging.startswith("x86_64"):
            # A 32-bit guest of a 64-bit Xen, which adds a level above the guest's own tables.
            paging = "x86-pae"
        mask = self.kernel.location.encryption_mask
        return self._platform.space(root, paging, mask)

    def as_bare(self) -> "BareMachine":
        """Its memory and CPUs as if it ran on a bare machine: page tables hold pfns, not mfns.

        This is what tools that walk page tables themselves need. A bare machine and a translated
        guest (HVM, PVH) need not run Linux. Raises AbsentError if the kernel of a PV domain is not
        found, or if no P2M can be read.
        """
        from .bare import BareMachine

        if self._bare is None:
            self._bare = BareMachine(self, self._platform, self._kernel_if_needed())
        return self._bare

    def _kernel_if_needed(self) -> Linux | None:
        """Its kernel; None if there is none and its page tables need not be rewritten."""
        return self._kernel_or_none() if self._platform.identity else self.kernel

    @property
    def warnings(self) -> list[str]:
        """Deduplicated warnings about the file, the domain and its kernel."""
        kernel: list[str] = []
        if self._kernel is not None:
            kernel = [*self._kernel.warnings, *self._kernel.image.losses]
        return [*self.dump.warnings, *self._warnings, *kernel]
