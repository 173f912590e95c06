"""Locks of Xen that are held: of its global data, of pCPUs and of domains.

A ticket lock (Xen 4.6 on, 45fcc4568c) is held while its head is not its tail, and says nothing of
its owner unless it is recursive or the build has CONFIG_DEBUG_LOCKS. A rwlock has the CPU of its
writer; readers of percpu rwlocks are in per-CPU variables.
"""

from collections.abc import Iterator

from .._native import AbsentError, MemoryFault
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_LOCK_READS, MAX_PCPUS
from .memory import XenMemory
from .structs import Structs

if TYPE_CHECKING:
    from .host import HostDomain, XenHost

#: Global spinlocks that have these names in all versions from 4.11 on, and recursive ones.
_GLOBAL = (
    "accounting_lock",
    "call_lock",
    "cpupool_lock",
    "crash_notes_lock",
    "domctl_lock",
    "domlist_update_lock",
    "flush_lock",
    "heap_lock",
    "map_pgdir_lock",
    "payload_lock",
    "pci_config_lock",
    "platform_timer_lock",
    "pool_list_lock",
    "rtc_lock",
    "sched_free_cpu_lock",
    "sysctl_lock",
    "tasklet_lock",
    "vector_lock",
    "vm_lock",
    "xenpf_lock",
)
_RECURSIVE = ("_pcidevs_lock", "console_lock")
#: Members of a struct domain, and of its grant table.
_OF_DOMAIN = (
    "domain_lock",
    "page_alloc_lock",
    "event_lock",
    "rangesets_lock",
    "shutdown_lock",
    "hypercall_deadlock_mutex",
    "arch.paging.lock",
    "arch.e820_lock",
)
_OF_TABLE = ("lock", "maptrack_lock")
#: Per-CPU variables that hold the percpu rwlock that a CPU has for reading.
_READERS = ("per_cpu__grant_rwlock", "per_cpu__p2m_percpu_rwlock")
#: Bits of rwlock_t.cnts for the writer's CPU, below those of the writer: 4.19 (77b219f915) raised
#: them with the number of CPUs that a lock can name, as bfbec024b8 split recursive locks off.
_NEW_SHIFT, _OLD_SHIFT = 14, 12
_LOCKED = 3
_MAX_NAME = 64


class Held(NamedTuple):
    """A lock that is held."""

    #: As in Xen's sources, without the struct.
    name: str
    address: int
    #: "locked", "write" or "read".
    mode: str
    #: The CPUs that hold it; empty if they are not recorded.
    cpus: list[int]
    #: The function that took it, if that is recorded.
    function: str | None
    #: How many CPUs wait for it, or how many readers hold it; None if it is not known.
    waiters: int | None
    readers: int | None
    problem: str | None = None

    def __str__(self) -> str:
        modes = {"write": ["for writing"], "read": ["for reading"]}
        parts = list(modes.get(self.mode, []))
        if self.cpus:
            parts.append(f"by CPU {', '.join(map(str, self.cpus))}")
        if self.function is not None:
            parts.append(f"in {self.function}")
        if self.readers is not None:
            parts.append(f"{self.readers} reader{'' if self.readers == 1 else 's'}")
        if self.waiters:
            parts.append(f"{self.waiters} waiting")
        if self.problem is not None:
            parts.append("damaged")
        return self.name + (f" ({', '.join(parts)})" if parts else "")


class Locks(NamedTuple):
    """The held locks of a host."""

    of_xen: list[Held]
    #: By pCPU.
    of_pcpus: dict[int, list[Held]]
    #: By domain.
    of_domains: dict[int, list[Held]]
    #: What owners are recorded for in this build.
    note: str
    warnings: list[str]
    #: Whether the locks of domains are among them; else those at symbols only.
    complete: bool


def read(xen: "XenHost") -> Locks:
    """Every lock that is held, of those that are known; AbsentError without Xen's symbols."""
    if xen.symbols is None:
        raise AbsentError(f"{xen.dump.path}: locks need Xen's symbols. Try: --xen-syms")
    domains = xen.domains()
    with xen.memory.budget("locks", MAX_LOCK_READS):
        reader = Reader(xen)
        return Locks(
            of_xen=list(reader.of_xen()),
            of_pcpus=dict(reader.of_pcpus()),
            of_domains={one.id: list(reader.of_domain(one)) for one in domains},
            note=reader.note,
            warnings=reader.warnings,
            complete=reader.complete,
        )


