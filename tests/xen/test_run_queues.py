"""Run queues of credit, which no real dump here has, of credit2, and damaged ones."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import run_queues
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.run_queues import RunQueue

from .fake_structs import START, FakeMember, FakeMemory, structs

MEMBERS = {
    "list_head.next": FakeMember(0, 8, "ptr"),
    "list_head.prev": FakeMember(8, 8, "ptr"),
    "sched_resource.scheduler": FakeMember(0, 8, "ptr"),
    "sched_resource.sched_priv": FakeMember(8, 8, "ptr"),
    "sched_resource.curr": FakeMember(16, 8, "ptr"),
    "scheduler.opt_name": FakeMember(8, 8, "ptr"),
    "sched_unit.domain": FakeMember(0, 8, "ptr"),
    "sched_unit.vcpu_list": FakeMember(8, 8, "ptr"),
    "sched_unit.priv": FakeMember(16, 8, "ptr"),
    "domain.domain_id": FakeMember(0, 2),
    "vcpu.vcpu_id": FakeMember(0, 4, signed=True),
    "csched_pcpu.runq": FakeMember(8, 16, "struct"),
    "csched_unit.runq_elem": FakeMember(16, 16, "struct"),
    "csched_unit.unit": FakeMember(32, 8, "ptr"),
    "csched_unit.sdom": FakeMember(40, 8, "ptr"),
    "csched_unit.pri": FakeMember(48, 4, signed=True),
    "csched_unit.credit": FakeMember(52, 4, "struct"),
    "csched_dom.weight": FakeMember(2, 2),
    "csched2_pcpu.rqd": FakeMember(8, 8, "ptr"),
    "csched2_runqueue_data.id": FakeMember(0, 4, signed=True),
    "csched2_runqueue_data.load": FakeMember(4, 4, signed=True),
    "csched2_runqueue_data.active": FakeMember(8, 8, "struct"),
    "csched2_runqueue_data.runq": FakeMember(16, 16, "struct"),
    "csched2_unit.runq_elem": FakeMember(0, 16, "struct"),
    "csched2_unit.unit": FakeMember(16, 8, "ptr"),
    "csched2_unit.credit": FakeMember(24, 4, signed=True),
    "csched2_unit.weight": FakeMember(28, 4),
}
#: Size of a csched2_runqueue_data.
RUN_QUEUE = 512
SIZES = {"cpumask_t": 8, "csched2_runqueue_data": RUN_QUEUE}


class FakeHost:
    """Two pCPUs with a scheduler."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory = memory = FakeMemory()
        self.idle = self.domain(0x7FFF)
        scheduler, text, offsets, first = (memory.new() for _ in range(4))
        memory.content[text - START : text - START + len(name)] = name.encode()
        memory.put(scheduler + 8, text)
        self.resources = []
        for pcpu in range(2):
            area = memory.new()
            memory.put(offsets + pcpu * 8, area - first & (1 << 64) - 1)
            resource = memory.new()
            memory.put(area + 64, resource)
            memory.put(resource, scheduler)
            memory.put(resource + 16, self.unit(self.idle, pcpu))
            self.resources.append(resource)
        known = {"per_cpu__sched_res": (first + 64, 8), "__per_cpu_offset": (offsets, 16)}
        symbols = SimpleNamespace(
            get=lambda symbol: known[symbol][0] if symbol in known else None,
            all=lambda symbol: [
                SimpleNamespace(address=address, size=size)
                for found, (address, size) in known.items()
                if found == symbol
            ],
        )
        self.members = dict(MEMBERS)
        self.fake = SimpleNamespace(
            memory=memory,
            symbols=symbols,
            pcpus=[SimpleNamespace(number=0), SimpleNamespace(number=1)],
            dump=SimpleNamespace(path="vmcore"),
        )

    def domain(self, number: int) -> int:
        found = self.memory.new()
        self.memory.put(found, number, 2)
        return found

    def unit(self, domain: int, vcpu: int) -> int:
        unit, of_vcpu = self.memory.new(), self.memory.new()
        self.memory.put(of_vcpu, vcpu, 4)
        self.memory.put(unit, domain)
        self.memory.put(unit + 8, of_vcpu)
        return unit

    def chain(self, head: int, links: list[int]) -> None:
        every = [head, *links, head]
        for before, after in pairwise(every):
            self.memory.put(before, after)
            self.memory.put(after + 8, before)

    def read(self) -> tuple[list[RunQueue], list[str]]:
        self.fake.scheduler = structs(self.memory, self.members, SIZES), None
        return run_queues.read(cast(XenHost, self.fake))

    def credit(self, pcpu: int, units: list[tuple[int, int, int, int]]) -> list[int]:
        """The run queue of credit: domain, vCPU, priority, credit. Returns the private structs."""
        memory = self.memory
        private, weights = memory.new(), memory.new()
        memory.put(self.resources[pcpu] + 8, private)
        memory.put(weights + 2, 512, 2)
        found = []
        for domain, vcpu, priority, credit in units:
            own, unit = memory.new(), self.unit(self.domain(domain), vcpu)
            memory.put(unit + 16, own)
            memory.put(own + 32, unit)
            memory.put(own + 40, weights)
            memory.put(own + 48, priority, 4)
            memory.put(own + 52, credit, 4)
            found.append(own)
        self.chain(private + 8, [own + 16 for own in found])
        return found


def summary(queue: RunQueue) -> list[Any]:
    return [(str(one), one.credit, one.weight, one.priority) for one in queue.waiting]


