"""``runq`` against drgn, crash and the kernel's own counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import runq
from xenkdump_fast.commands.contract import UsageError
from xenkdump_fast.linux.run_queues import Queued, RunQueues

from .. import rendering
from .reference_lines import by_crash, by_drgn, every_kernel, every_kernel_of_crash, fields

pytestmark = pytest.mark.real

OPTIONS = {
    "": runq.Options(),
    "-t": runq.Options(timestamps=True),
    "-T": runq.Options(lag=True),
    "-m": runq.Options(elapsed=True),
    "-g": runq.Options(groups=True),
}


def plain(rows: list[list[str]]) -> list[list[str]]:
    """Without what differs in the layout of drgn and crash: a colon, zeros in front of numbers."""
    return [
        [word.lstrip("0") or "0" if word.isdecimal() else word.rstrip(":") for word in row]
        for row in rows
    ]


@every_kernel
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    for option, options in OPTIONS.items():
        shown = plain(fields(runq.run(domain, options).text()))
        assert shown == plain(by_drgn(domain, f"runq {option}"))
    assert not domain.warnings


@every_kernel_of_crash
def test_as_crash(name: str, dump_file: Callable[[str], str], tmp_path: Path) -> None:
    vmcore = dump_file(f"{name}/vmcore")
    domain = xk.open(vmcore).domain(0)
    expected = by_crash(dump_file, tmp_path, name, [f"runq {option}" for option in OPTIONS])
    for option, options in OPTIONS.items():
        shown = fields(runq.run(domain, options).text())
        assert shown == expected[f"runq {option}".strip()]


@every_kernel
def test_counts(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    kernel = xk.open(dump_file(f"{name}/vmcore")).domain(number).kernel
    queues = RunQueues(kernel)
    for queue in queues.read(list(queues.addresses)):
        fair = [one.item for one in queue.fair if isinstance(one.item, Queued)]
        found = [one.task.address for one in [*fair, *queue.realtime, *queue.deadline]]
        assert len(found) == len(set(found)) == kernel.read(queue.address, "rq.nr_running")


def test_chosen_cpus(dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file("bare-x86_64/vmcore")).domain(0)
    found: Any = rendering.json(runq.run(domain, runq.Options(cpus="1")))
    assert [one["cpu"] for one in found["cpus"]] == [1]
    assert found["cpus"][0]["fair"][0]["task"]["priority"] == 120
    with pytest.raises(UsageError, match="there are no CPUs 2: the CPUs are 0-1"):
        runq.run(domain, runq.Options(cpus="0,2"))
