"""Backtraces of damaged tasks."""

from pathlib import Path

import pytest

from xenkdump_fast import session
from xenkdump_forge import write_dump


@pytest.mark.parametrize("kind", ["modern", "2006"])
def test_a_stack_at_the_end_of_the_address_space(kind: str, tmp_path: Path) -> None:
    """Found by fuzzing: the end of the stack is then not a valid address."""
    synthetic = write_dump(tmp_path, kind)
    kernel = session.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel
    task = next(task for task in kernel.tasks() if not task.active and task.pid)
    intact = kernel.backtrace(task)
    assert len(intact.frames) > 2
    for stack in (kernel.last, kernel.last - 4095):
        trace = kernel.backtrace(task._replace(stack=stack))
        assert trace.frames[:1] == intact.frames[:1]
