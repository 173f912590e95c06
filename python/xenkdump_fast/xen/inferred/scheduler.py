"""Layouts of the schedulers credit and credit2 by what links units, vCPUs, pCPUs and run queues.

Since Xen 4.13 a vCPU has a ``struct sched_unit``, which leads back to it. The order of the members
that follow is the same in all these versions; locks and CPU masks between them differ in size. A
run queue is proved by its list, which has exactly those units whose own links say that they wait.
"""

from collections.abc import Iterable, Iterator, Sequence

from ..._native import AbsentError, MemoryFault
from ..._typing import NamedTuple
from ...limits import (
    MAX_PCPUS,
    MAX_SCHEDULER_NAME,
    MAX_VCPU_SIZE,
    MAX_VCPUS,
    MAX_XEN_LIST,
)
from ..domains import DOMID_IDLE, Facts
from ..layout import Layout
from ..memory import XenMemory
from ..pcpus import Pcpu
from .layouts import Inferred, InferredMember, InferredTypes, pointer

#: Names of schedulers (scheduler.opt_name).
_NAMES = ("credit", "credit2", "null", "rtds", "arinc653")
#: Bytes of a struct sched_resource before its timer, of a csched2_runqueue_data before its masks.
_RESOURCE, _QUEUE = 128, 64
#: Bytes of a csched2_pcpu: a CPU mask and a pointer.
_PRIVATE = MAX_PCPUS // 8 + 8
#: Words of a struct sched_unit: domain, vcpu_list, priv, next_in_list, res.
_PRIV, _RES = 2, 4
#: Offsets in a csched2_unit (4.13 on): of credit and weight behind its three pointers, and of its
#: links in the run queue behind seven more words.
_CREDIT2, _WEIGHT2, _LINKS2 = 24, 28, 80
#: Offsets in a csched_unit (4.13 on), and in a csched_dom of its domain and its weight.
_LINKS, _SDOM, _UNIT, _PRI, _CREDIT = 0, 32, 40, 60, 64
_DOM, _WEIGHT = 32, 42
#: ``csched_unit.pri`` (CSCHED_PRI_*), as unsigned numbers of 32 bits.
_PRIORITIES = {0, (1 << 32) - 1, (1 << 32) - 2, (1 << 32) - 64}


class Unit(NamedTuple):
    """A struct sched_unit of a domain's vCPU."""

    address: int
    domain: int
    priv: int
    resource: int
    #: The pCPU of its vCPU; None if it is not known.
    pcpu: int | None


class Known(NamedTuple):
    """What is known of a host."""

    memory: XenMemory
    facts: Facts
    layout: Layout
    pcpus: Sequence[Pcpu]


class Scheduler(NamedTuple):
    """The layout, and the struct sched_resource of each pCPU."""

    layout: Inferred
    resources: dict[int, int]


def infer(known: Known, vcpus: Sequence[tuple[int, int]]) -> Scheduler:
    """The layout; AbsentError if the dump does not prove one.

    ``vcpus`` are the addresses of the vCPUs of all domains with those of their domains.
    """
    return _Inference(known, vcpus).run()


