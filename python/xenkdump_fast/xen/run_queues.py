"""The run queues of Xen's schedulers credit and credit2.

Since Xen 4.13 units are scheduled: a vCPU each, or several with core scheduling.
"""

from .._native import AbsentError, MemoryFault
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_PCPUS, MAX_SCHEDULER_NAME, MAX_SCHEDULER_READS
from .domains import DOMID_IDLE
from .structs import CpuMask, Structs

if TYPE_CHECKING:
    from .host import XenHost

#: ``csched_unit.pri`` (CSCHED_PRI_*).
_PRIORITIES = {0: "boost", -1: "under", -2: "over", -64: "idle"}


class Unit(NamedTuple):
    """A vCPU as it is scheduled. What the scheduler does not have is None."""

    domain: int | None
    #: The first of its vCPUs.
    vcpu: int | None
    credit: int | None
    weight: int | None
    #: "boost", "under", "over" or "idle", by credit.
    priority: str | None

    def __str__(self) -> str:
        domain = "?" if self.domain is None else self.domain
        number = "?" if self.vcpu is None else self.vcpu
        return f"d{'[IDLE]' if domain == DOMID_IDLE else domain}v{number}"


class Running(NamedTuple):
    """What a pCPU of a run queue runs."""

    pcpu: int
    unit: Unit | None


class RunQueue(NamedTuple):
    """A run queue: of credit2 for some pCPUs, of credit for one."""

    scheduler: str
    id: int
    load: int | None
    #: The pCPUs that take units from it.
    cpus: CpuMask | None
    running: list[Running]
    #: The units that wait, the next one first.
    waiting: list[Unit]
    #: Why ``waiting`` is incomplete; None if it is not.
    problem: str | None = None


def read(xen: "XenHost") -> tuple[list[RunQueue], list[str]]:
    """The run queues, and warnings; AbsentError without the layouts of the scheduler."""
    structs, resources = xen.scheduler
    for path in ("sched_resource.scheduler", "sched_unit.priv"):
        if not structs.has(path):
            raise AbsentError(f"run queues are known from Xen 4.13 on only (xen-syms: no {path})")
    with xen.memory.budget("run queues", MAX_SCHEDULER_READS):
        return _Reader(xen, structs, resources).read()


