"""A Xen host: its pCPUs and its domains."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from .._native import AbsentError, AddressSpace, Dump, DumpError, Image, Symbols
from .._typing import TYPE_CHECKING, Any, NamedTuple
from ..budget import Budget, BudgetExceededError
from ..diagnostics import Unique
from ..limits import (
    MAX_FRAME_SEARCH,
    MAX_GUEST_FRAMES,
    MAX_INFERENCE_READS,
    MAX_P2M_SEARCH,
    MAX_UNRELEASED,
    MAX_UNRELEASED_ROOTS,
    MAX_VCPU_READS,
)
from ..mismatch import MismatchError
from . import (
    build_id,
    crash_info,
    detect,
    domains,
    frame_table,
    guests,
    hvm,
    memory,
    notes,
    vcpus,
)
from .domain import TRANSLATED, XenDomain
from .domains import FIRST_RESERVED
from .guests import GuestKernel
from .infer import EMU_DEVICES, EMU_LAPIC, infer
from .layout import Layout, by_types
from .memory import PAGE, XenMemory
from .pcpus import Pcpu, pcpus
from .vcpus import XenVcpu

if TYPE_CHECKING:
    from uuid import UUID

    import numpy as np

    from .._native import Paging
    from . import nested
    from .console_ring import Console
    from .inferred.layouts import Inferred
    from .structs import Structs

#: domain.options: a translated guest, HVM or PVH (public ABI, XEN_DOMCTL_CDF_hvm).
CDF_HVM = 1 << 0


class XenSymbols(NamedTuple):
    """The symbols of Xen: a xen-syms or its ``.map`` file."""

    path: str
    #: None for a map file.
    image: Image | None
    #: None for an image without a symbol table.
    table: Symbols | None

    @classmethod
    def open(cls, path: str, open_image: "Callable[[str], Image]" = Image) -> "XenSymbols":
        """Opens the file, as an image by ``open_image``; DumpError if it is neither."""
        try:
            image = open_image(path)
        except DumpError as error:
            try:
                table = Symbols.from_map(path)
            except DumpError:
                raise error from None
            if len(table) == 0:
                raise
            return cls(path, None, table)
        try:
            return cls(path, image, image.symbols())
        except AbsentError:
            return cls(path, image, None)


class XenHost:
    """The hypervisor in a host's dump.

    The layouts of Xen's structs come from DWARF in ``symbols``, else they are inferred. ``force``
    accepts symbols of another build. ``image`` is where Xen's image is, if that is known; else it
    is searched for in a dump without notes of Xen.

    Raises AbsentError if the dump is not a Xen host's or if Xen's memory cannot be read,
    MismatchError if the symbols are of another build. All other damage is reported in
    ``warnings``; a broken domain does not hide the others.
    """

    def __init__(
        self,
        dump: Dump,
        symbols: "XenSymbols | None" = None,
        *,
        force: bool = False,
        image: "detect.XenImage | None" = None,
    ) -> None:
        self.dump = dump
        self._given = symbols
        self.image = None if symbols is None else symbols.image
        self._roots_found = 0
        #: The console ring, once ``console`` has found it.
        self.ring: Console | None = None
        #: Warnings about the hypervisor; each domain has its own.
        self.warnings: list[str] = Unique()
        #: Where Xen's image is, if no note of the dump is Xen's.
        self._found = None if notes.are_xens(dump.notes) else image or detect.find(dump)
        #: Its pCPUs.
        self.pcpus: list[Pcpu] = pcpus(dump, self._found)
        for pcpu in self.pcpus:
            self.warnings += pcpu.warnings
        self.word = self._word()
        self.vmcoreinfo = memory.vmcoreinfo(dump)
        if self._found is not None and self._found.searched:
            self.warnings.append(
                "every CPU was running a guest: Xen's image was searched for in memory, and QEMU's "
                "numbers of the CPUs are taken for Xen's"
            )
        if self._found is not None:
            text = detect.vmcoreinfo(dump, self._found)
            self.vmcoreinfo = memory.parse_vmcoreinfo([text])
        self.facts = domains.Facts.of(self.vmcoreinfo, self.symbols, self._by_types or Layout())
        self.memory = self._memory()
        different = build_id.mismatch(self.memory, self.vmcoreinfo, self.image, self.symbols)
        if different is not None:
            different += self._builds()
            if not force:
                raise MismatchError(different)
            self.warnings.append(different)

    def __repr__(self) -> str:
        symbols = "no symbols" if self.symbols_path is None else repr(self.symbols_path)
        return f"<XenHost of {self.dump.path!r}: {len(self.pcpus)} pCPUs, {symbols}>"

    def _builds(self) -> str:
        """The builds of the symbols and of the hypervisor, for an error."""
        own = None if self.image is None else self.image.build_id
        text = "" if own is None else f"; its build id is {own}"
        version = crash_info.version(crash_info.read(self.dump))
        return text if version is None else f"{text}; the dump is of Xen {version}"

    def _word(self) -> int:
        """Word size of the hypervisor, by the notes of its pCPUs or by CRASH_INFO."""
        if self.pcpus:
            return self.pcpus[0].word
        for note in self.dump.notes:
            if note.kind == "crash_info":
                return int(note.fields["word"])
        hint = (
            "" if self.dump.notes else " (images of memory have none. Try: an ELF dump of the host)"
        )
        raise AbsentError(f"{self.dump.path}: not the dump of a Xen host: no notes of Xen{hint}")

    @cached_property
    def symbols(self) -> Symbols | None:
        """Xen's symbols; None without them."""
        return None if self._given is None else self._given.table

    @property
    def symbols_path(self) -> str | None:
        """The file that the symbols come from."""
        return None if self._given is None else self._given.path

    @cached_property
    def _by_types(self) -> Layout | None:
        """The layout from the DWARF of xen-syms; None without DWARF."""
        if self.image is None:
            return None
        try:
            types = self.image.types()
            layout = by_types(types)
        except AbsentError:
            return None
        self.warnings += (f"{self.image.path}: {text}" for text in types.warnings)
        return layout

    def _memory(self) -> XenMemory:
        """Xen's memory under the first root that maps it."""
        first = self.pcpus[0] if self.pcpus else None
        paging = first.paging if first else memory.pagings(self.word, None)[0]
        probe = self.facts.head or self.pc
        if probe is not None:
            more = () if self._found is None else [self._found.root]
            roots = memory.Roots(self.dump, self.word, more)
            for root in roots.of(first.cr3 if first else None):
                found = XenMemory(self.dump, self.word, paging, root, probe)
                if found.number(probe, 1) is not None:
                    return found
        raise AbsentError(f"{self.dump.path}: no page table in the dump maps Xen's memory")

    @property
    def pc(self) -> int | None:
        """A pc in Xen's code: of any pCPU that has its registers in a note, or of a handler."""
        if self._found is not None:
            return self._found.handler
        name = "rip" if self.word == 8 else "eip"
        return next((pcpu.registers[name] for pcpu in self.pcpus if pcpu.registers), None)

    @cached_property
    def layout(self) -> Layout:
        """The offsets of the members of Xen's structs."""
        if self._by_types is not None:
            return self._by_types
        layout = infer(self.memory, self._list.addresses, self.pcpus, self.facts.size)
        self.warnings += layout.warnings
        return layout

    @cached_property
    def structs(self) -> "Structs":
        """Any of Xen's structs. AbsentError without the DWARF of a xen-syms."""
        from . import structs

        return structs.of(self.memory, self.image, self.symbols_path)

    @cached_property
    def channel_structs(self) -> "Structs":
        """The structs of event channels, inferred without DWARF; AbsentError if not proved."""
        from .inferred import channels

        def infer() -> "Inferred":
            ids = self._ids
            with self.memory.budget("the layout of event channels", MAX_INFERENCE_READS):
                return channels.infer(self.memory, ids, self.facts.size)

        return self._or_inferred("event channels", infer)

    @cached_property
    def grant_structs(self) -> "Structs":
        """The structs of grant tables, inferred without DWARF; AbsentError if not proved."""
        from .inferred import grants

        def infer() -> "Inferred":
            ids = self._ids
            with self.memory.budget("the layout of grant tables", MAX_INFERENCE_READS):
                return grants.infer(self.memory, ids, self.facts.size, self.facts.frames)

        return self._or_inferred("grant tables", infer)

    @cached_property
    def scheduler(self) -> "tuple[Structs, dict[int, int] | None]":
        """The structs of the scheduler, and without DWARF the sched_resource of each pCPU.

        AbsentError if the layout is not proved.
        """
        from .inferred import scheduler

        resources: dict[int, int] | None = None

        def infer() -> "Inferred":
            nonlocal resources
            vcpus = [
                (vcpu.address, domain.address)
                for domain in self.domains()
                for vcpu in domain.vcpus
                if vcpu.address is not None
            ]
            known = scheduler.Known(self.memory, self.facts, self.layout, self.pcpus)
            with self.memory.budget("the layout of run queues", MAX_INFERENCE_READS):
                found = scheduler.infer(known, vcpus)
            resources = found.resources
            return found.layout

        return self._or_inferred("run queues", infer), resources

    @cached_property
    def paging_mode_at(self) -> int | None:
        """The offset of domain.arch.paging.mode without DWARF; None if it is not found."""
        from .inferred import paging

        domains = self.domains()
        translated = [one.address for one in domains if one.is_translated]
        others = [one.address for one in domains if one.kind == "pv"]
        try:
            with self.memory.budget("the layout of domains", MAX_INFERENCE_READS):
                return paging.infer(self.memory, translated, others, self.facts.size)
        except (AbsentError, BudgetExceededError):
            return None

    @property
    def _ids(self) -> dict[int, int]:
        return {address: number for number, address in self._every.addresses.items()}

    def _or_inferred(self, what: str, infer: "Callable[[], Inferred]") -> "Structs":
        """The structs by DWARF, else those that ``infer`` finds, with a warning."""
        try:
            return self.structs
        except AbsentError as error:
            unknown = str(error)
        try:
            found = infer()
        except (AbsentError, BudgetExceededError) as error:
            raise AbsentError(f"{unknown}; nor can it be inferred: {error}") from None
        self.warnings.append(
            f"{what}: no debug information of Xen: the layout is inferred: {found.evidence}"
        )
        from .structs import Structs

        return Structs(self.memory, found.types)

    @cached_property
    def _list(self) -> domains.DomainList:
        """The domains in the list; if it is broken, those found otherwise too."""
        found = domains.find(self.memory, self.facts, self.pcpus)
        if found.warnings:
            domains.complete(self.memory, self.facts, self.pcpus, found)
        self.warnings += found.warnings
        return found

    @cached_property
    def _every(self) -> domains.DomainList:
        """The list with all owners of pages. Sampling the frame table is slow."""
        found = self._list
        if not found.owned:
            known = len(found.warnings)
            domains.complete(self.memory, self.facts, self.pcpus, found)
            self.warnings += found.warnings[known:]
        return found

    @cached_property
    def pages_offset(self) -> int | None:
        """The offset of the number of pages in struct domain."""
        known = self.layout.get("domain.pages")
        if known is not None:
            return known
        every = self._every
        addresses = list(every.addresses.values())
        return frame_table.pages_offset(
            self.memory, self.facts.frames, addresses, self.facts.size, every.owned
        )

    def domains(self, all: bool = False) -> list["HostDomain"]:  # noqa: A002 - the option's name
        """Every domain by id; with ``all`` also Xen's own (DOMID_XEN, DOMID_IO, ...)."""
        found = [self._domain(number) for number in self._every.addresses]
        if all:
            known = {domain.address for domain in found}
            system = domains.system(
                self.memory, self.facts, self.layout, self.pcpus, self.symbols, self.warnings
            )
            found += [
                HostDomain(self, number, address, "Xen's own")
                for number, address in sorted(system.items())
                if address not in known
            ]
        return found

    def domain(self, number: int) -> "HostDomain":
        """Returns the domain with this id. Raises AbsentError if there is none."""
        if number not in self._list.addresses and number not in self._every.addresses:
            known = ", ".join(map(str, self._list.addresses)) or "none"
            raise AbsentError(f"{self.dump.path}: no domain {number}; domains: {known}")
        return self._domain(number)

    def _domain(self, number: int) -> "HostDomain":
        known = self._cache.get(number)
        if known is None:
            address, method = self._list.addresses[number], self._list.how[number]
            known = self._cache[number] = HostDomain(self, number, address, method)
        return known

    @cached_property
    def on_pcpus(self) -> vcpus.OnPcpus:
        """The vCPUs that the pCPUs were running."""
        return vcpus.OnPcpus(self.memory, self.layout, self.pcpus)

    @cached_property
    def vcpu_budget(self) -> Budget:
        """For the structs of all vCPUs."""
        return Budget("vCPU structs", MAX_VCPU_READS * self.dump.memory_held)

    @cached_property
    def kernel_budget(self) -> Budget:
        """For the search for the kernels of all domains."""
        return guests.search_budget(self.dump)

    def release_after_some(self) -> None:
        """Gives back cached pages of the file after the roots of some domains: the samples are
        scattered over the frame table and the M2P, and the system reads many pages around each.
        """
        self._roots_found += 1
        if self._roots_found % MAX_UNRELEASED_ROOTS == 0:
            self.dump.release()

    @cached_property
    def frame_budget(self) -> Budget:
        """For the search for kernels in frames of translated guests."""
        return self.kernel_budget.nested("frames of guests", MAX_FRAME_SEARCH)

    @cached_property
    def translated_frames(self) -> "dict[int, np.ndarray[Any, Any]]":
        """The runs of frames of those translated guests whose page tables are not found, by the
        addresses of their structs. The whole frame table may be read for it.
        """
        addresses = [d.address for d in self.domains() if d.is_translated and not d.has_tables]
        return frame_table.frames_of(self.memory, self.facts.frames, addresses, MAX_GUEST_FRAMES)

    @cached_property
    def _cache(self) -> dict[int, "HostDomain"]:
        return {}


