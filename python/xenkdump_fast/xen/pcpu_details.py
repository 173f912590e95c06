"""What Xen records of its pCPUs beyond their registers."""

from .._native import AbsentError, Symbol
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_CPU_MASK, MAX_PCPU_READS, MAX_PCPUS
from . import compat, crash_info
from .domains import DOMID_IDLE
from .layout import Layout
from .pcpus import Pcpu
from .structs import Structs

if TYPE_CHECKING:
    from .host import XenHost

#: The softirqs of all architectures; those of x86 are numbered behind them.
_SOFTIRQS = (
    "TIMER_SOFTIRQ",
    "RCU_SOFTIRQ",
    "SCHED_SLAVE_SOFTIRQ",
    "SCHEDULE_SOFTIRQ",
    "NEW_TLBFLUSH_CLOCK_PERIOD_SOFTIRQ",
    "TASKLET_SOFTIRQ",
)
#: The stack of a pCPU in Xen 4. ``Pcpu.stack`` may be its upper part.
_STACK_SIZE: int = compat.values("stack size 8")[-1]


class VcpuName(NamedTuple):
    """A vCPU that a pCPU leads to. What is not known is None."""

    address: int
    domain: int | None
    id: int | None

    @property
    def is_idle(self) -> bool:
        """Whether it is one of Xen's idle vCPUs."""
        return self.domain == DOMID_IDLE

    def __str__(self) -> str:
        """As in Xen's messages: ``d1v0``, ``d[IDLE]v1``."""
        domain = "[IDLE]" if self.is_idle else "?" if self.domain is None else self.domain
        return f"d{domain}v{'?' if self.id is None else self.id}"


class PcpuDetails(NamedTuple):
    """A pCPU. What is not known is None."""

    number: int
    #: With the registers of the notes; None without notes.
    pcpu: Pcpu | None
    online: bool | None
    apic_id: int | None
    #: The range of its Xen stack.
    stack: tuple[int, int] | None
    idle: VcpuName | None
    #: The vCPU that it runs.
    current: VcpuName | None
    #: The vCPU whose registers are still loaded although ``current`` is the idle vCPU.
    loaded: VcpuName | None
    #: The start of its per-CPU area.
    per_cpu: int | None
    #: Pending softirqs, as bits and by name.
    softirqs: int | None
    softirq_names: list[str]


def read(xen: "XenHost") -> tuple[list[PcpuDetails], list[str]]:
    """Every pCPU by its number, and warnings."""
    # It may be inferred, with budgets of its own.
    layout = xen.layout
    with xen.memory.budget("details of pCPUs", MAX_PCPU_READS):
        reader = _Reader(xen, layout)
        rows = [reader.row(number) for number in reader.numbers]
    return rows, reader.warnings


