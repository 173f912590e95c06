"""What is missing is said once."""

import pytest

from xenkdump_fast import diagnostics
from xenkdump_fast.diagnostics import FEW, Warnings, fold


def test_warnings_of_a_kind_are_counted() -> None:
    many = [f"the task at {i:#x} cannot be read: it lies at {i * 7}" for i in range(1000)]
    told = fold(["the file is cut", *many, "the file is cut"])
    assert told[0] == "the file is cut"
    assert told[1 : 1 + FEW] == many[:FEW]
    assert told[1 + FEW :] == [f"and {1000 - FEW} more like this: {many[FEW]}"]


def test_the_reason_does_not_make_a_kind() -> None:
    told = fold([f"the task at {i:#x} cannot be read: reason {'x' * i}" for i in range(9)])
    assert len(told) == FEW + 1


def test_few_are_told_as_they_are() -> None:
    assert fold(["b 1", "a", "b 2"]) == ["b 1", "b 2", "a"]
    assert fold([]) == []


def test_what_is_folded_is_folded_no_further() -> None:
    many = [f"the task at {i:#x} cannot be read: {i}" for i in range(100)]
    others = [f"CPU {i} is lost" for i in range(5)]
    told = fold([*others, *many])
    assert fold(told) == told
    # A kernel's own, which are folded, among others of their kind.
    assert fold([*many[:2], *fold(many[2:])]) == fold(many)
    assert fold([*fold(many[:50]), *others, *fold(many[50:])]) == fold([*many, *others])


def test_warnings_cost_nothing_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """80000 tasks in a file of 1 MiB, of each a warning: 45 s, and all of them kept."""
    monkeypatch.setattr(diagnostics, "MAX_KNOWN", 1000)
    monkeypatch.setattr(diagnostics, "MAX_KINDS", 10)
    warnings = Warnings()
    for _ in range(2):
        for i in range(800):
            warnings.add(f"the task at {i:#x} cannot be read")
    assert warnings.told()[-1] == "and 797 more like this: the task at 0x3 cannot be read"
    for i in range(9000):
        warnings.add(f"the module {chr(0x4E00 + i)} cannot be read")
    assert len(warnings._known) == 1000
    assert len(warnings._kinds) == 11
    assert max(len(kind.texts) for kind in warnings._kinds.values()) == FEW + 1
    assert warnings.told()[-1].startswith("and 8988 more like this: ")
