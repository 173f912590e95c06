"""The progress line on the terminal during a slow command."""

import io
import sys
import time
from pathlib import Path

import pytest

from xenkdump_fast import cli, progress
from xenkdump_fast.output import progress_line
from xenkdump_forge import write_dump


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def after(stream: io.StringIO, text: str) -> None:
    """Waits until ``text`` is written. The limit of 60 s allows for slow machines."""
    end = time.monotonic() + 60
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.001)


def watch(monkeypatch: pytest.MonkeyPatch, patience: float) -> Terminal:
    """Replaces stderr by a terminal. Not a fixture: pytest replaces stderr for each test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_line, "PATIENCE", patience)
    monkeypatch.setattr(progress_line, "PERIOD", 0.001)
    return stream


def test_progress_is_shown_and_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watch(monkeypatch, 0.0)
    with progress_line.shown("bt"):
        after(terminal, "\r\x1b[Kxkdump bt: ")
        for number in progress.each(range(3), "task"):
            after(terminal, f", task {number + 1} of 3")
        progress_line.stop()
        gone = terminal.getvalue()
        assert gone.endswith("\r\x1b[K")
    assert terminal.getvalue() == gone
    assert progress.now.what == ""


def test_no_progress_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress_line, "PATIENCE", 0.0)
    with progress_line.shown("bt"):
        pass
    assert stream.getvalue() == ""


def test_a_quick_command_shows_no_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path / "dump", like="2006")
    terminal = watch(monkeypatch, 3600.0)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert cli.main(["bt", "--all", str(synthetic.vmlinux), str(synthetic.vmcore)]) == 0
    assert "\x1b" not in terminal.getvalue()