class _Reader:
    def __init__(self, xen: "XenHost", layout: Layout) -> None:
        self._xen = xen
        self._layout = layout
        self._memory = xen.memory
        self.warnings: list[str] = []
        self._structs: Structs | None = None
        try:
            self._structs = xen.structs
        except AbsentError as error:
            self.warnings.append(f"pending softirqs are not known: {error}")
        version = crash_info.version(crash_info.read(xen.dump))
        self._is_4 = version is not None and version.startswith("4.")
        self._pcpus: dict[int, Pcpu] = {}
        for pcpu in xen.pcpus:
            if pcpu.number in self._pcpus:
                self.warnings.append(f"two pCPUs have the number {pcpu.number}")
            self._pcpus.setdefault(pcpu.number, pcpu)
        offsets = self._symbol("__per_cpu_offset")
        #: The number of CPUs that Xen was built for, 0 if it is not known.
        self._built_for = 0
        if offsets is not None:
            self._built_for = min(offsets.size // self._memory.word, MAX_PCPUS)
        # When Xen crashes it takes all of them offline.
        self._online = self._mask("cpu_online_map") or None
        numbers = set(self._pcpus)
        others = [n for n in range(self._built_for) if n not in numbers and self._idle(n)]
        missing = [n for n in others if self._online is not None and self._online >> n & 1]
        if missing:
            shown = ", ".join(map(str, missing[:8])) + (", ..." if missing[8:] else "")
            self.warnings.append(f"pCPUs are online but have no notes: {shown}")
        self.numbers = sorted(numbers.union(others))

    def _symbol(self, name: str) -> Symbol | None:
        symbols = self._xen.symbols
        found = [] if symbols is None else symbols.all(name)
        return found[0] if len(found) == 1 else None

    def _mask(self, name: str) -> int | None:
        symbol = self._symbol(name)
        if symbol is None or not 0 < symbol.size <= MAX_CPU_MASK:
            return None
        data = self._memory.read(symbol.address, symbol.size)
        return None if data is None else int.from_bytes(data, "little")

    def _element(self, name: str, number: int, size: int | None = None) -> int | None:
        """An element of an array that has one for each CPU."""
        symbol = self._symbol(name)
        if symbol is None or not 0 <= number < self._built_for:
            return None
        if size is None:
            size = symbol.size // self._built_for
        if size not in (1, 2, 4, 8) or size * self._built_for != symbol.size:
            return None
        return self._memory.number(symbol.address + number * size, size)

    def _idle(self, number: int) -> int | None:
        """The address of a pCPU's idle vCPU."""
        return self._element("idle_vcpu", number, self._memory.word)

    def _stack(self, pcpu: Pcpu | None) -> tuple[int, int] | None:
        """The range of a stack, all of it where its size is known."""
        if pcpu is None or pcpu.stack is None:
            return None
        low, high = pcpu.stack
        if self._xen.word == 8 and self._is_4 and high % _STACK_SIZE == 0:
            low = high - _STACK_SIZE
        return low, high

    def _vcpu(self, address: int | None) -> VcpuName | None:
        if not address or not self._memory.is_xen(address):
            return None
        layout, facts = self._layout, self._xen.facts
        back, id_at = layout.get("vcpu.domain"), layout.get("vcpu.id")
        owner = None if back is None else self._memory.pointer(address + back)
        domain = None
        if owner is not None and self._memory.is_xen(owner):
            domain = self._memory.number(owner + facts.id, 2)
        number = None if id_at is None else self._memory.number(address + id_at, 4)
        return VcpuName(address, domain, number)

    def row(self, number: int) -> PcpuDetails:
        """One pCPU."""
        pcpu = self._pcpus.get(number)
        symbols = self._xen.symbols
        offset = self._element("__per_cpu_offset", number, self._memory.word)
        current = self._vcpu(pcpu.vcpu if pcpu is not None else None)
        loaded = start = None
        if offset is not None and symbols is not None:
            last = (1 << self._memory.word * 8) - 1
            first = symbols.get("__per_cpu_start")
            start = None if first is None else first + offset & last
            at = symbols.get("per_cpu__curr_vcpu")
            if at is not None:
                loaded = self._vcpu(self._memory.pointer(at + offset & last))
            self._compare(pcpu, offset)
        if loaded is not None and current is not None and loaded.address == current.address:
            loaded = None
        pending, names = self._softirqs(number)
        return PcpuDetails(
            number=number,
            pcpu=pcpu,
            online=None if self._online is None else bool(self._online >> number & 1),
            apic_id=self._element("x86_cpu_to_apicid", number),
            idle=self._vcpu(self._idle(number)),
            stack=self._stack(pcpu),
            current=current,
            loaded=loaded,
            per_cpu=start,
            softirqs=pending,
            softirq_names=names,
        )

    def _compare(self, pcpu: Pcpu | None, offset: int) -> None:
        """Warns if the struct cpu_info on the stack has another per-CPU offset."""
        structs = self._structs
        if structs is None or pcpu is None or pcpu.stack is None:
            return
        try:
            at = pcpu.stack[1] - structs.size("struct cpu_info")
        except AbsentError:
            return
        own = structs.number("cpu_info.per_cpu_offset", at)
        if own is not None and own != offset:
            self.warnings.append(
                f"pCPU {pcpu.number}: the per-CPU offset on its stack, {own:#x}, is not that of "
                f"__per_cpu_offset, {offset:#x}"
            )

    def _softirqs(self, number: int) -> tuple[int | None, list[str]]:
        structs, symbol = self._structs, self._symbol("irq_stat")
        path = "irq_cpustat_t.__softirq_pending"
        if structs is None or symbol is None or not structs.has(path):
            return None, []
        size = structs.size("irq_cpustat_t")
        if (number + 1) * size > symbol.size:
            return None, []
        found = structs.number(path, symbol.address + number * size)
        if found is None:
            return None, []
        known = {structs.enumerator(name): name for name in _SOFTIRQS}
        bits = [bit for bit in range(32) if found >> bit & 1]
        return found, [known.get(bit, f"softirq {bit}") for bit in bits]
