"""Event channels in a layout that no version of Xen has: both ABIs, buckets, damage."""

from typing import cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen.event_channels import Channels, Reader
from xenkdump_fast.xen.host import HostDomain

from .fake_structs import PAGE, START, FakeMember, FakeMemory, structs

MEMBERS = {
    "domain.evtchn": FakeMember(8, 8, "ptr"),
    "domain.evtchn_group": FakeMember(16, 32, "array", count=4),
    "domain.valid_evtchns": FakeMember(48, 4),
    "domain.evtchn_fifo": FakeMember(56, 8, "ptr"),
    "domain.arch.has_32bit_shinfo": FakeMember(64, 1),
    "evtchn.port": FakeMember(0, 4),
    "evtchn.state": FakeMember(5, 1),
    "evtchn.xen_consumer": FakeMember(6, 1, bit_offset=0, bit_size=3),
    "evtchn.priority": FakeMember(7, 1),
    "evtchn.notify_vcpu_id": FakeMember(8, 2),
    "evtchn.u.unbound.remote_domid": FakeMember(16, 2),
    "evtchn.u.interdomain.remote_port": FakeMember(16, 4),
    "evtchn.u.interdomain.remote_dom": FakeMember(24, 8, "ptr"),
    "evtchn.u.pirq.irq": FakeMember(16, 4),
    "evtchn.u.virq": FakeMember(16, 4),
    "evtchn_fifo_domain.event_array": FakeMember(0, 1024, "array", count=128),
    "evtchn_fifo_domain.num_evtchns": FakeMember(1024, 4),
}
#: 40 bytes leave 64 structs in a page: buckets count by the next power of 2.
SIZE = 40
PER_BUCKET = 64
FREE, RESERVED, UNBOUND, INTERDOMAIN, PIRQ, VIRQ, IPI = range(7)


