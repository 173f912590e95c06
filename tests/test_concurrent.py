"""Concurrent readers of one synthetic dump; ``tests.real.concurrent`` is for real ones."""

from pathlib import Path

import pytest

from xenkdump_forge import write_dump

from .real.concurrent import ALONE, SHARED, read_concurrently


@pytest.mark.parametrize("kind", ["modern", "2006-pae"])
def test_every_answer_is_a_single_readers(kind: str, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path / "dump", kind)
    asked, wrong = read_concurrently(str(synthetic.vmcore), str(synthetic.vmlinux), 1, processes=2)
    assert wrong == []
    # Each of sixteen threads and of two processes has asked everything.
    assert min(asked.values()) >= 18
    assert len(asked) == len(SHARED) + len(ALONE)
