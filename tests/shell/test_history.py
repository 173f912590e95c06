"""The file of the history."""

import os
from pathlib import Path

import pytest

from xenkdump_fast.limits import MAX_HISTORY, MAX_HISTORY_SIZE
from xenkdump_fast.shell.history import History, path


def test_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert path() == tmp_path / "xkdump" / "history"
    for other in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", other)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert path() == tmp_path / ".local" / "state" / "xkdump" / "history"


def test_lines_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "new" / "history"
    first, second = History(file), History(file)
    for line in ("bt -a", "ps", "ps", " secret", "", "two\nlines"):
        first.add(line)
    second.add("sys")
    assert first.lines == ["bt -a", "ps"]
    assert History(file).lines == ["bt -a", "ps", "sys"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_others_cannot_read_it(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_text("bt\n")
    file.chmod(0o644)
    assert History(file).lines == ["bt"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_a_file() -> None:
    history = History(None)
    history.add("bt")
    assert (history.lines, history.problem) == (["bt"], None)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "no directory"])
def test_a_file_that_is_none(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "history"
    target = tmp_path / "target"
    target.write_text("private\n")
    if kind == "link":
        file.symlink_to(target)
    elif kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file = target / "history"
    history = History(file)
    assert history.problem is not None
    assert str(file) in history.problem
    history.add("bt")
    assert history.lines == ["bt"]
    assert target.read_text() == "private\n"


def test_damage(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_bytes(b"bt\n\xff\x1b[2J\n\0\nps\n")
    assert History(file).lines == ["bt", "ps"]


def test_a_long_file(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_text("".join(f"bt {number}\n" for number in range(3 * MAX_HISTORY)))
    history = History(file)
    assert len(history.lines) == MAX_HISTORY
    assert history.lines[-1] == f"bt {3 * MAX_HISTORY - 1}"
    assert len(file.read_text().splitlines()) == MAX_HISTORY
    with file.open("wb") as stream:
        stream.truncate(1 << 34)
    assert History(file).lines == []
    assert file.stat().st_size < MAX_HISTORY_SIZE