class FakeDomain:
    """A domain with channels in ``buckets`` buckets."""

    def __init__(self, memory: FakeMemory, number: int, buckets: int = 1) -> None:
        self.memory = memory
        self.id = number
        self.word = 8
        self.address = memory.new()
        self.shared_page: bytes | None = bytes(PAGE)
        self.buckets = [memory.new() for _ in range(buckets)]
        memory.put(self.address + 8, self.buckets[0])
        group = memory.new()
        memory.put(self.address + 16, group)
        for index, bucket in enumerate(self.buckets):
            memory.put(group + index * 8, bucket)
            for port in range(PER_BUCKET):
                memory.put(bucket + port * SIZE, index * PER_BUCKET + port, 4)
        memory.put(self.address + 48, buckets * PER_BUCKET, 4)

    def at(self, port: int) -> int:
        return self.buckets[port // PER_BUCKET] + port % PER_BUCKET * SIZE

    def put(self, port: int, state: int, target: int = 0, remote: int = 0, vcpu: int = 0) -> None:
        at = self.at(port)
        self.memory.put(at + 5, state, 1)
        self.memory.put(at + 8, vcpu, 2)
        self.memory.put(at + 16, target, 4)
        self.memory.put(at + 24, remote)


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


def read(domain: FakeDomain, *others: FakeDomain, without: str = "") -> Channels:
    known = {one.address: one.id for one in (domain, *others)}
    members = {name: member for name, member in MEMBERS.items() if name != without}
    reader = Reader(structs(domain.memory, members, {"struct evtchn": SIZE}), known)
    return reader.read(cast(HostDomain, domain))


def test_states(memory: FakeMemory) -> None:
    one, two = FakeDomain(memory, 1), FakeDomain(memory, 2, buckets=3)
    one.put(0, RESERVED)
    one.put(1, UNBOUND, 7)
    one.put(2, INTERDOMAIN, 150, two.address, vcpu=3)
    two.put(150, INTERDOMAIN, 2, one.address)
    one.put(3, PIRQ, 411)
    one.put(4, VIRQ, 8)
    one.put(63, IPI)
    found = read(one, two)
    assert found.warnings == []
    assert (found.abi, found.valid) == ("2-level", 64)
    shown = [
        (c.port, c.state, c.remote_domain, c.remote_port, c.pirq, c.virq) for c in found.channels
    ]
    assert shown == [
        (0, "reserved", None, None, None, None),
        (1, "unbound", 7, None, None, None),
        (2, "interdomain", 2, 150, None, None),
        (3, "pirq", None, None, 411, None),
        (4, "virq", None, None, None, 8),
        (63, "ipi", None, None, None, None),
    ]
    assert found.channels[2].vcpu == 3
    (other,) = read(two, one).channels
    assert (other.port, other.remote_domain, other.remote_port) == (150, 1, 2)


@pytest.mark.parametrize(("is_32bit", "word", "masks"), [(0, 4, 2560), (1, 8, 2176)])
def test_two_level_bitmaps(memory: FakeMemory, is_32bit: int, word: int, masks: int) -> None:
    """The word of shared_info decides, not that of the kernel."""
    domain = FakeDomain(memory, 1)
    domain.word = word
    memory.put(domain.address + 64, is_32bit, 1)
    for port in (9, 10, 11):
        domain.put(port, IPI)
    page = bytearray(PAGE)
    page[2048 + 1] = 1 << 1 | 1 << 3
    page[masks + 1] = 1 << 2 | 1 << 3
    domain.shared_page = bytes(page)
    found = [(c.pending, c.masked, c.priority) for c in read(domain).channels]
    assert found == [(True, False, None), (False, True, None), (True, True, None)]
    domain.shared_page = None
    lost = read(domain)
    assert [c.pending for c in lost.channels] == [None] * 3
    assert lost.warnings == ["pending and masked channels are not known: no shared_info"]


def test_fifo_words(memory: FakeMemory) -> None:
    domain = FakeDomain(memory, 1, buckets=20)
    fifo, words = memory.new(), memory.new()
    memory.put(domain.address + 56, fifo)
    memory.put(fifo, words)
    memory.put(fifo + 8, 0x1000)
    for port in (5, 6, 1030):
        domain.put(port, IPI)
        memory.put(domain.at(port) + 7, 4, 1)
    memory.put(words + 5 * 4, 1 << 31, 4)
    memory.put(words + 6 * 4, 1 << 30 | 1 << 31 | 1 << 29, 4)
    memory.put(fifo + 1024, 1024, 4)
    found = read(domain)
    assert found.abi == "FIFO"
    shown = [(c.port, c.pending, c.masked, c.priority) for c in found.channels]
    # Xen takes a port without a word for masked.
    assert shown == [(5, True, False, 4), (6, True, True, 4), (1030, False, True, 4)]
    assert found.warnings == []
    memory.put(fifo + 1024, 2048, 4)
    found = read(domain)
    assert (found.channels[2].pending, found.channels[0].pending) == (None, True)
    assert found.warnings == [
        "pending and masked channels are not all known: a page cannot be read"
    ]


def test_contradictions(memory: FakeMemory) -> None:
    one, two = FakeDomain(memory, 1), FakeDomain(memory, 2)
    one.put(1, INTERDOMAIN, 5, two.address)
    one.put(2, INTERDOMAIN, 6, two.address)
    one.put(3, INTERDOMAIN, 64, two.address)
    one.put(4, INTERDOMAIN, 1, START + 8)
    one.put(5, 9)
    one.put(6, IPI)
    memory.put(one.at(6), 77, 4)
    two.put(6, INTERDOMAIN, 3, one.address)
    found = read(one, two)
    assert found.warnings == [
        "port 1: its other end, port 5, is not bound",
        "port 2: its other end, port 6, is bound to another channel",
        "port 3: its other end, port 64, cannot be read",
        f"port 4: its other end is no domain that is known: {START + 8:#x}",
        "port 5: its state 9 does not exist",
        "port 6: its struct is of port 77",
    ]
    assert [c.remote_domain for c in found.channels[:4]] == [2, 2, 2, None]


def test_damage(memory: FakeMemory) -> None:
    domain = FakeDomain(memory, 1, buckets=2)
    domain.put(70, IPI)
    memory.put(domain.address + 8, 0x1000)
    found = read(domain)
    assert [c.port for c in found.channels] == [70]
    assert found.warnings == ["64 of 128 ports are not known: their structs cannot be read"]
    memory.put(domain.address + 48, 0xFFFF_FFFF, 4)
    found = read(domain)
    assert found.warnings == [
        "its number of event channels is damaged: 4294967295",
        "131008 of 131072 ports are not known: their structs cannot be read",
    ]
    memory.put(domain.address + 48, PER_BUCKET, 4)
    memory.put(domain.address + 8, domain.buckets[0])
    for port in range(PER_BUCKET):
        domain.put(port, INTERDOMAIN, port)
    found = read(domain)
    assert len(found.warnings) == 17
    assert found.warnings[-1] == "48 more event channels are damaged"
    domain.address = 1 << 62
    with pytest.raises(AbsentError, match="cannot be read"):
        read(domain)


def test_without_the_number_of_ports(memory: FakeMemory) -> None:
    """Xen before 4.14.1: the buckets say it."""
    one, two = FakeDomain(memory, 1, buckets=3), FakeDomain(memory, 2)
    one.put(130, INTERDOMAIN, 5, two.address)
    two.put(5, INTERDOMAIN, 130, one.address)
    found = read(one, two, without="domain.valid_evtchns")
    assert (found.valid, [c.port for c in found.channels]) == (192, [130])
    assert found.warnings == []
    two.put(5, INTERDOMAIN, 200, one.address)
    found = read(two, one, without="domain.valid_evtchns")
    assert found.warnings == ["port 5: its other end, port 200, cannot be read"]


def test_unknown_layouts(memory: FakeMemory) -> None:
    known = {name: one for name, one in MEMBERS.items() if name != "domain.evtchn_group"}
    with pytest.raises(AbsentError, match=r"before 4\.4"):
        Reader(structs(memory, known, {"struct evtchn": SIZE}), {})
    with pytest.raises(AbsentError, match="larger than a page"):
        Reader(structs(memory, MEMBERS, {"struct evtchn": PAGE + 1}), {})
