"""A limit on memory that is too low ends in a message, not in an abort."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from xenkdump_forge import write_dump


@pytest.mark.parametrize("limit", [resource.RLIMIT_DATA, resource.RLIMIT_AS], ids=["data", "as"])
def test_a_low_limit_is_reported(tmp_path: Path, limit: int) -> None:
    write_dump(tmp_path)

    def run(size: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "xenkdump_fast", "bt", "vmlinux", "vmcore"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(limit, (size, size)),
            check=False,
        )

    refused = run((64 << 20) - 4096)
    assert refused.returncode == 3
    assert "at least 65536 KiB are needed" in refused.stderr
    if limit == resource.RLIMIT_DATA:
        accepted = run(64 << 20)
        assert accepted.returncode == 0, accepted.stderr
