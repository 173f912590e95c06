"""One domain: its vCPUs, the sources of its P2M, its kernel."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice

from .._native import P2M, AbsentError, AddressSpace, Dump
from .._typing import TYPE_CHECKING, Literal
from ..budget import Budget
from ..diagnostics import Unique
from ..limits import MAX_DOMAIN_SEARCHES, MAX_LEFT_OUT_PAGES
from ..linux.boot.roots import Root, in_kernel_and_user_space
from . import frames, guests, hvm, shared_info
from .guests import GuestKernel
from .p2m_sources import Source
from .shared_info import SharedInfo
from .vcpus import XenVcpu

if TYPE_CHECKING:
    from uuid import UUID

    from .._native import Paging
    from .saved_config import SavedConfig


#: The kinds of guests whose page tables hold physical addresses of their own.
TRANSLATED = ("hvm", "pvh", "hvm or pvh")


class XenDomain:
    """A domain of a host, or the domain of an xl dump-core or save file.

    What cannot be read is None and has a warning; nothing here raises for a broken domain.
    """

    def __init__(self, dump: Dump, number: int, xen_word: int, kernel_budget: Budget) -> None:
        """``kernel_budget`` is for the search for its kernel."""
        self.dump = dump
        #: Its id.
        self.id: int = number
        self._xen_word = xen_word
        self._kernel_budget = kernel_budget
        #: Warnings about this domain.
        self.warnings: list[str] = Unique()
        self._kernel: GuestKernel | None = None
        #: The hints of searches that found none.
        self._in_vain: set[tuple[int, ...]] = set()
        #: Machine address of its shared_info page, once it was read.
        self.shared_info_address: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self.dump.path!r}>"

    # Overridden for each kind of dump.

    def _read_vcpus(self) -> list[XenVcpu]:
        raise NotImplementedError

    def _read_shared_info(self) -> bytes | None:
        raise NotImplementedError

    def _recorded_kind(self) -> str | None:
        """The kind, if it is recorded in the dump."""
        return None

    @property
    def uuid(self) -> "UUID | None":
        """Its UUID, if it is known."""
        return None

    @property
    def pages(self) -> int | None:
        """Number of its pages, if it is known."""
        return None

    # The same for all kinds of dump.

    @cached_property
    def shared_page(self) -> bytes | None:
        """Its shared_info page."""
        return self._read_shared_info()

    @cached_property
    def shared_info(self) -> SharedInfo | None:
        """The P2M that the guest published; None if it did not (HVM, PVH, or early in its boot)."""
        page = self.shared_page
        if page is None:
            return None
        found = (shared_info.parse(page, word) for word in (8, 4))
        scored = [(shared_info.score(info, self._frame), info) for info in found]
        score, best = max(scored, key=lambda pair: pair[0])
        if score > 0:
            return best
        if all(score < 0 for score, _ in scored):
            self.warnings.append("its shared_info leads to no P2M: the page is damaged")
        return None

    def _frame(self, mfn: int) -> bytes | None:
        try:
            return self.dump.machine.read(mfn * shared_info.PAGE, shared_info.PAGE)
        except AbsentError:
            return None

    @cached_property
    def word(self) -> int:
        """Word size of the guest."""
        if self.shared_info is not None:
            return self.shared_info.word
        controls = [vcpu.control for vcpu in self._raw_vcpus if vcpu.control is not None]
        if controls:
            return max(control.word for control in controls)
        words = [vcpu.word for vcpu in self._raw_vcpus if vcpu.word and vcpu.kind == "pv"]
        return max(words, default=self._xen_word)

    @cached_property
    def kind(self) -> str:
        """ "pv", "hvm", "pvh", "hvm or pvh", "system" (Xen's own) or "unknown"."""
        recorded = self._recorded_kind()
        if recorded is not None:
            return recorded
        if self.shared_info is not None:
            return "pv"
        seen = {vcpu.kind for vcpu in self._raw_vcpus}
        return "pv" if "pv" in seen else "hvm or pvh" if "hvm" in seen else "unknown"

    @cached_property
    def _raw_vcpus(self) -> list[XenVcpu]:
        return self._read_vcpus()

    @cached_property
    def vcpus(self) -> list[XenVcpu]:
        """Its vCPUs in the order of their ids."""
        if self.kind != "pv" or self.word == 8:
            return self._raw_vcpus
        # A 32-bit guest's user space is not always recognised by its registers.
        return [
            vcpu.narrowed() if vcpu.word == 8 and vcpu.registers else vcpu
            for vcpu in self._raw_vcpus
        ]

    @property
    def max_pfn(self) -> int | None:
        """Number of its pfns according to its shared_info."""
        return self.shared_info.max_pfn if self.shared_info else None

    @property
    def is_translated(self) -> bool:
        """Whether it is an HVM or a PVH guest."""
        return self.kind in TRANSLATED

    @property
    def paging(self) -> "Paging":
        """The format of the guest's page tables. Current Xen has no PV guests without PAE."""
        for vcpu in self.vcpus:
            if vcpu.control is not None and vcpu.control.paging is not None:
                return vcpu.control.paging
        return "x86-pae" if self.word == 4 else "x86_64"

    def roots(self) -> list[Root]:
        """Page-table roots that map its kernel, the best first.

        ``p2m_cr3`` is the kernel's own. The root of a vCPU in user space does not map the kernel.
        """
        found: dict[int, Root] = {}
        if self.shared_info is not None and self.shared_info.has_linear:
            root = self.shared_info.root
            found[root] = Root(root, "p2m_cr3 of shared_info")
        for vcpu in self.vcpus:
            if vcpu.root:
                how = f"cr3 of vCPU {vcpu.id}"
                if self.is_translated:
                    for candidate in in_kernel_and_user_space(vcpu.root, how):
                        found.setdefault(candidate.address, candidate)
                else:
                    found.setdefault(vcpu.root, Root(vcpu.root, how))
        return list(found.values())

    def space(self, root: int, paging: "Paging") -> AddressSpace:
        """The address space below a root."""
        return self.dump.virtual(root, paging)

    def spaces(self) -> Iterator[AddressSpace]:
        """The address spaces of ``roots``. A 32-bit guest of 64-bit Xen also has 64-bit roots."""
        for root in self.roots():
            yield self.space(root.address, self.paging)
            if self.word == 4 and self._xen_word == 8 and not self.is_translated:
                yield self.space(root.address, "x86_64")

    @cached_property
    def sources(self) -> list[Source]:
        """The sources of its P2M that need no symbols, the best first."""
        info = self.shared_info
        found = []
        if info is not None and info.has_frame_list:
            found.append(
                Source(
                    "list",
                    f"frame_list_list mfn {info.frame_list_list:#x} of shared_info",
                    lambda: P2M.frame_list(
                        self.dump, info.frame_list_list, _width(info.word), info.max_pfn
                    ),
                )
            )
        if info is not None and info.has_linear:
            found.append(
                Source(
                    "linear",
                    f"p2m_vaddr {info.p2m_vaddr:#x} of shared_info",
                    lambda: P2M.linear(
                        self.dump,
                        self.dump.virtual(info.root, self.paging),
                        info.p2m_vaddr,
                        _width(info.word),
                        info.max_pfn,
                    ),
                )
            )
        return found

    def p2m(self, source: str | None = None) -> P2M:
        """Its P2M, by the first source that works or by the named one.

        AbsentError if it cannot be read.
        """
        problems = []
        for candidate in self.sources:
            if source in (None, candidate.name):
                try:
                    return candidate.open()
                except AbsentError as error:
                    problems.append(f"{candidate.name}: {error}")
        asked = f"P2M source {source!r}" if source else "P2M"
        raise AbsentError(
            f"{self.dump.path}: domain {self.id} offers no {asked}"
            + (f" that can be read: {'; '.join(problems)}" if problems else "")
        )

    def kernel(self, hints: Iterable[int] = ()) -> GuestKernel | None:
        """The Linux kernel that it runs; None if none is recognised.

        ``hints`` are the ``offset`` of other guests' kernels. It is searched for once, or once more
        with other hints.
        """
        hints = tuple(hints)
        known = hints in self._in_vain or len(self._in_vain) >= MAX_DOMAIN_SEARCHES
        if self._kernel is None and not known:
            self._kernel = self._search(hints)
            if self._kernel is None:
                self._in_vain.add(hints)
        return self._kernel

    def _search(self, hints: Iterable[int]) -> GuestKernel | None:
        found = self._find_kernel(hints)
        if found is None and self._kernel_budget.exhausted and self.kind != "system":
            self.warnings.append(f"its kernel is not known: {self._kernel_budget.reason}")
        elif found is None and self.is_left_out:
            self.warnings.append(
                "its memory was left out of the dump (as by makedumpfile -X): its kernel is not "
                "known"
            )
        return found

    @cached_property
    def is_left_out(self) -> bool:
        """Whether the program that wrote the dump excluded the domain's memory."""
        addresses = list(islice(self._own_pages(), MAX_LEFT_OUT_PAGES))
        status = bytearray(len(addresses))
        self.dump.machine.read_many(addresses, 8, status=status)
        from ..status import Status

        return bool(addresses) and all(number == Status.EXCLUDED for number in status)

    def _own_pages(self) -> Iterator[int]:
        """Machine addresses of some pages of its own."""
        for root in () if self.is_translated else self.roots():
            yield root.address & ~(guests.PAGE - 1)

    def _find_kernel(self, hints: Iterable[int]) -> GuestKernel | None:
        for space in self.spaces():
            found = guests.recognise(space, self.word, self._kernel_budget, hints)
            if found is not None:
                return found
        return None


class CoreDomain(XenDomain):
    """The domain of an xl dump-core or xl save file."""

    def __init__(self, dump: Dump) -> None:
        # The file does not have the domain's id.
        super().__init__(dump, 0, 8, guests.search_budget(dump))

    def _read_vcpus(self) -> list[XenVcpu]:
        found = []
        for context in self.dump.vcpu_contexts:
            registers = dict(context["registers"])
            kernel, user = (
                registers.pop("gs_base_kernel", None),
                registers.pop("gs_base_user", None),
            )
            if kernel is not None:
                in_kernel = context["flags"] & _VGCF_IN_KERNEL
                if self.dump.auto_translated:
                    in_kernel = frames.in_kernel(registers)
                registers["gs_base"] = kernel if in_kernel else user
            online = bool(context["flags"] & _VGCF_ONLINE)
            control = None
            if context["efer"] is not None:
                control = hvm.parse((*context["cr"][:5], context["efer"]))
            found.append(
                XenVcpu(
                    id=context["id"],
                    address=None,
                    pcpu=None,
                    state="paused" if online else "offline",
                    running=False,
                    root=context["root"] or None,
                    registers=registers if online else None,
                    where=context["source"] if online else None,
                    kind="hvm" if self.dump.auto_translated else "pv",
                    word=context["word"],
                    control=control,
                )
            )
        return found

    def _read_shared_info(self) -> bytes | None:
        return self.dump.shared_info

    @cached_property
    def shared_info(self) -> SharedInfo | None:
        """None for a saved domain: its P2M has the frames of the host where it was saved."""
        return None if self.dump.is_normalised else super().shared_info

    @property
    def max_pfn(self) -> int | None:
        """Number of its pfns according to its shared_info."""
        page = self.shared_page
        if self.dump.is_normalised and page is not None:
            return shared_info.parse(page, self.word).max_pfn
        return super().max_pfn

    @cached_property
    def _config(self) -> "SavedConfig":
        from . import saved_config

        return saved_config.read(self.dump)

    @property
    def name(self) -> str | None:
        """The name that the toolstack gave it, if a save file has it."""
        return self._config.name

    @property
    def uuid(self) -> "UUID | None":
        """Its UUID, if a save file has it."""
        return self._config.uuid

    def _recorded_kind(self) -> str | None:
        if not self.dump.auto_translated:
            return "pv"
        return self._config.kind if self._config.kind in TRANSLATED else "hvm or pvh"

    def _find_kernel(self, hints: Iterable[int]) -> GuestKernel | None:
        if not self.dump.auto_translated:
            return super()._find_kernel(hints)
        held = self.dump.machine.iter_mapped()
        runs = ((part.address // guests.PAGE, part.size // guests.PAGE) for part in held)
        return guests.recognise_frames(self.dump.machine, runs, self._kernel_budget)

    @property
    def pages(self) -> int | None:
        """``nr_pages`` of the header; of a saved domain, the number of pages in the stream."""
        for note in self.dump.notes:
            if note.kind == "dumpcore_header":
                return int(note.fields["nr_pages"])
        return self.dump.memory_size // guests.PAGE if "save file" in self.dump.format else None


#: vcpu_guest_context.flags: a PV vCPU runs its kernel; the vCPU is up.
_VGCF_IN_KERNEL, _VGCF_ONLINE = 1 << 2, 1 << 5


def _width(word: int) -> Literal[4, 8]:
    return 4 if word == 4 else 8