def test_credit() -> None:
    host = FakeHost("credit")
    host.credit(0, [(1, 0, 0, 300), (2, 3, -1, 5), (1, 1, -2, -120)])
    host.credit(1, [])
    queues, warnings = host.read()
    assert warnings == []
    assert [queue.id for queue in queues] == [0, 1]
    assert summary(queues[0]) == [
        ("d1v0", 300, 512, "boost"),
        ("d2v3", 5, 512, "under"),
        ("d1v1", -120, 512, "over"),
    ]
    assert str(queues[1].running[0].unit) == "d[IDLE]v1"
    assert queues[1].waiting == []


def credit2_queue(host: FakeHost, data: int) -> None:
    """The run queue 3 of credit2 with one unit."""
    memory = host.memory
    for offset, value, size in ((0, 3, 4), (4, 1, 4), (8, 3, 8)):
        memory.put(data + offset, value, size)
    own, unit = memory.new(), host.unit(host.domain(5), 1)
    memory.put(unit + 16, own)
    memory.put(own + 16, unit)
    memory.put(own + 24, -7, 4)
    memory.put(own + 28, 256, 4)
    host.chain(data + 16, [own])


def credit2_with_an_array(host: FakeHost) -> tuple[int, list[int]]:
    """As Xen 4.13 has it: run queues in an array, of which pCPUs have the index.

    Returns the element 3, and the private structs of the pCPUs.
    """
    memory = host.memory
    del host.members["csched2_pcpu.rqd"]
    host.members["csched2_pcpu.runq_id"] = FakeMember(24, 4, signed=True)
    host.members["csched2_private.rqd"] = FakeMember(16, 8, "ptr")
    host.members["scheduler.sched_data"] = FakeMember(32, 8, "ptr")
    of_all, array = memory.new(), memory.new()
    memory.put(int.from_bytes(memory.data(host.resources[0], 8), "little") + 32, of_all)
    memory.put(of_all + 16, array)
    privates = []
    for resource in host.resources:
        private = memory.new()
        memory.put(resource + 8, private)
        memory.put(private + 24, 3, 4)
        privates.append(private)
    data = array + 3 * RUN_QUEUE
    credit2_queue(host, data)
    return data, privates


def test_credit2_with_an_array() -> None:
    host = FakeHost("credit2")
    credit2_with_an_array(host)
    (queue,), warnings = host.read()
    assert warnings == []
    assert (queue.id, queue.load, str(queue.cpus)) == (3, 1, "0-1")
    assert summary(queue) == [("d5v1", -7, 256, None)]
    assert [one.pcpu for one in queue.running] == [0, 1]


def test_a_damaged_array_of_credit2() -> None:
    host = FakeHost("credit2")
    memory = host.memory
    data, privates = credit2_with_an_array(host)
    # A pCPU that is not part of a run queue, and an index beyond all.
    for index in (-1, 1 << 30):
        memory.put(privates[1] + 24, index, 4)
        queues, warnings = host.read()
        second = min(queues, key=lambda queue: queue.id)
        assert second.problem == f"it has no run queue: the number is {index}"
        assert warnings == [f"pCPU 1: {second.problem}"]
    # An element that says that it is another one, and one without memory.
    memory.put(privates[1] + 24, 2, 4)
    memory.put(data - RUN_QUEUE, 1, 4)
    assert host.read()[1] == ["pCPU 1: its run queue 2 has the number 1"]
    memory.put(privates[1] + 24, 4095, 4)
    assert host.read()[1] == ["pCPU 1: its run queue cannot be read"]
    del host.members["csched2_private.rqd"]
    text = "xen-syms: no debug information for csched2_private.rqd"
    assert host.read()[1] == [f"pCPU {pcpu}: {text}" for pcpu in (0, 1)]


def test_a_shared_queue_of_credit2() -> None:
    host = FakeHost("credit2")
    memory = host.memory
    data = memory.new()
    credit2_queue(host, data)
    for resource in host.resources:
        private = memory.new()
        memory.put(resource + 8, private)
        memory.put(private + 8, data)
    (queue,), warnings = host.read()
    assert warnings == []
    assert (queue.id, queue.load, str(queue.cpus)) == (3, 1, "0-1")
    assert summary(queue) == [("d5v1", -7, 256, None)]
    assert [one.pcpu for one in queue.running] == [0, 1]


def test_damage() -> None:
    host = FakeHost("credit")
    units = host.credit(0, [(1, 0, 0, 300), (2, 3, -1, 5)])
    host.credit(1, [])
    # The second entry is of another unit.
    host.memory.put(units[1] + 32, host.unit(host.idle, 0))
    (first, second), warnings = host.read()
    assert [str(unit) for unit in first.waiting] == ["d1v0"]
    assert first.problem is not None
    assert second.problem is None
    assert warnings == [f"run queue 0 is incomplete: the entry at {units[1]:#x} is of no unit"]
    host.memory.put(units[0] + 16, 0x1000)
    (first, _), warnings = host.read()
    assert "is damaged at" in warnings[0]
    # A pCPU without a scheduler.
    host.memory.put(host.resources[1], 0)
    (_, second), warnings = host.read()
    assert "pCPU 1: its scheduler is not known" in warnings
    assert second.problem == "its scheduler is not known"


def test_other_schedulers_and_versions() -> None:
    host = FakeHost("null")
    queues, warnings = host.read()
    assert [str(queue.running[0].unit) for queue in queues] == ["d[IDLE]v0", "d[IDLE]v1"]
    assert warnings == [
        f"pCPU {pcpu}: the run queues of the scheduler 'null' are not supported" for pcpu in (0, 1)
    ]
    del host.members["sched_unit.priv"]
    with pytest.raises(AbsentError, match=r"Xen 4\.13"):
        host.read()
