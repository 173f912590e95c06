"""Layouts of event channels that are inferred: two orders of members, and what proves nothing."""

import random
from typing import NamedTuple, cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen.event_channels import Channels, Reader
from xenkdump_fast.xen.host import HostDomain
from xenkdump_fast.xen.inferred import channels
from xenkdump_fast.xen.structs import Structs

from .fake_structs import PAGE, START, FakeMemory

FREE, RESERVED, UNBOUND, INTERDOMAIN, PIRQ, VIRQ, IPI = range(7)


class Version(NamedTuple):
    """A layout of struct evtchn."""

    size: int
    port: int
    state: int
    union: int
    vcpu: int
    priority: int
    consumer: int


#: Xen 4.20, a debug build of it, 4.14 and 4.5.
VERSIONS = {
    "4.20": Version(64, 12, 8, 16, 34, 33, 9),
    "4.20 debug": Version(64, 20, 16, 24, 42, 41, 18),
    "4.14": Version(64, 16, 12, 24, 14, 40, 13),
    "4.5": Version(32, 4, 0, 8, 2, 24, 1),
}
#: Offsets in a struct domain.
EVTCHN, GROUPS = 184, 192


class FakeDomain:
    """A domain with FIFO event channels."""

    def __init__(self, memory: FakeMemory, number: int, version: Version, buckets: int = 1) -> None:
        self.memory = memory
        self.version = version
        self.id = number
        self.word = 8
        self.shared_page: bytes | None = bytes(PAGE)
        self.address = memory.new()
        self.per_bucket = PAGE // version.size
        self.groups = (1 << 17) // (self.per_bucket * 512)
        table = memory.new()
        self.buckets = []
        for index in range(buckets):
            bucket = memory.new()
            self.buckets.append(bucket)
            if index:
                memory.put(table + index * 8, bucket)
            for port in range(self.per_bucket):
                at = bucket + port * version.size
                memory.put(at + version.port, index * self.per_bucket + port, 4)
                memory.put(at + version.priority, 7, 1)
        memory.put(self.address, number, 2)
        memory.put(self.address + EVTCHN, self.buckets[0])
        if buckets > 1:
            memory.put(self.address + GROUPS, table)
        self.end = self.address + GROUPS + self.groups * 8
        memory.put(self.end + 4, buckets * self.per_bucket, 4)
        fifo, grants, pages = memory.new(), memory.new(), memory.new()
        self.words = pages
        memory.put(fifo, pages)
        memory.put(fifo + 1024, 1024, 4)
        memory.put(grants + 96, self.address)
        for offset, value in enumerate((START, fifo, grants)):
            memory.put(self.end + 32 + offset * 8, value)
        self.active = 0
        self.put(0, RESERVED)

    def put(self, port: int, state: int, target: int = 0, remote: int = 0, vcpu: int = 0) -> None:
        one = self.version
        at = self.buckets[port // self.per_bucket] + port % self.per_bucket * one.size
        self.memory.put(at + one.state, state, 1)
        self.memory.put(at + one.vcpu, vcpu, 2)
        self.memory.put(at + one.union, target, 4)
        self.memory.put(at + one.union + 8, remote)
        if port:
            self.active += 1
            self.memory.put(self.end + 8, self.active, 4)


def hosts(memory: FakeMemory, version: Version, buckets: int = 1) -> list[FakeDomain]:
    domains = [FakeDomain(memory, number, version, buckets) for number in (0, 3)]
    first, second = domains
    for vcpu in range(2):
        first.put(1 + vcpu, VIRQ, 0, vcpu=vcpu)
        first.put(3 + vcpu, IPI, 0, vcpu=vcpu)
        second.put(1 + vcpu, VIRQ, 0, vcpu=vcpu)
    first.put(10, INTERDOMAIN, 20, second.address, 1)
    second.put(20, INTERDOMAIN, 10, first.address)
    first.put(11, PIRQ, 9)
    second.put(21, UNBOUND, 0)
    return domains


def read(domains: list[FakeDomain]) -> list[Channels]:
    memory = domains[0].memory
    ids = {one.address: one.id for one in domains}
    found = channels.infer(memory, ids, PAGE)
    reader = Reader(Structs(memory, found.types), ids)
    return [reader.read(cast(HostDomain, one)) for one in domains]


@pytest.mark.parametrize("name", VERSIONS)
def test_versions(name: str) -> None:
    memory = FakeMemory()
    first, second = read(hosts(memory, VERSIONS[name]))
    assert (first.abi, first.warnings, second.warnings) == ("FIFO", [], [])
    shown = [
        (one.port, one.state, one.vcpu, one.remote_domain, one.remote_port, one.pirq, one.virq)
        for one in first.channels
    ]
    assert shown == [
        (0, "reserved", 0, None, None, None, None),
        (1, "virq", 0, None, None, None, 0),
        (2, "virq", 1, None, None, None, 0),
        (3, "ipi", 0, None, None, None, None),
        (4, "ipi", 1, None, None, None, None),
        (10, "interdomain", 1, 3, 20, None, None),
        (11, "pirq", 0, None, None, 9, None),
    ]
    assert {one.priority for one in first.channels} == {7}
    assert not any(one.by_xen for one in (*first.channels, *second.channels))
    assert second.channels[-1].remote_domain == 0


def test_further_buckets() -> None:
    memory = FakeMemory()
    domains = hosts(memory, VERSIONS["4.20"], buckets=3)
    domains[0].put(130, IPI, vcpu=1)
    first, _ = read(domains)
    assert (first.valid, first.channels[-1].port) == (192, 130)
    # A table that leads to something else.
    memory.put(domains[0].address + GROUPS, memory.new())
    memory.put(memory.pointer(domains[0].address + GROUPS) or 0, memory.new())
    with pytest.raises(AbsentError, match="leads to no further channels"):
        read(domains)


def test_a_channel_of_xen() -> None:
    memory = FakeMemory()
    domains = hosts(memory, VERSIONS["4.20"])
    at = domains[1].buckets[0] + 21 * 64
    memory.put(at + VERSIONS["4.20"].consumer, 2, 1)
    _, second = read(domains)
    assert [one.port for one in second.channels if one.by_xen] == [21]


def test_without_pairs_the_numbers_prove_it() -> None:
    memory = FakeMemory()
    domain = FakeDomain(memory, 0, VERSIONS["4.20"])
    domain.put(1, VIRQ)
    (found,) = read([domain])
    assert [one.state for one in found.channels] == ["reserved", "virq"]
    memory.put(domain.end + 8, 7, 4)
    with pytest.raises(AbsentError, match="no channels lead to each other"):
        read([domain])


def test_channels_that_do_not_lead_back() -> None:
    memory = FakeMemory()
    domains = hosts(memory, VERSIONS["4.20"])
    for port in range(30, 34):
        domains[0].put(port, INTERDOMAIN, 5, domains[1].address)
    with pytest.raises(AbsentError, match="of 6 channels that may be interdomain, 2 lead to each"):
        read(domains)


def test_nothing_to_find() -> None:
    memory = FakeMemory()
    domain = memory.new()
    with pytest.raises(AbsentError, match="no array of structs whose port numbers"):
        channels.infer(memory, {domain: 0}, PAGE)
    host = hosts(memory, VERSIONS["4.20"])
    memory.put(host[0].end + 48, 0)
    memory.put(host[1].end + 48, 0)
    with pytest.raises(AbsentError, match="no grant table behind the event channels"):
        read(host)


def test_damage_is_refused_or_read() -> None:
    chance = random.Random(1)
    for _ in range(60):
        memory = FakeMemory()
        domains = hosts(memory, VERSIONS["4.20"], buckets=2)
        for _ in range(chance.randrange(1, 200)):
            at = chance.randrange(len(memory.content) // 8) * 8
            value = chance.choice((0, (1 << 64) - 1, START + chance.randrange(0x40000)))
            memory.content[at : at + 8] = value.to_bytes(8, "little")
        try:
            read(domains)
        except AbsentError:
            continue
