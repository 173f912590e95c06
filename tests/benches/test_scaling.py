"""The arithmetic of benches/scaling.py, on costs that are given."""

from pathlib import Path

import pytest
from benches.scaling import MIB, Growth, Sample

from benches import scaling

START = Sample("start-up", 1, "--version", 0.5, 20 * MIB, 10)


def sample(value: int, cpu: float, output: int = 0, peak: int = 0, axis: str = "tasks") -> Sample:
    return Sample(axis, value, "ps", 0.5 + cpu, START.peak + peak, output)


@pytest.mark.parametrize(
    ("cpu", "output", "expected"),
    [
        (10.0, 1000, 1.0),
        (100.0, 1000, 2.0),
        # Linear in the output, which grows more than the axis; or in the axis.
        (100.0, 10_000, 1.0),
        (10.0, 100, 1.0),
        # Not at all.
        (1.0, 100, 0.0),
    ],
)
def test_the_exponent_is_relative_to_what_grows_most(
    cpu: float, output: int, expected: float
) -> None:
    found = scaling.growth(sample(10, 1.0, 100), sample(100, cpu, output), START)
    assert found.cpu == pytest.approx(expected)
    assert found.is_flagged == (expected > 1.1)


def test_small_costs_are_not_judged() -> None:
    before, after = sample(10, 0.001, 100), sample(100, 0.099, 1000, 31 * MIB)
    assert scaling.growth(before, after, START) == Growth(None, None)
    # A small cost counts as the least one that is judged.
    after = sample(100, 1.0, 1000, 320 * MIB)
    assert tuple(scaling.growth(before, after, START)) == pytest.approx((1.0, 1.0))


def test_memory_is_flagged_too() -> None:
    found = scaling.growth(sample(1, 0, 1, 64 * MIB), sample(10, 0, 10, 6400 * MIB), START)
    assert found.cpu is None
    assert found.peak == pytest.approx(2.0)
    assert found.is_flagged


def test_new_samples_replace_those_of_an_earlier_run() -> None:
    old = [START, sample(100, 1.0), sample(10, 0.2), sample(10, 0.2, axis="gone")]
    new = [sample(100, 2.0), sample(1, 1.0, axis="vCPUs")]
    found = scaling.merged(old, new)
    assert [(one.axis, one.value) for one in found] == [
        ("start-up", 1),
        ("tasks", 10),
        ("tasks", 100),
        ("vCPUs", 1),
    ]
    assert found[2].cpu == 2.5


def test_the_table(tmp_path: Path) -> None:
    samples = [START, sample(10, 1.0, 100), sample(100, 100.0, 1000)]
    path = tmp_path / "scaling.jsonl"
    pytest.importorskip("matplotlib")
    scaling.write(tmp_path, samples)
    assert scaling.read(path) == samples
    rows = (tmp_path / "scaling.md").read_text().splitlines()
    assert "| ps | 10 | 1.50 | 20.0 | 100 |  |" in rows
    assert "| ps | 100 | 100 | 20.0 | 1,000 | **2.00 / –** |" in rows
    assert "<svg" in (tmp_path / "scaling.svg").read_text()


def test_every_axis_is_a_member_of_a_host() -> None:
    for axis in scaling.AXES:
        for value in axis.values:
            assert getattr(axis.scale(value), axis.member) == value * axis.unit
            assert set(scaling.COMMANDS) <= set(axis.commands_at(value))
