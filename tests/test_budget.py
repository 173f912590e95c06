"""Budgets: nested ones, and memory whose reads are charged."""

import pytest

from xenkdump_fast.budget import Budget, BudgetExceededError, Charged


def test_a_nested_budget_charges_the_outer_one() -> None:
    outer = Budget("bytes", 1000)
    inner = outer.nested("words", 600)
    inner.spend(500)
    assert (inner.remaining, outer.remaining) == (100, 500)
    with pytest.raises(BudgetExceededError, match="the words are more than the dump can hold"):
        inner.spend(101)
    assert inner.exhausted
    assert not outer.exhausted
    outer.spend(500)
    assert outer.nested("words", 600).exhausted


def test_reads_are_charged_within_the_block_only() -> None:
    memory = Charged()
    memory.charge(1 << 40)
    with memory.budget("structs", 5000) as structs:
        memory.charge(4096)
        with memory.budget("lists", 1 << 40) as lists:
            # A small read is charged as one of 256 bytes.
            memory.charge(8)
            assert lists.remaining == 5000 - 4096 - 256
        assert structs.remaining == lists.remaining
        with pytest.raises(BudgetExceededError, match="the structs"):
            memory.charge(1000)
        assert structs.exhausted
    memory.charge(1 << 40)


def test_a_budget_is_shared_by_several_blocks() -> None:
    memory, budget = Charged(), Budget("structs", 1024)
    for _ in range(4):
        with memory.charging(budget):
            memory.charge(256)
    with pytest.raises(BudgetExceededError), memory.charging(budget):
        memory.charge(1)
    # The block that failed has ended.
    memory.charge(1)
