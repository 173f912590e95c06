"""Tasks are read in batches: calls from Python into Rust do not grow with the data per task."""

from pathlib import Path

import pytest

from xenkdump_forge import write_dump

from .crossings import crossings


@pytest.mark.parametrize("kind", ["modern", "2006"])
def test_calls_into_rust(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = write_dump(tmp_path, kind)
    files = [str(dump.vmlinux), str(dump.vmcore)]
    few, _ = crossings(["bt", "-a", *files], capsys)
    many, traces = crossings(["bt", "--all", *files], capsys)
    listed, processes = crossings(["ps", *files], capsys)
    tasks = len(processes.splitlines()) - 1
    assert traces.count("PID: ") == tasks > 50
    # One call for each stack, and the calls that list the tasks.
    assert few + tasks / 2 < many < few + tasks + 100
    assert 50 < listed < 250


def test_command_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = write_dump(tmp_path, "modern")
    files = [str(dump.vmlinux), str(dump.vmcore)]
    listed, _ = crossings(["ps", *files], capsys)
    count, lines = crossings(["cmdline", "--all", *files], capsys)
    processes = len(lines.splitlines())
    assert processes > 30
    # Calls for the address space of each process and the arguments in it.
    assert count < listed + 4 * processes
