"""Lazy results."""

import itertools
from pathlib import Path

import pytest

from tests import rendering
from xenkdump_fast import progress, session
from xenkdump_fast.commands import bt
from xenkdump_fast.output.lazy import Lazy
from xenkdump_forge import write_dump


def test_one_result_at_a_time() -> None:
    made = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    lazy = Lazy(range(1 << 40), make, "number", problem=str, warn=pytest.fail)
    assert len(lazy) == 1 << 40
    assert lazy[3] == 9
    assert list(itertools.islice(lazy, 4)) == [0, 1, 4, 9]
    assert (progress.now.what, progress.now.done, progress.now.total) == ("number", 3, 1 << 40)
    assert [*lazy[5:7]] == [25, 36]
    assert made == [3, 0, 1, 2, 3, 5, 6]


def test_backtraces_are_not_kept(tmp_path: Path) -> None:
    """Regression: all frames of thousands of stacks took gigabytes."""
    synthetic = write_dump(tmp_path, "modern")
    domain = session.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))
    found = bt.run(domain, bt.Options(all=True))
    unwound = []
    backtrace = domain.kernel.backtrace
    found.traces._make = lambda task: unwound.append(task) or backtrace(task)  # type: ignore
    lines = found.text()
    assert next(lines).startswith("PID: 0 ")
    assert len(unwound) == 1
    assert list(lines) == list(found.text())[1:]
    tasks = iter(found.json()["tasks"])
    assert next(tasks) == rendering.json(found)["tasks"][0]
