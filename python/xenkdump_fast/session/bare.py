"""A domain as a bare machine: memory whose page tables hold pfns, and the registers of its CPUs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .._native import P2M, AbsentError, AddressSpace, Dump, MemoryFault, PageTables
from ..diagnostics import Warnings
from ..limits import MAX_PROCESS_ROOTS, MAX_ROOTS
from ..linux.boot import vmcoreinfo
from ..linux.mm import page_table, page_tables
from ..linux.system import Linux
from ..linux.tasks import Task
from .dump_file import DumpFile
from .platform import Platform

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .._native import Paging

PAGE = 4096
#: The address in an entry of a page table.
_ADDRESS = 0x000F_FFFF_FFFF_F000
#: Variables whose first word tells crash that a kernel runs on Xen (its is_pvops_xen()), with the
#: symbols that are such values; any but 0 is one if there are none. Linux has pv_init_ops up to
#: 4.19.
_XEN_WORDS: Mapping[str, tuple[str, ...]] = {
    "xen_start_info": (),
    "pv_init_ops": ("xen_patch", "paravirt_patch_default"),
}


class CpuState(NamedTuple):
    """The registers of a CPU."""

    #: The kernel's number of the CPU, or Xen's of the vCPU if the kernel does not have it.
    number: int
    #: Known registers by name; what is absent is not known.
    registers: Mapping[str, int]
    #: Control registers: cr0, cr3 (with a pfn), cr4 and efer, as far as they are known.
    control: Mapping[str, int]
    #: Where the registers were saved, in words.
    source: str
    #: Whether the vCPU was on a pCPU.
    running: bool


class AlteredWord(NamedTuple):
    """A word whose value is not the one in memory."""

    #: Its physical address.
    address: int
    #: Its size in bytes.
    size: int
    original: int
    value: int
    reason: str


class Domain(Protocol):
    """What is needed of a domain: ``session.Domain`` is one."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def dump(self) -> DumpFile:
        """The dump that it is in."""

    @property
    def kernel(self) -> Linux:
        """Its kernel."""

    @property
    def has_p2m(self) -> bool:
        """Whether it has a P2M that can be read."""

    @property
    def p2m(self) -> P2M:
        """Its P2M."""