class _Inference:
    def __init__(self, known: Known, vcpus: Sequence[tuple[int, int]]) -> None:
        if known.memory.word != 8:
            raise AbsentError("32-bit versions of Xen are not supported")
        self._known = known
        self._memory = known.memory
        self._vcpus = vcpus[:MAX_VCPUS]
        self._members: dict[str, InferredMember] = {}
        self._sizes: dict[str, int] = {}
        self._facts: list[str] = []

    def run(self) -> Scheduler:
        unit_at = self._unit_offset()
        units = list(self._units(unit_at))
        resources = self._resources(units, unit_at)
        self._members |= {
            "list_head.next": pointer(0, 8),
            "list_head.prev": pointer(8, 8),
            "scheduler.opt_name": pointer(8, 8),
            "sched_resource.scheduler": pointer(0, 8),
            "sched_unit.domain": pointer(0, 8),
            "sched_unit.vcpu_list": pointer(8, 8),
            "sched_unit.priv": pointer(_PRIV * 8, 8),
            "domain.domain_id": InferredMember(self._known.facts.id, 2),
            "vcpu.vcpu_id": InferredMember(self._known.layout.get("vcpu.id") or 0, 4),
        }
        self._facts.append(f"{len(units)} units lead back to their vCPUs")
        self._current(resources, unit_at)
        names = {self._name(self._memory.pointer(one) or 0) for one in resources.values()}
        privates = self._privates(resources)
        if names == {"credit2"}:
            self._credit2(units, privates)
        elif names == {"credit"}:
            self._credit(units, privates)
        elif names & {"credit", "credit2"}:
            raise AbsentError("pCPUs have different schedulers")
        layout = Inferred(InferredTypes(self._members, self._sizes), ", ".join(self._facts))
        return Scheduler(layout, resources)

    def _words(self, address: int, size: int) -> tuple[int, ...]:
        """The words of a struct, up to the first page that cannot be read."""
        if address % 8 or not self._memory.is_xen(address):
            return ()
        return self._memory.split(self._memory.struct(address, size) or b"")

    # Units and the pCPUs they are on.

    def _unit_offset(self) -> int:
        """The offset of vcpu.sched_unit: the word that leads back in most vCPUs."""
        votes: dict[int, int] = {}
        for vcpu, domain in self._vcpus[:64]:
            for index, value in enumerate(self._words(vcpu, MAX_VCPU_SIZE)):
                if value % 8 == 0 and self._words(value, 16) == (domain, vcpu):
                    votes[index * 8] = votes.get(index * 8, 0) + 1
        if not votes:
            raise AbsentError("no sched_unit leads back to its vCPU (Xen before 4.13?)")
        return min(votes, key=lambda at: (-votes[at], at))

    def _units(self, at: int) -> Iterator[Unit]:
        processor = self._known.layout.get("vcpu.processor")
        for vcpu, domain in self._vcpus:
            address = self._memory.pointer(vcpu + at) or 0
            words = self._words(address, (_RES + 1) * 8)
            # With core scheduling a unit leads to the first of its vCPUs.
            if len(words) <= _RES or words[:2] != (domain, vcpu):
                continue
            pcpu = None if processor is None else self._memory.number(vcpu + processor, 4)
            yield Unit(address, domain, words[_PRIV], words[_RES], pcpu)

    def _resources(self, units: Iterable[Unit], at: int) -> dict[int, int]:
        """The struct sched_resource of each pCPU, by the units that are on it."""
        found: dict[int, int] = {}
        claims = [(unit.pcpu, unit.resource) for unit in units]
        for pcpu in self._known.pcpus:
            unit = None if pcpu.vcpu is None else self._memory.pointer(pcpu.vcpu + at)
            words = self._words(unit or 0, (_RES + 1) * 8)
            if len(words) > _RES and words[1] == pcpu.vcpu:
                claims.append((pcpu.number, words[_RES]))
        for number, resource in claims:
            if number is None or not 0 <= number < MAX_PCPUS:
                continue
            if found.setdefault(number, resource) != resource:
                raise AbsentError(f"units of pCPU {number} are of different resources")
        if not found or len(set(found.values())) != len(found):
            raise AbsentError("no units lead to the resources of pCPUs, or several share one")
        for number, resource in found.items():
            scheduler = self._memory.pointer(resource) or 0
            if self._name(scheduler) not in _NAMES:
                raise AbsentError(f"the resource of pCPU {number} has no known scheduler")
        return dict(sorted(found.items()))

    def _name(self, scheduler: int) -> str:
        """The name of a scheduler."""
        text = self._memory.pointer(scheduler + 8) if self._memory.is_xen(scheduler) else None
        if not text or not self._memory.is_xen(text):
            return ""
        try:
            return self._memory.virtual.cstring(text, MAX_SCHEDULER_NAME).decode("ascii")
        except (MemoryFault, UnicodeDecodeError):
            return ""

    def _is_unit(self, address: int, *, idle: bool) -> bool:
        """Whether a word leads to a unit; with ``idle``, to one of Xen's idle domain."""
        words = self._words(address, 16)
        if len(words) < 2 or not all(map(self._memory.is_xen, words)):
            return False
        back = self._known.layout.get("vcpu.domain")
        if back is None or self._memory.pointer(words[1] + back) != words[0]:
            return False
        number = self._memory.number(words[0] + self._known.facts.id, 2)
        return not idle or number == DOMID_IDLE

    def _current(self, resources: dict[int, int], unit_at: int) -> None:
        """sched_resource.curr, before sched_unit_idle, and sched_priv two words behind that."""
        running = {
            pcpu.number: self._memory.pointer(pcpu.vcpu + unit_at)
            for pcpu in self._known.pcpus
            if pcpu.vcpu is not None
        }
        structs = {n: self._words(at, _RESOURCE) for n, at in resources.items()}
        least = min(map(len, structs.values()))
        for index in range(2, least - 3):
            if not all(
                self._is_unit(words[index], idle=False)
                and self._is_unit(words[index + 1], idle=True)
                for words in structs.values()
            ):
                continue
            # A pCPU that is about to switch has changed curr already, and what it runs is prev.
            agree = [
                unit in (structs[number][index], structs[number][index + 2])
                for number, unit in running.items()
                if number in structs
            ]
            if agree and all(agree):
                self._members["sched_resource.curr"] = pointer(index * 8, 8)
                self._members["sched_resource.sched_priv"] = pointer((index + 3) * 8, 8)
                self._facts.append("pCPUs run the units that are scheduled")
                return
        raise AbsentError("no resources name the units that their pCPUs run")

    def _privates(self, resources: dict[int, int]) -> dict[int, int]:
        """What the scheduler keeps of each pCPU."""
        at = self._members["sched_resource.sched_priv"].offset
        found = {n: self._memory.pointer(address + at) or 0 for n, address in resources.items()}
        return {n: one for n, one in found.items() if one % 8 == 0 and self._memory.is_xen(one)}

    # Lists.

    def _is_linked(self, node: int) -> bool:
        """Whether a node is in a list with others."""
        words = self._words(node, 16)
        if len(words) < 2:
            raise AbsentError(f"the links of the unit at {node:#x} cannot be read")
        following, before = words
        if self._memory.pointer(following + 8) != node or self._memory.pointer(before) != node:
            raise AbsentError(f"the links of the unit at {node:#x} are damaged")
        return following != node

    def _entries(self, head: int, most: int) -> set[int] | None:
        """The nodes in the list with a head; None if there is no such list, or with too many."""
        found: set[int] = set()
        at, before = self._memory.pointer(head), head
        while at != head:
            if not at or at in found or len(found) > min(most, MAX_XEN_LIST):
                return None
            words = self._words(at, 16)
            if len(words) < 2 or words[1] != before:
                return None
            found.add(at)
            before, at = at, words[0]
        return found if self._memory.pointer(head + 8) == before else None

    # credit2

    def _credit2(self, units: Sequence[Unit], privates: dict[int, int]) -> None:
        queues = self._queues(units, privates)
        of_queue: dict[int, set[int]] = {queue: set() for queue in queues}
        weights: set[int] | None = None
        for unit in units:
            words = self._words(unit.priv, _LINKS2 + 16)
            if len(words) * 8 < _LINKS2 + 16 or words[1] != unit.address:
                raise AbsentError("a csched2_unit does not lead back to its unit")
            sdom = self._words(words[0], 256)
            if not sdom or sdom[0] != unit.domain:
                raise AbsentError("a csched2_dom does not lead back to its domain")
            weight = words[_WEIGHT2 // 8] >> 32
            same = {at for at in range(8, len(sdom) * 8 - 1, 2) if _short(sdom, at) == weight}
            weights = same if weights is None else weights & same
            of_queue.setdefault(words[2], set()).add(unit.priv + _LINKS2)
        if not weights:
            raise AbsentError("units have other weights than their domains")
        waiting = {
            queue: {node for node in nodes if self._is_linked(node)}
            for queue, nodes in of_queue.items()
        }
        # Behind the lock and, since 4.15, the links of the queue itself.
        for head in range(8, _QUEUE, 8):
            lists = {q: self._entries(q + head, len(units)) for q in waiting}
            if lists == waiting:
                break
        else:
            raise AbsentError("no list of a run queue has the units that wait")
        self._members |= {
            "csched2_runqueue_data.runq": InferredMember(head, 16, "struct"),
            "csched2_unit.runq_elem": InferredMember(_LINKS2, 16, "struct"),
            "csched2_unit.unit": pointer(8, 8),
            "csched2_unit.credit": InferredMember(_CREDIT2, 4, signed=True),
            "csched2_unit.weight": InferredMember(_WEIGHT2, 4),
        }
        self._facts.append(f"lists have the {sum(map(len, waiting.values()))} units that wait")
        self._numbers(queues, head, of_queue)

    def _queues(self, units: Sequence[Unit], privates: dict[int, int]) -> dict[int, set[int]]:
        """The run queues with their pCPUs; also csched2_pcpu.rqd, behind a CPU mask."""
        known = {(self._words(unit.priv, 24) or (0, 0, 0))[-1] for unit in units} - {0}
        structs = {n: self._words(at, _PRIVATE) for n, at in privates.items()}
        places = {
            index for words in structs.values() for index, v in enumerate(words) if v in known
        }
        for index in sorted(places):
            if all(len(words) > index and words[index] for words in structs.values()):
                at = index * 8
                break
        else:
            raise AbsentError("no csched2_pcpu leads to the run queue of a unit")
        self._members["csched2_pcpu.rqd"] = pointer(at, 8)
        # The mask before it.
        self._sizes["cpumask_t"] = at
        found: dict[int, set[int]] = {}
        for number, words in structs.items():
            found.setdefault(words[index], set()).add(number)
        return found

    def _numbers(self, queues: dict[int, set[int]], head: int, units: dict[int, set[int]]) -> None:
        """nr_cpus, id and load of run queues behind their lists, and the mask of their pCPUs."""
        # Since 4.15 (refcnt) there is a number more.
        for at in (head + 20, head + 16):
            end = at + 12
            active = -(-end // 8) * 8 + 24
            mask = self._sizes["cpumask_t"]
            ids: set[int] = set()
            for queue, numbers in queues.items():
                data = self._memory.read(queue, active + mask) or bytes(active + mask)
                count, identity, load = (
                    int.from_bytes(data[at + i : at + i + 4], "little", signed=True)
                    for i in (0, 4, 8)
                )
                cpus = int.from_bytes(data[active : active + mask], "little")
                if cpus.bit_count() != count or not 0 <= load <= len(units[queue]):
                    break
                if any(not cpus >> number & 1 for number in numbers) or identity < 0:
                    break
                ids.add(identity)
            if len(ids) == len(queues):
                self._members |= {
                    "csched2_runqueue_data.id": InferredMember(at + 4, 4, signed=True),
                    "csched2_runqueue_data.load": InferredMember(at + 8, 4, signed=True),
                    "csched2_runqueue_data.active": InferredMember(active, mask, "struct"),
                }
                return
        if len(queues) > 1:
            raise AbsentError("the numbers of run queues and of their pCPUs do not agree")

    # credit

    def _credit(self, units: Sequence[Unit], privates: dict[int, int]) -> None:
        waiting: set[int] = set()
        for unit in units:
            words = self._words(unit.priv, _CREDIT + 8)
            if len(words) * 8 < _CREDIT + 8 or words[_UNIT // 8] != unit.address:
                raise AbsentError("a csched_unit does not lead back to its unit")
            sdom = self._words(words[_SDOM // 8], 64)
            if len(sdom) * 8 <= _WEIGHT or sdom[_DOM // 8] != unit.domain:
                raise AbsentError("a csched_dom does not lead back to its domain")
            if words[_PRI // 8] >> 32 not in _PRIORITIES or not _short(sdom, _WEIGHT):
                raise AbsentError("a unit has no valid priority, or its domain no weight")
            if self._is_linked(unit.priv + _LINKS):
                waiting.add(unit.priv + _LINKS)
        own = {unit.priv + _LINKS for unit in units}
        found: set[int] = set()
        for private in privates.values():
            entries = self._entries(private, len(units) + MAX_PCPUS)
            if entries is None:
                raise AbsentError("the run queue of a pCPU is damaged")
            # Besides, the idle unit is in it.
            found |= entries & own
        if found != waiting:
            raise AbsentError("the lists of run queues do not have the units that wait")
        self._members |= {
            "csched_pcpu.runq": InferredMember(0, 16, "struct"),
            "csched_unit.runq_elem": InferredMember(_LINKS, 16, "struct"),
            "csched_unit.unit": pointer(_UNIT, 8),
            "csched_unit.sdom": pointer(_SDOM, 8),
            "csched_unit.pri": InferredMember(_PRI, 4, signed=True),
            "csched_unit.credit": InferredMember(_CREDIT, 4, "struct"),
            "csched_dom.weight": InferredMember(_WEIGHT, 2),
        }
        self._facts.append(f"lists have the {len(waiting)} units that wait")


def _short(words: Sequence[int], at: int) -> int:
    """The number of 16 bits at an offset in words."""
    return words[at // 8] >> at % 8 * 8 & 0xFFFF
