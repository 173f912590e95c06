"""Layouts of schedulers that are inferred: credit2 in three sizes, credit, and contradictions."""

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import run_queues
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.inferred import scheduler
from xenkdump_fast.xen.layout import Layout
from xenkdump_fast.xen.run_queues import RunQueue
from xenkdump_fast.xen.structs import Structs

from .fake_structs import START, FakeMemory

IDLE = 0x7FFF
#: Offsets in a struct vcpu of its unit, its domain and its pCPU.
UNIT, DOMAIN, PROCESSOR = 208, 16, 8


class Version(NamedTuple):
    """Sizes that differ: of a CPU mask, of a lock, whether queues are in a list."""

    mask: int
    lock: int
    has_links: bool


VERSIONS = {
    "4.20": Version(32, 8, True),
    "4.20 for 4096 CPUs, debug": Version(512, 16, True),
    "4.14": Version(32, 8, False),
}


class FakeHost:
    """Three domains with a vCPU on each of two pCPUs."""

    def __init__(self, name: str, version: Version = VERSIONS["4.20"]) -> None:
        self.version = version
        self.memory = memory = FakeMemory()
        table, text = memory.new(), memory.new()
        memory.content[text - START : text - START + len(name)] = name.encode()
        memory.put(table + 8, text)
        self.resources = [memory.new() for _ in range(2)]
        self.privates = [memory.new() for _ in range(2)]
        self.curr = 32 if version.lock <= 8 else 40
        for resource, private in zip(self.resources, self.privates, strict=True):
            memory.put(resource, table)
            memory.put(resource + self.curr + 24, private)
        self.vcpus: list[tuple[int, int]] = []
        idle = self.domain(IDLE)
        self.idle = [self.vcpu(idle, pcpu, pcpu) for pcpu in range(2)]
        self.pcpus = [SimpleNamespace(number=n, vcpu=vcpu) for n, vcpu in enumerate(self.idle)]
        for number, vcpu in enumerate(self.idle):
            self.run(number, vcpu)
            memory.put(self.resources[number] + self.curr + 8, self.unit(vcpu))
        domains = [self.domain(number) for number in (0, 4, 5)]
        self.weights = dict(zip(domains, (512, 256, 256), strict=True))
        for number, domain in enumerate(domains):
            for pcpu in range(2):
                vcpu = self.vcpu(domain, pcpu, pcpu)
                self.vcpus.append((vcpu, domain))
                self.own(vcpu, domain, 100 * number + pcpu)

    def domain(self, number: int) -> int:
        found = self.memory.new()
        self.memory.put(found, number, 2)
        return found

    def vcpu(self, domain: int, number: int, pcpu: int) -> int:
        memory = self.memory
        vcpu, unit, own = memory.new(), memory.new(), memory.new()
        memory.put(vcpu, number, 4)
        memory.put(vcpu + PROCESSOR, pcpu, 4)
        memory.put(vcpu + DOMAIN, domain)
        memory.put(vcpu + UNIT, unit)
        for index, value in enumerate((domain, vcpu, own, 0, self.resources[pcpu])):
            memory.put(unit + index * 8, value)
        return vcpu

    def own(self, vcpu: int, domain: int, credit: int) -> None:
        """What the scheduler keeps of a vCPU's unit."""

    def unit(self, vcpu: int) -> int:
        return self.memory.pointer(vcpu + UNIT) or 0

    def priv(self, vcpu: int) -> int:
        return self.memory.pointer(self.unit(vcpu) + 16) or 0

    def run(self, pcpu: int, vcpu: int) -> None:
        self.memory.put(self.resources[pcpu] + self.curr, self.unit(vcpu))
        self.pcpus[pcpu].vcpu = vcpu

    def chain(self, head: int, links: list[int]) -> None:
        for before, after in pairwise([head, *links, head]):
            self.memory.put(before, after)
            self.memory.put(after + 8, before)

    def read(self) -> list[RunQueue]:
        layout = Layout()
        layout.offsets |= {"vcpu.processor": PROCESSOR, "vcpu.domain": DOMAIN, "vcpu.id": 0}
        facts = cast(Any, SimpleNamespace(id=0))
        pcpus = cast(Any, self.pcpus)
        known = scheduler.Known(self.memory, facts, layout, pcpus)
        found = scheduler.infer(known, self.vcpus)
        structs = Structs(self.memory, found.layout.types)
        host = SimpleNamespace(
            memory=self.memory,
            pcpus=self.pcpus,
            scheduler=(structs, found.resources),
            dump=SimpleNamespace(path="vmcore"),
        )
        queues, warnings = run_queues.read(cast(XenHost, host))
        assert warnings == []
        return queues