def held_pages(machine: AddressSpace) -> "NDArray[np.uint64]":
    """The runs of whole pages that a dump holds, ascending: the first frame and the count."""
    import numpy as np

    rows: list[list[int]] = []
    for held in machine.iter_mapped():
        start = -(-held.address // PAGE)
        count = (held.address + held.size) // PAGE - start
        if count > 0 and rows and sum(rows[-1]) == start:
            rows[-1][1] += count
        elif count > 0:
            rows.append([start, count])
    return np.array(rows, np.uint64).reshape(-1, 2)


class BareMachine:
    """A domain's memory and CPUs as if it ran on a bare machine.

    Bare machines, translated guests (HVM, PVH) and files of ``xl save`` are their own view. Page
    tables of other PV domains hold mfns: here they hold pfns, and entries that lead to frames which
    are not the domain's own are absent. It is valid as long as its dump is open.
    """

    def __init__(self, domain: Domain, platform: Platform, kernel: Linux | None) -> None:
        """``kernel`` is None in a bare machine or translated guest that does not run Linux."""
        self.domain = domain
        self._platform = platform
        self._kernel = kernel
        self._warnings = Warnings()
        root, paging, word = self._by_vcpus() if kernel is None else _by_kernel(kernel)
        self._mask: int | None = None if kernel is None else kernel.location.encryption_mask
        #: The kernel's word size in bytes.
        self.word: int = word
        #: The format of the page tables.
        self.paging: Paging = paging
        #: The physical address of the kernel's top page table; without a kernel that of the first
        #: vCPU with paging, 0 if there is none.
        self.root: int = root
        #: The page tables that are rewritten; None if the domain is its own view.
        self.tables: PageTables | None = None
        #: Words that differ from memory, beside entries of page tables.
        self.altered: Sequence[AlteredWord] = ()
        #: A dump whose machine addresses are the domain's physical ones.
        self.native: Dump = platform.native
        if not platform.identity:
            self._rewrite(root)
        elif platform.native.domain_kind == "pv":
            self.altered = list(self._hide_xen())
            if self.altered:
                words = [(word.address, word.value, word.size) for word in self.altered]
                self.native, _ = platform.native.bare(None, paging, [], altered=words)

    def __repr__(self) -> str:
        view = "its own view" if self.tables is None else f"{len(self.tables)} page tables"
        return f"<BareMachine of {self.domain!r}: {view}>"

    def _by_vcpus(self) -> "tuple[int, Paging, int]":
        """The root, the format of its page tables and the word size, without a kernel."""
        vcpus = self._platform.vcpus()
        word = 8 if any("rip" in vcpu.registers for vcpu in vcpus) else self._platform.native.word
        roots = (vcpu.control.get("cr3", 0) & _ADDRESS for vcpu in vcpus)
        return next(filter(None, roots), 0), "x86_64" if word == 8 else "x86-pae", word

    def _rewrite(self, root: int) -> None:
        domain, native = self.domain, self.domain.dump.native
        p2m = domain.p2m
        if self.word == 4 and self.paging.startswith("x86_64"):
            # A 32-bit guest of a 64-bit Xen, which adds a level above the guest's own tables.
            self.paging = "x86-pae"
        root = self._own_root(root)
        self.root = self._pfn(root)
        self.altered = list(self._hide_xen())
        words = [(word.address, word.value, word.size) for word in self.altered]
        roots = list(dict.fromkeys([root, *self._roots()]))
        table = self._platform.frame_table()
        self.native, found = native.bare(p2m, self.paging, roots, frame_table=table, altered=words)
        self.tables = found
        for text in _doubts(found, table is not None):
            self._warn(text)

    def _pfn(self, machine: int) -> int:
        """The physical address of a machine address of the domain; AbsentError."""
        return self.domain.p2m.reverse(machine // PAGE) * PAGE + machine % PAGE

    def _own_root(self, machine: int) -> int:
        """The machine address of the domain's own root below Xen's: see ``_rewrite``."""
        if self.paging != "x86-pae":
            return machine
        try:
            self._pfn(machine)
        except AbsentError:
            entry = self.domain.dump.native.machine.u64(machine & -PAGE)
            if entry & 1:
                return entry & _ADDRESS
        return machine

    def _roots(self) -> Iterator[int]:
        """Machine addresses of top page tables: of processes, and of vCPUs."""
        kernel = self.domain.kernel
        try:
            for address in islice(page_tables(kernel, kernel.tasks()), MAX_PROCESS_ROOTS):
                with suppress(MemoryFault):
                    yield kernel.virtual.translate(address)
        except AbsentError as error:
            self._warn(f"page tables of processes may be missing: {error}")
        # Those of other domains are not among its frames.
        roots = chain(self._platform.own_roots(), self._platform.roots())
        for root in islice(roots, MAX_ROOTS):
            with suppress(MemoryFault):
                yield self._own_root(root.address)

    def _hide_xen(self) -> Iterator[AlteredWord]:
        """Words by which crash recognises a kernel on Xen: it would convert mfns once more."""
        kernel = self._kernel
        if kernel is None:
            return
        for name, values in _XEN_WORDS.items():
            address = kernel.symbols.get(name)
            if address is None:
                continue
            telling = {kernel.symbols.get(value) for value in values}
            try:
                original = kernel.virtual.word(address, kernel.word)
                if not original or (values and original not in telling):
                    continue
                machine = kernel.virtual.translate(address)
                physical = machine if self._platform.identity else self._pfn(machine)
            except AbsentError as error:
                self._warn(f"{name} cannot be hidden: {error}")
                continue
            reason = f"{name}: by its value crash takes the domain for a Xen guest"
            yield AlteredWord(physical, kernel.word, original, 0, reason)

    def _warn(self, text: str) -> None:
        self._warnings.add(text)

    @cached_property
    def memory(self) -> AddressSpace:
        """Physical memory."""
        return self.native.machine

    @cached_property
    def virtual(self) -> AddressSpace:
        """The kernel's virtual memory."""
        return self._space(self.root)

    def _space(self, root: int) -> AddressSpace:
        if self._mask is None:
            return self.native.virtual(root, self.paging)
        return self.native.virtual(root, self.paging, encryption_mask=self._mask)

    def user(self, task: Task) -> AddressSpace:
        """The address space of a task: its process's user memory, and the kernel's.

        Raises AbsentError if the task has no user space, or if its top page table cannot be found.
        """
        return self._space(self.virtual.translate(page_table(self.domain.kernel, task)))

    @cached_property
    def cpus(self) -> Sequence[CpuState]:
        """The registers of its CPUs, by number."""
        return list(self._cpus())

    def _cpus(self) -> Iterator[CpuState]:
        vcpus = {vcpu.number: vcpu for vcpu in self._platform.vcpus()}
        found = []
        contexts = {} if self._kernel is None else self._kernel.contexts
        for number, context in contexts.items():
            vcpu = None if context.vcpu is None else vcpus.pop(context.vcpu, None)
            control = {} if vcpu is None else vcpu.control
            if context.qemu_cpu is not None:
                control = self._platform.control(context.qemu_cpu)
            running = vcpu is None or vcpu.running
            found.append((number, context.registers, control, context.where, running))
        # Those that the kernel does not have, and those without registers.
        numbers = {number for number, *_ in found}
        for vcpu in vcpus.values():
            if vcpu.number not in numbers:
                where = vcpu.where or "no registers"
                found.append((vcpu.number, vcpu.registers, vcpu.control, where, vcpu.running))
        for number, registers, control, where, running in sorted(found, key=lambda cpu: cpu[0]):
            yield CpuState(number, dict(registers), self._bare(control), where, running)

    def _bare(self, control: Mapping[str, int]) -> Mapping[str, int]:
        """Control registers with a pfn in cr3."""
        if self.tables is None or "cr3" not in control:
            return dict(control)
        without = {name: value for name, value in control.items() if name != "cr3"}
        try:
            return without | {"cr3": self._pfn(self._own_root(control["cr3"]))}
        except AbsentError as error:
            self._warn(f"the cr3 {control['cr3']:#x} of a vCPU is not the domain's: {error}")
            return without

    @cached_property
    def vmcoreinfo(self) -> bytes:
        """The text of the kernel's own VMCOREINFO; empty if there is none."""
        kernel = self._kernel
        if kernel is None:
            return self._platform.vmcoreinfo_text
        own = vmcoreinfo.text_in_memory(kernel.symbols, kernel.virtual, kernel.word)
        return own or self._platform.vmcoreinfo_text

    def runs(self) -> "NDArray[np.uint64]":
        """The runs of pages that are held, ascending: shape (n, 2), the first pfn and the count."""
        import numpy as np

        if self.domain.has_p2m:
            return np.frombuffer(self.domain.p2m.held(), "<u8").reshape(-1, 2).copy()
        return held_pages(self.native.machine)

    @property
    def warnings(self) -> Sequence[str]:
        """What rests on an assumption, or is missing."""
        return self._warnings.texts()


def _by_kernel(kernel: Linux) -> "tuple[int, Paging, int]":
    """The root, the format of its page tables and the word size of a kernel."""
    return kernel.location.root, kernel.location.paging, kernel.word


def _doubts(found: PageTables, has_table: bool) -> Iterator[str]:
    """What the search for page tables does not know for certain."""
    if found.typed is None:
        why = "the dump has no frame table of Xen"
        if has_table:
            why = "Xen's frame table does not agree with the page tables"
        yield (
            f"page tables were found only by walking from the roots that are known ({why}): others "
            "hold mfns"
        )
    if found.conflicts:
        yield (
            f"{found.conflicts} page tables have another level in Xen's frame table than in the "
            "tables above them; Xen's is used"
        )
    if found.untyped:
        yield (
            f"{found.untyped} pages below page tables are no page tables in Xen's frame table; "
            "they are taken for page tables"
        )
    if found.unreadable:
        yield f"{found.unreadable} page tables cannot be read: those below them may hold mfns"
    if found.unread:
        yield (
            f"{found.unread} elements of Xen's frame table cannot be read: page tables that only "
            "it leads to may hold mfns"
        )
    if found.exhausted:
        yield "more page tables were found than the dump can hold: the others hold mfns"
