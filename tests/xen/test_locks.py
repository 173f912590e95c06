"""Held locks of Xen: tickets, recursive and debug owners, rwlocks of two forms, readers."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import locks
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.locks import Held, Locks

from .fake_structs import FakeMember, FakeMemory, structs

VARIABLE = 0xFFFF_82D0_4057_A280
NOBODY = 0xFFFF


def member(offset: int, size: int, type_name: str) -> FakeMember:
    return FakeMember(offset, size, "struct", type_name=type_name)


NEW = {
    "spinlock_t.tickets": FakeMember(0, 4, "union"),
    "rspinlock_t.tickets": FakeMember(0, 4, "union"),
    "rspinlock_t.recurse_cpu": FakeMember(4, 2),
    "rwlock_t.cnts.counter": FakeMember(0, 4),
    "percpu_rwlock_t.rwlock": FakeMember(0, 8, "struct"),
    "mm_lock_t.lock": member(0, 8, "rspinlock_t"),
    "mm_lock_t.locker_function": FakeMember(16, 8, "ptr"),
    "mm_rwlock_t.lock": member(0, 12, "percpu_rwlock_t"),
    "mm_rwlock_t.locker": FakeMember(20, 4),
    "mm_rwlock_t.locker_function": FakeMember(24, 8, "ptr"),
    "domain.domain_lock": member(32, 8, "rspinlock_t"),
    "domain.shutdown_lock": member(40, 4, "spinlock_t"),
    "domain.event_lock": member(48, 8, "rwlock_t"),
    "domain.arch.paging.lock": member(64, 24, "mm_lock_t"),
    "domain.grant_table": FakeMember(96, 8, "ptr"),
    "domain.arch.p2m": FakeMember(104, 8, "ptr"),
    "grant_table.lock": member(0, 12, "percpu_rwlock_t"),
    "grant_table.maptrack_lock": member(16, 4, "spinlock_t"),
    "p2m_domain.lock": member(0, 32, "mm_rwlock_t"),
    "vcpu.virq_lock": member(8, 8, "rwlock_t"),
    "sched_resource.schedule_lock": FakeMember(0, 8, "ptr"),
}
OLD = {
    **{name: one for name, one in NEW.items() if not name.startswith("rspinlock_t")},
    "spinlock_t.recurse_cpu": FakeMember(4, 2, bit_offset=0, bit_size=12),
    "domain.domain_lock": member(32, 8, "spinlock_t"),
}


class FakeHost:
    """Two pCPUs and a domain with a vCPU."""

    def __init__(self, members: dict[str, FakeMember] | None = NEW) -> None:
        self.members = members
        self.memory = memory = FakeMemory()
        self.domain, self.vcpu, self.table, self.p2m = (memory.new() for _ in range(4))
        memory.put(self.domain + 96, self.table)
        memory.put(self.domain + 104, self.p2m)
        offsets = memory.new()
        self.areas = [memory.new() for _ in range(2)]
        for pcpu, area in enumerate(self.areas):
            memory.put(offsets + pcpu * 8, area - VARIABLE & (1 << 64) - 1)
        self.queue = memory.new()
        resource = memory.new()
        memory.put(resource, self.queue)
        for area in self.areas:
            memory.put(area + 16, resource)
        self.symbols = {
            "__per_cpu_offset": offsets,
            "per_cpu__timers": VARIABLE,
            "per_cpu__sched_res": VARIABLE + 16,
            "per_cpu__grant_rwlock": VARIABLE + 24,
            "heap_lock": memory.new(),
            "console_lock": memory.new(),
        }
        for at in (self.symbols["console_lock"], self.domain + 32, self.domain + 64):
            memory.put(at + 4, NOBODY, 2)

    def hold(self, at: int, waiters: int = 0, cpu: int | None = None, head: int = 7) -> None:
        self.memory.put(at, head, 2)
        self.memory.put(at + 2, head + waiters + 1 & 0xFFFF, 2)
        if cpu is not None:
            self.memory.put(at + 4, cpu, 2)

    def read(self) -> Locks:
        names = self.symbols
        domain = SimpleNamespace(
            id=3, address=self.domain, vcpus=[SimpleNamespace(id=0, address=self.vcpu)]
        )

        class Host(SimpleNamespace):
            @property
            def structs(self) -> Any:
                if self.types is None:
                    raise AbsentError("no DWARF")
                return self.types

        fake = Host(
            memory=self.memory,
            types=None if self.members is None else structs(self.memory, self.members),
            symbols=SimpleNamespace(
                get=names.get,
                all=lambda name: [SimpleNamespace(address=names[name])] if name in names else [],
            ),
            pcpus=[SimpleNamespace(number=0), SimpleNamespace(number=1)],
            dump=SimpleNamespace(path="vmcore"),
            domains=lambda: [domain],
        )
        return locks.read(cast(XenHost, fake))

    def text(self) -> list[str]:
        found = self.read()
        every: list[Held] = [*found.of_xen]
        for own in (*found.of_pcpus.values(), *found.of_domains.values()):
            every += own
        return [str(one) for one in every]


def test_nothing_is_held() -> None:
    host = FakeHost()
    assert host.text() == []
    found = host.read()
    assert found.note == "the build records the owners of recursive locks and of writers only"
    assert found.warnings == []


def test_tickets() -> None:
    host = FakeHost()
    host.hold(host.symbols["heap_lock"], waiters=2)
    host.hold(host.domain + 40, head=0xFFFF)
    assert host.text() == ["heap_lock (2 waiting)", "shutdown_lock"]
    host.hold(host.symbols["heap_lock"], waiters=40000)
    assert host.text()[0] == "heap_lock (40000 waiting, damaged)"


@pytest.mark.parametrize("members", [NEW, OLD])
def test_recursive_locks(members: dict[str, FakeMember]) -> None:
    host = FakeHost(members)
    # In the older layout the upper bits count.
    host.hold(host.symbols["console_lock"], 1, 5 if members is NEW else 0x1005)
    host.hold(host.domain + 32, cpu=1)
    assert host.text() == ["console_lock (by CPU 5, 1 waiting)", "domain_lock (by CPU 1)"]


def test_a_debug_build() -> None:
    host = FakeHost({**NEW, "spinlock_t.debug.cpu": FakeMember(4, 4, bit_offset=0, bit_size=16)})
    at = host.symbols["heap_lock"]
    host.hold(at, cpu=3)
    assert host.text() == ["heap_lock (by CPU 3)"]
    assert "CONFIG_DEBUG_LOCKS" in host.read().note
    host.memory.put(at + 4, NOBODY, 2)
    assert host.text() == ["heap_lock"]


@pytest.mark.parametrize(("members", "shift"), [(NEW, 14), (OLD, 12)])
def test_rwlocks(members: dict[str, FakeMember], shift: int) -> None:
    host = FakeHost(members)
    host.memory.put(host.domain + 48, 3 << shift | 9, 4)
    host.memory.put(host.vcpu + 8, 2 << shift + 2, 4)
    assert host.text() == [
        "event_lock (for writing, by CPU 9)",
        "vcpu 0 virq_lock (for reading, 2 readers)",
    ]
    # A writer that waits holds nothing.
    host.memory.put(host.domain + 48, 1 << shift | 9, 4)
    host.memory.put(host.vcpu + 8, 0, 4)
    assert host.text() == []


def test_readers_of_percpu_rwlocks() -> None:
    host = FakeHost()
    for area in host.areas:
        host.memory.put(area + 24, host.table)
    assert host.text() == ["grant_table.lock (for reading, by CPU 0, 1, 2 readers)"]
    host.memory.put(host.areas[0] + 24, 0)
    assert host.text() == ["grant_table.lock (for reading, by CPU 1, 1 reader)"]
    host.memory.put(host.table, 3 << 14 | 1, 4)
    assert host.text() == ["grant_table.lock (for writing, by CPU 1)"]


def test_locks_of_memory_management() -> None:
    host = FakeHost()
    text = host.memory.new()
    host.memory.put(text, int.from_bytes(b"paging_\n", "little"))
    host.hold(host.domain + 64, cpu=1)
    host.memory.put(host.domain + 64 + 16, text)
    host.memory.put(host.p2m, 3 << 14 | 9, 4)
    host.memory.put(host.p2m + 20, 0, 4)
    assert host.text() == [
        "arch.paging.lock (by CPU 1, in paging_?)",
        "p2m.lock (for writing, by CPU 0)",
    ]


def test_locks_of_pcpus() -> None:
    host = FakeHost()
    host.hold(host.areas[1])
    # One queue for both pCPUs. The timers' lock of pCPU 0 is at its area.
    host.hold(host.queue)
    found = host.read().of_pcpus
    assert [one.name for one in found[0]] == ["schedule_lock"]
    assert [one.name for one in found[1]] == ["timers.lock", "schedule_lock"]


def test_without_debug_information() -> None:
    host = FakeHost(None)
    host.hold(host.symbols["heap_lock"], cpu=1)
    host.hold(host.domain + 40)
    assert host.text() == ["heap_lock"]
    found = host.read()
    assert found.note == "owners are not known"
    assert "locks of domains, and owners of locks, are not known" in found.warnings[0]


def test_before_ticket_locks() -> None:
    with pytest.raises(AbsentError, match=r"Xen 4\.6 on only"):
        FakeHost({}).read()
