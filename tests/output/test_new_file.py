"""Files that appear when they are complete."""

import signal
import threading
from pathlib import Path

import pytest

from xenkdump_fast.output.new_file import new_file


def write(path: Path) -> None:
    with new_file(str(path), force=False) as part:
        Path(part).write_text("text")


def test_the_signals_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with new_file(str(tmp_path / "file"), force=False) as part:
        assert (signal.getsignal(signal.SIGTERM) != before) == (before == signal.SIG_DFL)
        Path(part).write_text("text")
    assert signal.getsignal(signal.SIGTERM) == before


def end(path: Path) -> None:
    with new_file(str(path), force=False) as part:
        Path(part).write_text("text")
        signal.raise_signal(signal.SIGTERM)


def test_signals_remove_the_file(tmp_path: Path) -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(SystemExit):
        end(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_another_thread_sets_no_signals(tmp_path: Path) -> None:
    thread = threading.Thread(target=write, args=(tmp_path / "file",))
    thread.start()
    thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        write(tmp_path / "missing" / "file")
    assert raised.value.filename == str(tmp_path / "missing")
    assert raised.value.strerror == "the directory does not exist"


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    # The directory is a file.
    with pytest.raises(NotADirectoryError) as raised:
        write(tmp_path / "file" / "new")
    assert raised.value.filename == str(tmp_path / "file" / "new")
