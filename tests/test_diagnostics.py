"""Deduplication of warnings."""

import pytest

from xenkdump_fast import diagnostics
from xenkdump_fast.diagnostics import Warnings, deduplicated
from xenkdump_fast.limits import MAX_SAME_WARNINGS


def test_warnings_of_a_kind_are_counted() -> None:
    many = [f"the task at {i:#x} cannot be read: it is at {i * 7}" for i in range(1000)]
    first, *found = deduplicated(["the file is cut", *many, "the file is cut"])
    assert first == "the file is cut"
    assert found[:MAX_SAME_WARNINGS] == many[:MAX_SAME_WARNINGS]
    more = 1000 - MAX_SAME_WARNINGS
    assert found[MAX_SAME_WARNINGS:] == [f"and {more} more like this: {many[MAX_SAME_WARNINGS]}"]


def test_warnings_with_different_reasons_are_one_kind() -> None:
    many = [f"the task at {i:#x} cannot be read: reason {'x' * i}" for i in range(9)]
    assert len(deduplicated(many)) == MAX_SAME_WARNINGS + 1


def test_few_warnings_are_unchanged() -> None:
    assert deduplicated(["b 1", "a", "b 2"]) == ["b 1", "b 2", "a"]
    assert deduplicated([]) == []


def test_deduplicated_warnings_can_be_deduplicated_again() -> None:
    many = [f"the task at {i:#x} cannot be read: {i}" for i in range(100)]
    others = [f"CPU {i} is lost" for i in range(5)]
    once = deduplicated([*others, *many])
    assert deduplicated(once) == once
    # A kernel's warnings, already deduplicated, among others of the same kind.
    assert deduplicated([*many[:2], *deduplicated(many[2:])]) == deduplicated(many)
    parts = [*deduplicated(many[:50]), *others, *deduplicated(many[50:])]
    assert deduplicated(parts) == deduplicated([*many, *others])


def test_any_number_of_warnings_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: 80000 warnings, one per task of a 1 MiB file, were all kept and took 45 s."""
    monkeypatch.setattr(diagnostics, "MAX_KNOWN_WARNINGS", 1000)
    monkeypatch.setattr(diagnostics, "MAX_WARNING_KINDS", 10)
    warnings = Warnings()
    for _ in range(2):
        for i in range(800):
            warnings.add(f"the task at {i:#x} cannot be read")
    assert warnings.texts()[-1] == "and 797 more like this: the task at 0x3 cannot be read"
    for i in range(9000):
        warnings.add(f"the module {chr(0x4E00 + i)} cannot be read")
    assert len(warnings._known) == 1000
    assert len(warnings._kinds) == 11
    assert max(len(kind.texts) for kind in warnings._kinds.values()) == MAX_SAME_WARNINGS + 1
    assert warnings.texts()[-1].startswith("and 8988 more like this: ")


def test_unique_warnings_are_kept_once() -> None:
    found = diagnostics.Unique()
    found.append("a")
    for _ in range(3):
        found += ["b", "a"]
        found.extend(text for text in ("c", "b"))
    assert found == ["a", "b", "c"]
    assert [*found, "a"] == ["a", "b", "c", "a"]