class _Reader:
    def __init__(self, xen: "XenHost", structs: Structs, resources: dict[int, int] | None) -> None:
        """``resources`` are the struct sched_resource of pCPUs, if symbols need not lead there."""
        self._xen = xen
        self._known = resources
        self._structs = structs
        self._memory = xen.memory
        self._warnings: list[str] = []

    def read(self) -> tuple[list[RunQueue], list[str]]:
        queues: dict[int, RunQueue] = {}
        for pcpu, resource in self._resources():
            scheduler = self._structs.pointer("sched_resource.scheduler", resource)
            name = self._name(scheduler)
            private = self._structs.pointer("sched_resource.sched_priv", resource)
            current = self._structs.pointer("sched_resource.curr", resource)
            running = Running(pcpu, None if current is None else self._unit(current, name))
            try:
                key, queue = self._queue(name, pcpu, scheduler, private, queues)
            except AbsentError as error:
                self._warnings.append(f"pCPU {pcpu}: {error}")
                key, queue = -1 - pcpu, RunQueue(name, pcpu, None, None, [], [], str(error))
            queues.setdefault(key, queue).running.append(running)
        if not queues:
            raise AbsentError(f"{self._xen.dump.path}: no pCPU leads to a scheduler")
        return sorted(queues.values(), key=lambda queue: queue.id), self._warnings

    def _resources(self) -> list[tuple[int, int]]:
        """The ``struct sched_resource`` of each pCPU."""
        if self._known is not None:
            for number in sorted({pcpu.number for pcpu in self._xen.pcpus} - set(self._known)):
                self._warnings.append(f"pCPU {number}: no vCPU leads to its scheduler")
            return list(self._known.items())
        symbols = self._xen.symbols
        at = None if symbols is None else symbols.get("per_cpu__sched_res")
        offsets = [] if symbols is None else symbols.all("__per_cpu_offset")
        if at is None or len(offsets) != 1:
            raise AbsentError("xen-syms has no per_cpu__sched_res or no __per_cpu_offset")
        word = self._memory.word
        last = (1 << word * 8) - 1
        count = min(offsets[0].size // word, MAX_PCPUS)
        found: list[tuple[int, int]] = []
        for pcpu in sorted({pcpu.number for pcpu in self._xen.pcpus}):
            offset = None
            if pcpu < count:
                offset = self._memory.pointer(offsets[0].address + pcpu * word)
            resource = None if offset is None else self._memory.pointer(at + offset & last)
            if not resource or not self._memory.is_xen(resource):
                self._warnings.append(f"pCPU {pcpu}: its scheduler's data is not found")
                continue
            found.append((pcpu, resource))
        return found

    def _name(self, scheduler: int | None) -> str:
        """The name of a scheduler, as on the command line; empty if it is not known."""
        at = self._structs.pointer("scheduler.opt_name", scheduler) if scheduler else None
        if at is None:
            return ""
        try:
            text = self._memory.virtual.cstring(at, MAX_SCHEDULER_NAME)
        except MemoryFault:
            return ""
        return text.decode("ascii", "backslashreplace")

    def _queue(
        self,
        name: str,
        pcpu: int,
        scheduler: int | None,
        private: int | None,
        queues: dict[int, RunQueue],
    ) -> tuple[int, RunQueue]:
        """The key and the run queue of a pCPU; one that other pCPUs share is read once."""
        structs = self._structs
        if not name:
            raise AbsentError("its scheduler is not known")
        if name not in ("credit", "credit2"):
            raise AbsentError(f"the run queues of the scheduler {name!r} are not supported")
        if private is None:
            raise AbsentError("its run queue cannot be read")
        if name == "credit":
            head = private + structs.member("csched_pcpu.runq").offset
            queue = RunQueue(name, pcpu, None, None, [], [])
            return private, self._filled(queue, head, "csched_unit")
        data = self._credit2(scheduler, private)
        if data in queues:
            return data, queues[data]
        queue = RunQueue(
            name,
            structs.number("csched2_runqueue_data.id", data) or 0,
            structs.number("csched2_runqueue_data.load", data),
            structs.mask("csched2_runqueue_data.active", data),
            [],
            [],
        )
        head = data + structs.member("csched2_runqueue_data.runq").offset
        return data, self._filled(queue, head, "csched2_unit")

    def _credit2(self, scheduler: int | None, private: int) -> int:
        """The ``csched2_runqueue_data`` of a pCPU; AbsentError if it is not found."""
        structs = self._structs
        # Xen 4.13 has the run queues in an array, and in csched2_pcpu the index of one (tested by
        # test_credit2_with_an_array).
        if structs.has("csched2_pcpu.rqd") or not structs.has("csched2_pcpu.runq_id"):
            structs.member("csched2_pcpu.rqd")
            found = structs.pointer("csched2_pcpu.rqd", private)
            if found is None:
                raise AbsentError("its run queue cannot be read")
            return found
        structs.member("csched2_private.rqd")
        index = structs.number("csched2_pcpu.runq_id", private)
        of_all = structs.pointer("scheduler.sched_data", scheduler) if scheduler else None
        array = structs.pointer("csched2_private.rqd", of_all) if of_all else None
        if index is None or array is None:
            raise AbsentError("its run queue cannot be read")
        if not 0 <= index < MAX_PCPUS:
            raise AbsentError(f"it has no run queue: the number is {index}")
        last = (1 << self._memory.word * 8) - 1
        at = array + index * structs.size("csched2_runqueue_data") & last
        own = structs.number("csched2_runqueue_data.id", at) if self._memory.is_xen(at) else None
        if own is None:
            raise AbsentError("its run queue cannot be read")
        if own != index:
            raise AbsentError(f"its run queue {index} has the number {own}")
        return at

    def _filled(self, queue: RunQueue, head: int, kind: str) -> RunQueue:
        """The queue with the units in the list at ``head``."""
        try:
            for entry in self._structs.list(head, f"{kind}.runq_elem"):
                unit = self._structs.pointer(f"{kind}.unit", entry)
                own = None if unit is None else self._structs.number("sched_unit.priv", unit)
                if unit is None or own != entry:
                    raise AbsentError(f"the entry at {entry:#x} is of no unit")
                queue.waiting.append(self._unit(unit, queue.scheduler))
        except AbsentError as error:
            self._warnings.append(f"run queue {queue.id} is incomplete: {error}")
            return queue._replace(problem=str(error))
        return queue

    def _unit(self, unit: int, scheduler: str) -> Unit:
        structs = self._structs
        owner = structs.pointer("sched_unit.domain", unit)
        vcpu = structs.pointer("sched_unit.vcpu_list", unit)
        domain = None if owner is None else structs.number("domain.domain_id", owner)
        number = None if vcpu is None else structs.number("vcpu.vcpu_id", vcpu)
        private = structs.pointer("sched_unit.priv", unit)
        if private is None or domain == DOMID_IDLE or scheduler not in ("credit", "credit2"):
            return Unit(domain, number, None, None, None)
        if scheduler == "credit2":
            return Unit(
                domain,
                number,
                structs.number("csched2_unit.credit", private),
                structs.number("csched2_unit.weight", private),
                None,
            )
        of_domain = structs.pointer("csched_unit.sdom", private)
        priority = structs.number("csched_unit.pri", private)
        credit = structs.number("csched_unit.credit", private)
        return Unit(
            domain,
            number,
            # An atomic_t, which is a struct with a signed number.
            None if credit is None else (credit ^ 1 << 31) - (1 << 31),
            None if of_domain is None else structs.number("csched_dom.weight", of_domain),
            None if priority is None else _PRIORITIES.get(priority, str(priority)),
        )
