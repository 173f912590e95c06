"""Concurrent readers of one synthetic dump. ``tests.real.concurrent`` tests real dumps."""

from pathlib import Path

import pytest

from xenkdump_forge import write_dump

from .real.concurrent import ALONE, SHARED, read_concurrently


@pytest.mark.parametrize("kind", ["modern", "2006-pae"])
def test_concurrent_results_match_a_single_reader(kind: str, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path / "dump", kind)
    runs, wrong = read_concurrently(str(synthetic.vmcore), str(synthetic.vmlinux), 1, processes=2)
    assert wrong == []
    # Each of the 16 threads and 2 processes ran every query.
    assert min(runs.values()) >= 18
    assert len(runs) == len(SHARED) + len(ALONE)
