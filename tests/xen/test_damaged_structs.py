"""Random damage of the structs of Xen: results or AbsentError, and no other exception."""

import random
from collections.abc import Callable

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import event_channels, grants

from . import test_event_channels, test_grants, test_run_queues
from .fake_structs import START, FakeMemory

#: Values that pointers and counts take in damaged memory.
VALUES = (0, 1, 7, 0xFFFF, 0xFFFF_FFFF, (1 << 64) - 1, START, START + 4096, START + 1, 1 << 63)


def of_channels() -> tuple[FakeMemory, Callable[[], object]]:
    memory = FakeMemory()
    one = test_event_channels.FakeDomain(memory, 1, buckets=2)
    two = test_event_channels.FakeDomain(memory, 2)
    fifo = memory.new()
    memory.put(two.address + 56, fifo)
    memory.put(fifo, memory.new())
    memory.put(fifo + 1024, 1024, 4)
    for port in range(1, 60):
        one.put(port, port % 8, port, two.address)
        two.put(port, 3, port, one.address)
    return memory, lambda: (
        test_event_channels.read(one, two),
        test_event_channels.read(two, one),
    )


def of_grants() -> tuple[FakeMemory, Callable[[], object]]:
    table = test_grants.FakeTable(2)
    for ref in range(0, 200, 3):
        table.put(ref, test_grants.entry(ref % 16, 1, ref) + bytes(8))
        table.use(ref, ref % 3, ref, ref)
    table.memory.put(table.table + 20, 256, 4)
    return table.memory, table.read


def of_run_queues() -> tuple[FakeMemory, Callable[[], object]]:
    host = test_run_queues.FakeHost("credit")
    host.credit(0, [(1, 0, 0, 300), (2, 3, -1, 5), (1, 1, -2, -120)])
    host.credit(1, [(3, 0, -1, 1)])
    return host.memory, host.read


@pytest.mark.parametrize("make", [of_channels, of_grants, of_run_queues])
def test_random_damage(
    make: Callable[[], tuple[FakeMemory, Callable[[], object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_GRANTS", 1024)
    monkeypatch.setattr(event_channels, "MAX_EVENT_CHANNELS", 1024)
    memory, read = make()
    read()
    chance = random.Random(7)
    intact = bytes(memory.content)
    used = [at for at in range(0, len(intact), 8) if any(intact[at : at + 8])]
    failures = 0
    for _ in range(150):
        memory.content[:] = intact
        for _ in range(chance.choice((1, 1, 3, 20))):
            at = chance.choice(used) + chance.choice((0, 0, 4))
            memory.put(START + at, chance.choice(VALUES) & (1 << 32) - 1, 4)
            if chance.random() < 0.5:
                memory.put(START + at // 8 * 8, chance.choice(VALUES))
        try:
            with memory.budget("damaged structs", 8 << 20):
                read()
        except AbsentError:
            failures += 1
    assert failures < 150