class HostDomain(XenDomain):
    """A domain of a host, read from the hypervisor's structs."""

    def __init__(self, xen: XenHost, number: int, address: int, how: str) -> None:
        super().__init__(xen.dump, number, xen.word, xen.kernel_budget)
        self.xen = xen
        self.address = address
        #: How it was found: "domain_list", or in words.
        self.how = how

    def _field(self, name: str, size: int) -> int | None:
        at = self.xen.layout.get(name)
        return None if at is None else self.xen.memory.number(self.address + at, size)

    def _read_vcpus(self) -> list[XenVcpu]:
        xen = self.xen
        found, warnings = vcpus.read(
            xen.memory, xen.layout, xen.on_pcpus, self.address, xen.vcpu_budget
        )
        self.warnings += warnings
        kind = self._recorded_kind()
        if kind == "system":
            # A pCPU's stack holds a guest's registers, the idle vCPU has none.
            return [vcpu._replace(registers=None, where=None, kind=None) for vcpu in found]
        for i, vcpu in enumerate(found):
            if kind in TRANSLATED or (kind is None and vcpu.kind == "hvm"):
                found[i] = vcpus.translated(xen.memory, xen.layout, xen.on_pcpus, vcpu)
                self.warnings += found[i].warnings[len(vcpu.warnings) :]
        return found

    @cached_property
    def nested(self) -> "nested.Root":
        """Xen's page tables of a translated guest's memory; AbsentError if none can be verified."""
        from . import nested

        xen = self.xen
        if not self.is_translated:
            raise AbsentError(f"domain {self.id} is not a translated guest")
        domain = self.address, xen.facts.size
        with xen.memory.budget("structs that may be a p2m_domain", MAX_P2M_SEARCH):
            found = nested.find(xen.memory, xen.layout, xen.facts.frames, domain, self._blocks())
        if found.warning is not None:
            self.warnings.append(found.warning)
        xen.release_after_some()
        return found

    @property
    def has_tables(self) -> bool:
        """Whether ``nested`` is found."""
        try:
            return bool(self.nested)
        except AbsentError:
            return False

    def _blocks(self) -> Iterator[int]:
        """The roots in the VMCBs of its vCPUs."""
        xen = self.xen
        for vcpu in self.vcpus:
            block = None if vcpu.address is None else hvm.vmcb(xen.memory, vcpu.address)
            if block is not None and block.nested_root is not None:
                yield block.nested_root

    @cached_property
    def guest(self) -> Dump:
        """A translated guest as a dump of its own, by its physical addresses."""
        return self.dump.guest(self.nested.p2m, self.nested.frames * PAGE)

    def space(self, root: int, paging: "Paging") -> AddressSpace:
        """The address space below a root, which is a physical address in a translated guest."""
        if not self.is_translated:
            return super().space(root, paging)
        return self.dump.virtual(root, paging, p2m=self.nested.p2m)

    def _read_shared_info(self) -> bytes | None:
        pointer = self._field("domain.shared_info", self.xen.word)
        if not pointer:
            return None
        page = self.xen.memory.read(pointer, PAGE)
        if page is None:
            self.warnings.append(f"its shared_info at {pointer:#x} cannot be read")
        else:
            self.shared_info_address = self.xen.memory.translate(pointer)
        return page

    def _recorded_kind(self) -> str | None:
        if self.id >= FIRST_RESERVED:
            return "system"
        options = self._field("domain.options", 4)
        emulated = self._field("domain.emulation", 4)
        if options is not None and not options & CDF_HVM:
            return "pv"
        if emulated is None:
            return None if options is None else "hvm or pvh"
        if options is None and not emulated & EMU_LAPIC:
            return None
        return "hvm" if emulated & EMU_DEVICES else "pvh"

    def _find_kernel(self, hints: Iterable[int]) -> GuestKernel | None:
        remaining = self._kernel_budget.remaining
        found = self._search_kernel(hints)
        if remaining - self._kernel_budget.remaining > MAX_UNRELEASED:
            self.dump.release()
        return found

    def _search_kernel(self, hints: Iterable[int]) -> GuestKernel | None:
        """A translated guest's kernel is found below its vCPUs' roots, as a PV guest's.

        If these are not known, it is searched for in the guest's frames: the strings that identify
        a kernel fit into one.
        """
        if self.kind == "system":
            return None
        if not self.is_translated:
            return super()._find_kernel(hints)
        try:
            machine = self.guest.machine
        except AbsentError:
            # The frame table has its frames, but not in the guest's order.
            runs = self.xen.translated_frames.get(self.address)
            pairs = [] if runs is None else ((int(first), int(count)) for first, count in runs)
            return guests.recognise_frames(self.dump.machine, pairs, self.xen.frame_budget)
        if any(root.address for root in self.roots()):
            return super()._find_kernel(hints)
        # None of its vCPUs has paging on, or the control registers are not known.
        return guests.recognise_frames(machine, self.nested.p2m.spans(), self.xen.frame_budget)

    def _own_pages(self) -> Iterator[int]:
        yield from super()._own_pages()
        runs = self.xen.translated_frames.get(self.address) if self.is_translated else None
        for first, _ in () if runs is None else runs:
            yield int(first) * guests.PAGE

    @cached_property
    def uuid(self) -> "UUID | None":
        """Its UUID, chosen by the toolstack; all zeros for dom0. None if it cannot be read."""
        at = self.xen.layout.get("domain.uuid") if self.id < FIRST_RESERVED else None
        data = None if at is None else self.xen.memory.read(self.address + at, 16)
        if data is None:
            return None
        from uuid import UUID

        return UUID(bytes=data)

    @cached_property
    def pages(self) -> int | None:
        """Number of pages that it has; None if unknown."""
        at = self.xen.pages_offset
        return None if at is None else self.xen.memory.number(self.address + at, 4)
