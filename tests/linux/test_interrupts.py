"""Interrupts of damaged kernels."""

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, words
from xenkdump_fast import AbsentError
from xenkdump_fast.limits import MAX_IRQS
from xenkdump_fast.linux.interrupts import Interrupts

TREE, NODE = 0xFFFF888000010000, 0xFFFF888000020000
DESCS, ACTIONS, NAMES = 0xFFFF888000030000, 0xFFFF888000040000, 0xFFFF888000050000


def word(offset: int) -> FakeMember:
    return FakeMember(offset, 8)


LAYOUT: dict[str, int | FakeMember] = {
    "xarray.xa_head": word(8),
    "xa_node.slots": FakeMember(16, 32, count=4),
    "xa_node.shift": FakeMember(0, 1),
    "irq_desc.action": word(0),
    "irq_desc.irq_data.chip": word(8),
    "irq_desc.name": word(16),
    "irq_desc.kstat_irqs": word(24),
    "irq_chip.name": word(0),
    "irqaction": 32,
    "irqaction.handler": word(0),
    "irqaction.name": word(8),
    "irqaction.next": word(16),
}
SYMBOLS = {"irq_desc_tree": TREE, "nr_irqs": TREE + 64}


def kernel() -> FakeKernel:
    """Interrupts 0 and 2; the first one has two handlers."""
    made = FakeKernel(dict(SYMBOLS), dict(LAYOUT))
    memory = made.memory
    memory.write(TREE, words(8, 0, NODE | 2))
    memory.number(TREE + 64, 4, 4)
    memory.write(NODE, words(8, 0, 0, DESCS, 0, DESCS + 64, 0))
    memory.write(DESCS, words(8, ACTIONS, NAMES + 64, NAMES + 16, 0))
    memory.write(DESCS + 64, words(8, 0, 0, 0, 0))
    memory.write(ACTIONS, words(8, 0x1000, NAMES, ACTIONS + 32))
    memory.write(ACTIONS + 32, words(8, 0x2000, 0, 0))
    memory.write(NAMES, b"timer\0")
    memory.write(NAMES + 16, b"edge\0")
    memory.write(NAMES + 32, b"IO-APIC\0")
    memory.write(NAMES + 64, words(8, NAMES + 32))
    return made


def test_descriptors() -> None:
    interrupts = Interrupts(kernel())
    first, second = interrupts.read(range(4))
    assert (first.number, first.chip, first.flow) == (0, "IO-APIC", "edge")
    assert [(one.name, one.handler) for one in first.actions] == [("timer", 0x1000), (None, 0x2000)]
    assert (second.number, second.actions, second.chip) == (2, [], None)
    assert interrupts.counts(first, [0]) == [0]


@pytest.mark.parametrize("following", [ACTIONS, ACTIONS + 32, 0xDEAD0000])
def test_broken_handlers(following: int) -> None:
    made = kernel()
    made.memory.number(ACTIONS + 48, following, 8)
    first, _ = Interrupts(made).read(range(4))
    assert len(first.actions) == 2
    assert any("the handlers of the interrupt 0 are not complete" in w for w in made.warnings)


@pytest.mark.parametrize("head", [0x1002, NODE | 2 | 0x100000])
def test_broken_trees(head: int) -> None:
    made = kernel()
    made.memory.number(TREE + 8, head, 8)
    assert list(Interrupts(made).read(range(4))) == []
    assert any("the interrupts are not complete" in text for text in made.warnings)


def test_an_interrupt_beyond_the_last() -> None:
    made = kernel()
    made.memory.number(TREE + 64, 2, 4)
    assert [one.number for one in Interrupts(made).read(range(2))] == [0]
    assert any("the interrupts are not complete" in text for text in made.warnings)


def test_an_absurd_number() -> None:
    made = kernel()
    made.memory.number(TREE + 64, MAX_IRQS + 1, 4)
    with pytest.raises(AbsentError, match="the number of interrupts is"):
        _ = Interrupts(made).count


def test_unreadable_descriptors_and_names() -> None:
    made = kernel()
    made.memory.drop(NAMES)
    first, _ = Interrupts(made).read(range(4))
    assert (first.chip, first.flow, first.actions[0].name) == ("?", "?", "?")
    assert any(text.startswith("a name of an interrupt is not known: ") for text in made.warnings)
    made.memory.drop(DESCS)
    assert list(Interrupts(made).read(range(4))) == []


def test_an_unknown_kind_of_table() -> None:
    made = FakeKernel({"nr_irqs": TREE + 64}, dict(LAYOUT))
    made.memory.number(TREE + 64, 4, 4)
    with pytest.raises(AbsentError, match="no symbol sparse_irqs or irq_desc_tree"):
        _ = Interrupts(made).descriptors