class Reader:
    """Reads locks by the types in DWARF; without it, those at symbols whose type is known."""

    def __init__(self, xen: "XenHost") -> None:
        self._xen = xen
        self._memory: XenMemory = xen.memory
        self.warnings: list[str] = []
        self._structs: Structs | None = None
        try:
            self._structs = xen.structs
        except AbsentError as error:
            self.warnings.append(f"locks of domains, and owners of locks, are not known: {error}")
        if self._structs is not None and not self._structs.has("spinlock_t.tickets"):
            raise AbsentError("locks are known from Xen 4.6 on only (no spinlock_t.tickets)")
        self._readers: dict[int, list[int]] | None = None

    @property
    def complete(self) -> bool:
        """Whether the locks within Xen's structs are known."""
        return self._structs is not None

    @property
    def note(self) -> str:
        """Which owners the build records."""
        if self._structs is None:
            return "owners are not known"
        if self._structs.has("spinlock_t.debug.cpu"):
            return "the build records the owners of locks (CONFIG_DEBUG_LOCKS)"
        return "the build records the owners of recursive locks and of writers only"

    def of_xen(self) -> Iterator[Held]:
        """Those of Xen's global locks."""
        symbols = self._xen.symbols
        kinds = [(name, "spinlock_t") for name in _GLOBAL]
        kinds += [(name, self._recursive) for name in _RECURSIVE]
        for name, kind in sorted(kinds):
            at = None if symbols is None else symbols.get(name)
            if at is not None:
                yield from self._held(name, kind, at)

    @property
    def _recursive(self) -> str:
        """The type of recursive locks."""
        if self._structs is not None and self._structs.has("rspinlock_t.tickets"):
            return "rspinlock_t"
        return "spinlock_t"

    def of_pcpus(self) -> Iterator[tuple[int, list[Held]]]:
        """Those of the timers and of the run queue of each pCPU with notes."""
        for number in sorted({pcpu.number for pcpu in self._xen.pcpus}):
            found: list[Held] = []
            timers = self._per_cpu("per_cpu__timers", number)
            if timers is not None:
                found += self._held("timers.lock", "spinlock_t", timers)
            resource = self._per_cpu("per_cpu__sched_res", number)
            at = None if resource is None else self._memory.pointer(resource)
            structs = self._structs
            if structs is not None and at and self._memory.is_xen(at):
                lock = structs.pointer("sched_resource.schedule_lock", at)
                if lock is not None:
                    found += self._held("schedule_lock", "spinlock_t", lock)
            yield number, found

    def of_domain(self, domain: "HostDomain") -> Iterator[Held]:
        """Those of a domain, of its grant table and its P2M, and of its vCPUs' virqs."""
        structs = self._structs
        if structs is None:
            return
        for name in _OF_DOMAIN:
            yield from self._member(f"domain.{name}", domain.address, name)
        table = structs.pointer("domain.grant_table", domain.address)
        for name in _OF_TABLE if table is not None else ():
            yield from self._member(f"grant_table.{name}", table or 0, f"grant_table.{name}")
        p2m = structs.pointer("domain.arch.p2m", domain.address)
        if p2m is not None:
            yield from self._member("p2m_domain.lock", p2m, "p2m.lock")
        for vcpu in domain.vcpus:
            if vcpu.address is not None:
                name = f"vcpu {vcpu.id} virq_lock"
                yield from self._member("vcpu.virq_lock", vcpu.address, name)

    def _member(self, path: str, address: int, name: str) -> Iterator[Held]:
        structs = self._structs
        if structs is not None and structs.has(path):
            member = structs.types.member(path)
            kind = getattr(member, "type_name", "")
            yield from self._held(name, kind, address + member.offset)

    def _per_cpu(self, name: str, number: int) -> int | None:
        """The address of a CPU's instance of a per-CPU variable."""
        symbols = self._xen.symbols
        at = None if symbols is None else symbols.get(name)
        offsets = [] if symbols is None else symbols.all("__per_cpu_offset")
        if at is None or len(offsets) != 1 or not 0 <= number < MAX_PCPUS:
            return None
        word = self._memory.word
        offset = self._memory.pointer(offsets[0].address + number * word)
        return None if offset is None else at + offset & (1 << 8 * word) - 1

    # Kinds of locks.

    def _held(self, name: str, kind: str, address: int) -> Iterator[Held]:
        """The lock if it is held."""
        found = None
        if kind in ("spinlock_t", "rspinlock_t"):
            found = self._spinlock(name, kind, address)
        elif kind == "rwlock_t":
            found = self._rwlock(name, address)
        elif kind == "percpu_rwlock_t":
            found = self._percpu_rwlock(name, address)
        elif kind in ("mm_lock_t", "mm_rwlock_t"):
            yield from self._mm_lock(name, kind, address)
            return
        if found is not None:
            yield found

    def _spinlock(self, name: str, kind: str, address: int) -> Held | None:
        tickets = self._memory.number(address, 4)
        if tickets is None:
            self.warnings.append(f"{name} at {address:#x} cannot be read")
            return None
        head, tail = tickets & 0xFFFF, tickets >> 16
        if head == tail:
            return None
        waiters = (tail - head & 0xFFFF) - 1
        problem = f"{waiters} waiters: it is no lock" if waiters >= MAX_PCPUS else None
        cpu = self._owner(kind, address)
        return Held(
            name, address, "locked", [] if cpu is None else [cpu], None, waiters, None, problem
        )

    def _owner(self, kind: str, address: int) -> int | None:
        """The CPU that holds a spinlock, if it is recorded."""
        structs = self._structs
        if structs is None:
            return None
        for path in (f"{kind}.debug.cpu", f"{kind}.recurse_cpu"):
            if structs.has(path):
                field = structs.field(path)
                width = field.size * 8 if field.bits is None else field.bits[1]
                data = self._memory.read(address, field.offset + field.size)
                cpu = None if data is None else field.of(data)
                # All ones without an owner.
                if cpu is not None and cpu != (1 << width) - 1 and cpu < MAX_PCPUS:
                    return cpu
        return None

    def _rwlock(self, name: str, address: int) -> Held | None:
        structs = self._structs
        counts = None if structs is None else structs.number("rwlock_t.cnts.counter", address)
        if structs is None or counts is None:
            return None
        shift = _NEW_SHIFT if structs.has("rspinlock_t.tickets") else _OLD_SHIFT
        if counts >> shift & _LOCKED == _LOCKED:
            cpu = counts & (1 << shift) - 1
            return Held(name, address, "write", [cpu], None, None, None)
        readers = (counts & 0xFFFF_FFFF) >> shift + 2
        return Held(name, address, "read", [], None, None, readers) if readers else None

    def _percpu_rwlock(self, name: str, address: int) -> Held | None:
        structs = self._structs
        if structs is None:
            return None
        at = address + structs.member("percpu_rwlock_t.rwlock").offset
        found = self._rwlock(name, at)
        if found is not None and found.mode == "write":
            return found._replace(address=address)
        cpus = self._by_reader.get(address, [])
        readers = len(cpus) + (0 if found is None else found.readers or 0)
        return Held(name, address, "read", cpus, None, None, readers) if readers else None

    @property
    def _by_reader(self) -> dict[int, list[int]]:
        """The CPUs that hold percpu rwlocks for reading, by the lock."""
        if self._readers is None:
            self._readers = {}
            for variable in _READERS:
                for number in sorted({pcpu.number for pcpu in self._xen.pcpus}):
                    at = self._per_cpu(variable, number)
                    lock = None if at is None else self._memory.pointer(at)
                    if lock:
                        self._readers.setdefault(lock, []).append(number)
        return self._readers

    def _mm_lock(self, name: str, kind: str, address: int) -> Iterator[Held]:
        """A lock of memory management, which has the function that took it."""
        structs = self._structs
        if structs is None:
            return
        member = structs.types.member(f"{kind}.lock")
        inner = getattr(member, "type_name", "")
        for one in self._held(name, inner, address + member.offset):
            cpus = one.cpus
            if one.mode == "write" and structs.has(f"{kind}.locker"):
                locker = structs.number(f"{kind}.locker", address)
                cpus = cpus if locker is None or locker >= MAX_PCPUS else [locker]
            yield one._replace(cpus=cpus, function=self._function(kind, address))

    def _function(self, kind: str, address: int) -> str | None:
        structs = self._structs
        at = None if structs is None else structs.pointer(f"{kind}.locker_function", address)
        if at is None:
            return None
        try:
            text = self._memory.virtual.cstring(at, _MAX_NAME)
        except MemoryFault:
            return None
        return "".join(c if c.isprintable() else "?" for c in text.decode("latin-1")) or None
