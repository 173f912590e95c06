"""``irq`` against drgn and crash."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast import AbsentError
from xenkdump_fast.commands import irq
from xenkdump_fast.commands.contract import UsageError

from .. import rendering
from .reference_lines import by_crash, by_drgn, every_kernel, every_kernel_of_crash, fields

pytestmark = pytest.mark.real


@every_kernel
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)

    def shown(options: irq.Options) -> list[list[str]]:
        return fields(irq.run(domain, options).text())

    for options, command in ((irq.Options(), "irq"), (irq.Options(used=True), "irq -u")):
        rows = shown(options)
        assert rows[1:] == by_drgn(domain, command)[1:]
        assert len(rows) > 2
    assert shown(irq.Options(affinity=True)) == by_drgn(domain, "irq -a")
    softirqs = shown(irq.Options(softirqs=True))
    assert len(softirqs) == 11
    assert softirqs == by_drgn(domain, "irq -b")[:11]
    # drgn has the name of the controller alone.
    header, *counts = shown(irq.Options(counts=True))
    end = len(header) + 1
    expected = [[*row[:end], row[-1]] for row in by_drgn(domain, "irq -s")[1:]]
    assert [[*row[:end], row[-1]] for row in counts] == expected
    assert not domain.warnings


@every_kernel_of_crash
def test_as_crash(name: str, dump_file: Callable[[str], str], tmp_path: Path) -> None:
    vmcore = dump_file(f"{name}/vmcore")
    domain = xk.open(vmcore).domain(0)
    asked = {
        "irq": irq.Options(),
        "irq -u": irq.Options(used=True),
        "irq -a": irq.Options(affinity=True),
        "irq -s": irq.Options(counts=True),
        "irq -s -c 1": irq.Options(counts=True, cpus="1"),
        "irq -b": irq.Options(softirqs=True),
        "irq -d": irq.Options(vectors=True),
        "irq 4": irq.Options(["4"]),
    }
    expected = by_crash(dump_file, tmp_path, name, list(asked))
    for command, options in asked.items():
        assert fields(irq.run(domain, options).text()) == expected[command], command


def test_json_and_arguments(dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file("bare-x86_64/vmcore")).domain(0)
    found: Any = rendering.json(irq.run(domain, irq.Options(["4", "999999"], counts=True)))
    (one,) = found["interrupts"]
    assert (one["chip"], one["flow"], one["counts"]) == ("IO-APIC", "edge", [0, 826])
    assert [action["name"] for action in one["actions"]] == ["ttyS0"]
    with pytest.raises(AbsentError, match="no interrupt x: the largest number is 439"):
        irq.run(domain, irq.Options(["x"]))
    with pytest.raises(UsageError, match="only with -s"):
        irq.run(domain, irq.Options(cpus="0"))
