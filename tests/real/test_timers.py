"""``timer`` against drgn and crash."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import timer
from xenkdump_fast.commands.contract import UsageError

from .. import rendering
from .reference_lines import by_crash, by_drgn, every_kernel, fields

pytestmark = pytest.mark.real

PRECISE = timer.Options(high_resolution=True)


def wheel(rows: Iterable[list[str]]) -> dict[str, list[list[str]]]:
    """The timers of each base, in an order that does not depend on that of the output."""
    found: dict[str, list[list[str]]] = {}
    base = ""
    for row in rows:
        if row[0].startswith("TIMER_BASES"):
            base = " ".join(row)
            found[base] = []
        elif base and row[0].isdecimal():
            found[base].append(row)
    return {base: sorted(timers) for base, timers in found.items()}


def precise(rows: Iterable[list[str]]) -> list[list[str]]:
    """Without the name of the function that reads a clock, which drgn does not show."""
    return [row[:4] if row[0] == "CLOCK:" else row for row in rows]


@every_kernel
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    shown = fields(timer.run(domain).text())
    expected = by_drgn(domain, "timer")
    assert shown[:2] == expected[:2]  # jiffies
    assert wheel(shown) == wheel(expected)
    assert sum(map(len, wheel(shown).values())) > 8
    high = fields(timer.run(domain, PRECISE).text())
    assert precise(high) == precise(by_drgn(domain, "timer -r"))
    assert sum("<hrtimer_wakeup>" in row for row in high) > 1
    assert not domain.warnings


@pytest.mark.parametrize("name", ["bare-x86_64", "xen417-three-domains"])
def test_as_crash(name: str, dump_file: Callable[[str], str], tmp_path: Path) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(0)
    expected = by_crash(dump_file, tmp_path, name, ["timer", "timer -r"])
    assert fields(timer.run(domain).text()) == expected["timer"]

    def clocks(rows: Iterable[list[str]]) -> list[list[str]]:
        # The time in crash is that of an earlier tick.
        return [
            [*row[:2], *row[3:]] if len(row) == 6 else row
            for row in rows
            if len(row) > 1 or not row[0].isdecimal()
        ]

    assert clocks(fields(timer.run(domain, PRECISE).text())) == clocks(expected["timer -r"])


def test_high_resolution_as_crash(dump_file: Callable[[str], str], tmp_path: Path) -> None:
    """6.12: crash leaves out the third base of the wheel (6.9)."""
    name = "xen420-pv-pvh"
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(0)
    expected = by_crash(dump_file, tmp_path, name, ["timer -r"])["timer -r"]
    addresses = [row[3] for row in expected if len(row) == 6]
    shown = fields(timer.run(domain, PRECISE).text())
    assert [row[3] for row in shown if len(row) == 6] == addresses
    assert len(addresses) > 10


def test_json_and_chosen_cpus(dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file("bare-x86_64/vmcore")).domain(0)
    found: Any = rendering.json(timer.run(domain, timer.Options(cpus="1")))
    assert [(base["cpu"], base["base"]) for base in found["bases"]] == [
        (1, "BASE_STD"),
        (1, "BASE_DEF"),
    ]
    assert found["bases"][0]["now"] == 4294902306
    first = found["bases"][0]["timers"][0]
    assert (first["expires"], first["name"]) == (4294902341, "process_timeout")
    with pytest.raises(UsageError, match="not a list of CPUs"):
        timer.run(domain, timer.Options(cpus="x"))
