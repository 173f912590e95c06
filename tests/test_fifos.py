"""A FIFO in place of a file is an error, not something to wait for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("fifos") / "dump", "modern")


@pytest.mark.parametrize(
    "command",
    [
        "sys {fifo}",
        "sys {vmlinux} {fifo}",
        "sys {fifo} {vmcore}",
        "pcpus --xen-syms {fifo} {vmcore}",
        "sys --vmcoreinfo {fifo} {vmlinux} {vmcore}",
        "signature --log {fifo}",
    ],
)
def test_a_fifo(command: str, host: SyntheticDump, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = command.format(fifo=fifo, vmlinux=host.vmlinux, vmcore=host.vmcore).split()
    done = subprocess.run(
        [sys.executable, "-m", "xenkdump_fast", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "regular file" in done.stderr
