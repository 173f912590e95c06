"""pCPUs without notes, offline ones, and arrays of Xen that do not fit."""

from types import SimpleNamespace
from typing import cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import pcpu_details
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.layout import Layout
from xenkdump_fast.xen.pcpu_details import PcpuDetails
from xenkdump_fast.xen.structs import Structs

from .fake_structs import FakeMember, FakeMemory, structs

#: The number of CPUs that Xen was built for.
BUILT_FOR = 4
MEMBERS = {
    "cpu_info.per_cpu_offset": FakeMember(16, 8),
    "irq_cpustat_t.__softirq_pending": FakeMember(4, 4),
}
SIZES = {"struct cpu_info": 64, "irq_cpustat_t": 64}
FIRST = 0xFFFF_82D0_4057_9000


class FakeHost:
    """Four pCPUs, of which some have notes."""

    def __init__(self) -> None:
        self.memory = memory = FakeMemory()
        self.symbols: dict[str, tuple[int, int]] = {"__per_cpu_start": (FIRST, 0)}
        for name, size in (("__per_cpu_offset", 8), ("idle_vcpu", 8), ("x86_cpu_to_apicid", 4)):
            self.symbols[name] = memory.new(), size * BUILT_FOR
        self.symbols["irq_stat"] = memory.new(), 64 * BUILT_FOR
        self.symbols["cpu_online_map"] = memory.new(), 8
        self.domains = {number: memory.new() for number in (1, 0x7FFF)}
        for number, domain in self.domains.items():
            memory.put(domain, number, 2)
        self.idle = [self.vcpu(0x7FFF, number) for number in range(BUILT_FOR)]
        self.areas = [memory.new() for _ in range(BUILT_FOR)]
        for number in range(BUILT_FOR):
            self.put("__per_cpu_offset", number, 8, self.offset(number))
            self.put("idle_vcpu", number, 8, self.idle[number])
            self.put("x86_cpu_to_apicid", number, 4, number * 2)
            self.put("irq_stat", number, 64, 0)
        self.pcpus: list[SimpleNamespace] = []
        self.structs: Structs | None = structs(
            memory, MEMBERS, SIZES, {"TIMER_SOFTIRQ": 0, "TASKLET_SOFTIRQ": 5}
        )

    def offset(self, number: int) -> int:
        return self.areas[number] - FIRST & (1 << 64) - 1

    def put(self, name: str, number: int, size: int, value: int) -> None:
        self.memory.put(self.symbols[name][0] + number * size, value, size)

    def vcpu(self, domain: int, number: int) -> int:
        found = self.memory.new()
        self.memory.put(found, number, 4)
        self.memory.put(found + 8, self.domains[domain])
        return found

    def add_notes(self, number: int, vcpu: int) -> None:
        """A pCPU with notes, whose stack has a struct cpu_info."""
        stack = self.memory.new()
        self.memory.put(stack + 4096 - 64 + 16, self.offset(number))
        self.pcpus.append(
            SimpleNamespace(number=number, stack=(stack, stack + 4096), vcpu=vcpu, cr3=0x1000)
        )

    def read(self) -> tuple[list[PcpuDetails], list[str]]:
        layout = Layout()
        layout.offsets = {"vcpu.domain": 8, "vcpu.id": 0}

        def every(name: str) -> list[SimpleNamespace]:
            known = self.symbols.get(name)
            return [] if known is None else [SimpleNamespace(address=known[0], size=known[1])]

        class Host(SimpleNamespace):
            @property
            def structs(self) -> Structs:
                if own is None:
                    raise AbsentError("no DWARF")
                return own

        own = self.structs
        host = Host(
            memory=self.memory,
            word=8,
            layout=layout,
            facts=SimpleNamespace(id=0),
            dump=SimpleNamespace(notes=[]),
            pcpus=self.pcpus,
            symbols=SimpleNamespace(
                all=every, get=lambda name: self.symbols.get(name, (None, 0))[0]
            ),
        )
        return pcpu_details.read(cast(XenHost, host))


@pytest.fixture
def host() -> FakeHost:
    found = FakeHost()
    found.add_notes(0, found.vcpu(1, 3))
    found.add_notes(1, found.idle[1])
    return found


def test_pcpus(host: FakeHost) -> None:
    host.symbols["per_cpu__curr_vcpu"] = FIRST + 32, 8
    loaded = host.vcpu(1, 5)
    host.memory.put(host.areas[1] + 32, loaded)
    host.memory.put(host.symbols["irq_stat"][0] + 64 + 4, 1 << 5 | 1 << 7, 4)
    rows, warnings = host.read()
    assert warnings == []
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [row.apic_id for row in rows] == [0, 2, 4, 6]
    assert [row.per_cpu for row in rows] == host.areas
    assert [str(row.current) for row in rows] == ["d1v3", "d[IDLE]v1", "None", "None"]
    assert str(rows[1].loaded) == "d1v5"
    assert [row.online for row in rows] == [None] * 4
    assert (rows[1].softirqs, rows[1].softirq_names) == (
        1 << 5 | 1 << 7,
        ["TASKLET_SOFTIRQ", "softirq 7"],
    )
    assert [str(row.idle) for row in rows] == [f"d[IDLE]v{number}" for number in range(4)]


def test_missing_notes(host: FakeHost) -> None:
    host.memory.put(host.symbols["cpu_online_map"][0], 0b0111)
    rows, warnings = host.read()
    assert warnings == ["pCPUs are online but have no notes: 2"]
    assert [row.online for row in rows] == [True, True, True, False]
    # One that never started.
    host.put("idle_vcpu", 3, 8, 0)
    rows, _ = host.read()
    assert [row.number for row in rows] == [0, 1, 2]


def test_contradictions(host: FakeHost) -> None:
    host.memory.put(host.pcpus[0].stack[1] - 64 + 16, 0x1234)
    host.add_notes(1, host.idle[1])
    host.symbols["x86_cpu_to_apicid"] = host.symbols["x86_cpu_to_apicid"][0], 13
    rows, warnings = host.read()
    assert warnings[0] == "two pCPUs have the number 1"
    assert "the per-CPU offset on its stack, 0x1234, is not that of" in warnings[1]
    assert rows[0].apic_id is None
    host.put("idle_vcpu", 0, 8, 0x1234)
    rows, _ = host.read()
    assert rows[0].idle is None


def test_a_number_beyond_those_of_xen(host: FakeHost) -> None:
    host.pcpus[1].number = 0xFFFF_FFFF
    rows, _ = host.read()
    last = rows[-1]
    assert last.number == 0xFFFF_FFFF
    assert (last.apic_id, last.per_cpu, last.idle, last.softirqs) == (None, None, None, None)


def test_without_debug_information(host: FakeHost) -> None:
    host.structs = None
    rows, warnings = host.read()
    assert warnings == ["pending softirqs are not known: no DWARF"]
    assert rows[0].softirqs is None
    assert rows[0].apic_id == 0