class Credit2(FakeHost):
    """One run queue for both pCPUs."""

    def __init__(self, version: Version = VERSIONS["4.20"]) -> None:
        self.queue = 0
        super().__init__("credit2", version)
        memory = self.memory
        for private in self.privates:
            memory.put(private + version.mask, self.queue)
            memory.put(private, 3)
        self.head = self.queue + version.lock + (16 if version.has_links else 0)
        if version.has_links:
            self.chain(self.queue + version.lock, [memory.new()])
        at = self.head + 16 + (4 if version.has_links else 0)
        for index, value in enumerate((2, 1, 0)):
            memory.put(at + index * 4, value, 4)
        memory.put(-(-(at + 12) // 8) * 8 + 24, 3)
        self.load = at + 8
        self.wait([])

    def own(self, vcpu: int, domain: int, credit: int) -> None:
        memory = self.memory
        self.queue = self.queue or memory.new()
        dom, own = memory.new(), self.priv(vcpu)
        memory.put(dom, domain)
        memory.put(dom + 200, self.weights[domain], 2)
        for index, value in enumerate((dom, self.unit(vcpu), self.queue)):
            memory.put(own + index * 8, value)
        memory.put(own + 24, credit, 4)
        memory.put(own + 28, self.weights[domain], 4)

    def wait(self, vcpus: list[int]) -> None:
        for vcpu, _ in self.vcpus:
            self.chain(self.priv(vcpu) + 80, [])
        self.chain(self.head, [self.priv(vcpu) + 80 for vcpu in vcpus])


@pytest.mark.parametrize("name", VERSIONS)
def test_credit2(name: str) -> None:
    host = Credit2(VERSIONS[name])
    host.run(1, host.vcpus[1][0])
    host.wait([host.vcpus[2][0], host.vcpus[5][0]])
    host.memory.put(host.load, 3, 4)
    (queue,) = host.read()
    assert (queue.scheduler, queue.id, queue.load, str(queue.cpus)) == ("credit2", 1, 3, "0-1")
    assert [str(one.unit) for one in queue.running] == ["d[IDLE]v0", "d0v1"]
    shown = [(str(one), one.credit, one.weight) for one in queue.waiting]
    assert shown == [("d4v0", 100, 256), ("d5v1", 201, 256)]


def test_nothing_waits() -> None:
    (queue,) = Credit2().read()
    assert queue.waiting == []


def test_a_pcpu_that_is_about_to_switch() -> None:
    host = Credit2()
    host.memory.put(host.resources[0] + host.curr + 16, host.unit(host.idle[0]))
    host.memory.put(host.resources[0] + host.curr, host.unit(host.vcpus[0][0]))
    (queue,) = host.read()
    assert [str(one.unit) for one in queue.running] == ["d0v0", "d[IDLE]v1"]
    host.memory.put(host.resources[0] + host.curr + 16, 0)
    with pytest.raises(AbsentError, match="no resources name the units that their pCPUs run"):
        host.read()


def test_a_unit_that_is_in_no_list() -> None:
    host = Credit2()
    host.wait([host.vcpus[2][0]])
    # Its links say that it waits, and the list of the queue is empty.
    host.chain(host.priv(host.vcpus[2][0]) + 80, [host.memory.new()])
    host.chain(host.head, [])
    with pytest.raises(AbsentError, match="no list of a run queue has the units that wait"):
        host.read()


def test_other_weights() -> None:
    host = Credit2()
    host.memory.put(host.priv(host.vcpus[1][0]) + 28, 77, 4)
    with pytest.raises(AbsentError, match="other weights than their domains"):
        host.read()


def test_numbers_that_contradict_the_mask() -> None:
    host = Credit2()
    host.memory.put(host.load - 8, 7, 4)
    (queue,) = host.read()
    assert (queue.id, queue.load, queue.cpus) == (0, None, None)


class Credit(FakeHost):
    """A run queue for each pCPU."""

    def __init__(self) -> None:
        super().__init__("credit")
        for vcpu in self.idle:
            self.memory.put(self.priv(vcpu) + 40, self.unit(vcpu))
            self.memory.put(self.priv(vcpu) + 60, -64, 4)
        self.wait([[], []])

    def own(self, vcpu: int, domain: int, credit: int) -> None:
        memory = self.memory
        dom, own = memory.new(), self.priv(vcpu)
        memory.put(dom + 32, domain)
        memory.put(dom + 42, self.weights[domain], 2)
        memory.put(own + 32, dom)
        memory.put(own + 40, self.unit(vcpu))
        memory.put(own + 60, -1, 4)
        memory.put(own + 64, -credit, 4)

    def wait(self, queues: list[list[int]]) -> None:
        for vcpu, _ in self.vcpus:
            self.chain(self.priv(vcpu), [])
        for private, vcpus in zip(self.privates, queues, strict=True):
            self.chain(private, [self.priv(vcpu) for vcpu in vcpus])


def test_credit() -> None:
    host = Credit()
    host.run(0, host.vcpus[0][0])
    host.wait([[host.vcpus[4][0], host.idle[0]], [host.vcpus[3][0]]])
    first, second = host.read()
    shown = [(str(one), one.credit, one.weight, one.priority) for one in first.waiting]
    assert shown == [("d5v0", -200, 256, "under"), ("d[IDLE]v0", None, None, None)]
    assert [str(one) for one in second.waiting] == ["d4v1"]
    assert str(first.running[0].unit) == "d0v0"
    host.chain(host.priv(host.vcpus[1][0]), [host.memory.new()])
    with pytest.raises(AbsentError, match="do not have the units that wait"):
        host.read()


def test_other_schedulers() -> None:
    host = FakeHost("null")
    with pytest.raises(AssertionError, match="are not supported"):
        host.read()
    with pytest.raises(AbsentError, match="has no known scheduler"):
        FakeHost("other").read()


def test_damage_is_refused_or_read() -> None:
    chance = random.Random(1)
    for _ in range(60):
        host = Credit2()
        host.wait([host.vcpus[2][0], host.vcpus[5][0]])
        for _ in range(chance.randrange(1, 60)):
            at = chance.randrange(80 * 4096 // 8) * 8
            value = chance.choice((0, (1 << 64) - 1, START + chance.randrange(0x50000)))
            host.memory.content[at : at + 8] = value.to_bytes(8, "little")
        try:
            host.read()
        except (AbsentError, AssertionError):
            continue
