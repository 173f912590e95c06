"""Xen's timers: heaps behind locks of several sizes, lists, the running one, damage."""

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import timers
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.layout import Layout
from xenkdump_fast.xen.structs import Structs
from xenkdump_fast.xen.timers import Timers

from .fake_structs import START, FakeMember, FakeMemory, structs

VARIABLE = 0xFFFF_82D0_4057_A280
RUNSTATE = 0x40


class Symbols(dict[str, Any]):
    def all(self, name: str) -> list[Any]:
        return [SimpleNamespace(address=self[name])] if name in self else []

    def lookup(self, address: int) -> Any:
        below = [(at, name) for name, at in self.items() if at <= address < at + 64]
        return SimpleNamespace(address=max(below)[0], name=max(below)[1]) if below else None


class FakeHost:
    """Two pCPUs."""

    def __init__(self, lock: int = 8) -> None:
        self.lock = lock
        self.memory = memory = FakeMemory()
        offsets = memory.new()
        self.text = memory.new()
        self.symbols = Symbols(
            per_cpu__timers=VARIABLE,
            __per_cpu_offset=offsets,
            s_timer_fn=self.text,
            time_calibration=self.text + 64,
        )
        self.areas, self.heaps = [], []
        for pcpu in range(2):
            area, heap = memory.new(), memory.new()
            memory.put(offsets + pcpu * 8, area - VARIABLE & (1 << 64) - 1)
            memory.put(area + lock, heap)
            memory.put(heap + 2, 63, 2)
            self.areas.append(area)
            self.heaps.append(heap)
        self.structs: Structs | None = None
        self.layout = Layout()

    def timer(self, pcpu: int, expires: int, function: int, status: int = 0) -> int:
        at = self.memory.new()
        self.memory.put(at, expires)
        self.memory.put(at + 24, function)
        self.memory.put(at + 32, 0x77)
        self.memory.put(at + 40, pcpu, 2)
        self.memory.put(at + 42, status, 1)
        return at

    def add(self, pcpu: int, expires: int, function: int | None = None) -> int:
        """The next entry of a heap."""
        memory, heap = self.memory, self.heaps[pcpu]
        size = (memory.number(heap, 2) or 0) + 1
        at = self.timer(pcpu, expires, self.text if function is None else function, 3)
        memory.put(at + 8, size, 4)
        memory.put(heap, size, 2)
        memory.put(heap + size * 8, at)
        return at

    def read(self) -> Timers:
        fake = SimpleNamespace(
            word=8,
            memory=self.memory,
            symbols=self.symbols,
            pcpus=[SimpleNamespace(number=n, vcpu=None) for n in range(2)],
            layout=self.layout,
            dump=SimpleNamespace(path="vmcore"),
            domains=list,
        )
        if self.structs is None:
            # As the property of a host without DWARF.
            class Without(SimpleNamespace):
                @property
                def structs(self) -> Structs:
                    raise AbsentError("no DWARF")

            fake = Without(**vars(fake))
        else:
            fake.structs = self.structs
        return timers.read(cast(XenHost, fake))


def filled(lock: int = 8) -> FakeHost:
    host = FakeHost(lock)
    for expires in (1000, 3000, 2000, 9000):
        host.add(0, expires)
    host.add(1, 500, host.text + 64)
    return host


def shown(found: Timers, pcpu: int = 0) -> list[tuple[Any, ...]]:
    return [(one.expires, one.symbol, one.offset, one.where) for one in found.rows[pcpu].timers]


@pytest.mark.parametrize("lock", [8, 16, 24])
def test_without_debug_information(lock: int) -> None:
    found = filled(lock).read()
    assert shown(found) == [(n, "s_timer_fn", 0, "heap") for n in (1000, 2000, 3000, 9000)]
    assert shown(found, 1) == [(500, "time_calibration", 0, "heap")]
    (text,) = found.warnings
    assert "the layout is inferred: 5 timers form heaps" in text
    assert (found.time, found.time_by) == (None, None)


def test_by_debug_information() -> None:
    host = filled(40)
    with pytest.raises(AbsentError, match="no offset in struct timers leads to a heap"):
        host.read()
    members = {
        f"timers.{name}": FakeMember(40 + at, 8, "ptr")
        for name, at in (("heap", 0), ("list", 8), ("running", 16))
    }
    host.structs = structs(host.memory, members)
    assert host.read().warnings == []


def test_the_list_and_the_running_timer() -> None:
    host = filled()
    first, second = (host.timer(0, expires, host.text + 5, 4) for expires in (70, 60))
    running = host.timer(0, 10, host.text)
    host.memory.put(first + 8, second)
    host.memory.put(host.areas[0] + 16, first)
    host.memory.put(host.areas[0] + 24, running)
    assert shown(host.read())[:3] == [
        (10, "s_timer_fn", 0, "running"),
        (60, "s_timer_fn", 5, "list"),
        (70, "s_timer_fn", 5, "list"),
    ]
    host.memory.put(second + 8, first)
    assert f"pCPU 0: its list of timers is damaged at {first:#x}" in host.read().warnings


def test_damage() -> None:
    host = filled()
    members = {
        f"timers.{name}": FakeMember(8 + at, 8, "ptr")
        for name, at in (("heap", 0), ("list", 8), ("running", 16))
    }
    host.structs = structs(host.memory, members)
    second = host.memory.pointer(host.heaps[0] + 16) or 0
    host.memory.put(second, 10)
    (text,) = host.read().warnings
    assert text == f"pCPU 0: timer {second:#x}: it expires before the timer above it in the heap"
    host.memory.put(second + 42, 1, 1)
    assert "its status 1 is not that of a timer in a heap" not in text
    host.memory.put(second, 3000)
    assert "its status 1 is not that of a timer in a heap" in host.read().warnings[0]
    host.memory.put(second + 42, 3, 1)
    host.memory.put(second + 40, 7, 2)
    assert "it is of pCPU 7" in host.read().warnings[0]
    host.memory.put(host.heaps[0] + 24, 8)
    assert "1 of 4 timers in its heap cannot be read" in host.read().warnings[0]
    host.memory.put(host.heaps[0], 64, 2)
    assert "64 of 63 entries are in use" in host.read().warnings[0]


def test_the_time() -> None:
    host = filled()
    host.layout.offsets["vcpu.runstate"] = RUNSTATE
    vcpu = host.memory.new()
    host.memory.put(vcpu + RUNSTATE + 8, 4242)
    domain = SimpleNamespace(id=3, vcpus=[SimpleNamespace(id=1, address=vcpu)])
    xen: Any = SimpleNamespace(
        layout=host.layout, memory=host.memory, domains=lambda: [domain], pcpus=[]
    )
    assert timers._latest(xen) == (4242, "runstate of d3v1")


def test_without_symbols() -> None:
    host = filled()
    host.symbols = cast(Any, None)
    with pytest.raises(AbsentError, match="timers need Xen's symbols"):
        host.read()
    host = filled()
    del host.symbols["per_cpu__timers"]
    with pytest.raises(AbsentError, match="no per_cpu__timers"):
        host.read()


def test_any_damage() -> None:
    chance = random.Random(1)
    for _ in range(60):
        host = filled()
        for _ in range(chance.randrange(1, 40)):
            at = chance.randrange(16 * 4096 // 8) * 8
            value = chance.choice((0, (1 << 64) - 1, START + chance.randrange(0x10000)))
            host.memory.content[at : at + 8] = value.to_bytes(8, "little")
        try:
            host.read()
        except AbsentError:
            continue
