"""Triage of hostile dumps and names, and of a directory whose files others have changed."""

import errno
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fleet.conftest import PACKAGES
from xenkdump_fast import fleet
from xenkdump_fast.cli import main
from xenkdump_fast.fleet import check, examine, index, local, process, row, sources, table
from xenkdump_fast.fleet.examine import Options
from xenkdump_forge import faults, write_dump
from xenkdump_forge.parts import Parts

for package in PACKAGES:
    pytest.importorskip(package, reason=f"{package} is not installed: the extra [fleet]")

SOURCE = sources.Source("/some/dump", 1, 2.0)


def valid(path: str = SOURCE.path) -> dict[str, Any]:
    one = row.empty(path, SOURCE.size, SOURCE.modified)
    one["status"] = row.OK
    return dict(one)


def part_of(directory: Path, source: sources.Source = SOURCE) -> Path:
    folder = directory / "parts"
    folder.mkdir(exist_ok=True)
    return folder / f"{source.family}.json"


def test_an_uptime_of_a_hostile_dump(tmp_path: Path) -> None:
    def extra(parts: Parts) -> None:
        faults.touched_only(parts)
        parts.kernels[0].assign(tick_nsec=10**9, jiffies_64=2**64 - 1)

    write_dump(tmp_path / "in", "modern", memory=64 << 20, extra=extra)
    for examined in (1, 0):
        found = fleet.triage([tmp_path / "in" / "vmcore"], tmp_path / "out", jobs=1)
        assert (found.dumps, found.examined, found.failed) == (1, examined, 0)
    (one,) = table.Table(tmp_path / "out").rows()
    assert one["uptime"] is None
    assert one["host"] is not None


def test_a_file_name_that_is_not_utf8(dumps: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    data = (dumps / "hung-task-1" / "vmcore").read_bytes()[:3000]
    Path(os.fsdecode(os.fsencode(folder) + b"/b\xffad")).write_bytes(data)
    for examined in (1, 0):
        found = fleet.triage([folder], tmp_path / "out", jobs=1)
        assert (found.dumps, found.examined, found.failed) == (1, examined, 1)
    (one,) = table.Table(tmp_path / "out").rows()
    assert one["path"] == f"{folder}/b\\xffad"
    assert one["error"] is not None
    assert "\\xff" in one["error"]


@pytest.mark.parametrize("seconds", [check.LAST_SECOND + 1, 10**12, 1 << 62, math.inf, math.nan])
def test_a_time_of_change_that_is_no_date(seconds: float, tmp_path: Path) -> None:
    source = sources.Source("/some/dump", 1 << 70, float(seconds))
    made = table.Table(tmp_path)
    made.add(source, row.failed(*source, "why"))
    for _ in range(2):
        (one,) = made.compact()
        assert (one["modified"], one["size"]) == (None, None)
        assert [text.split(" is ")[0] for text in one["missing"]] == ["size", "modified"]
        assert table.pending([source], made, retry=False) == []


@pytest.mark.parametrize("seconds", [check.FIRST_SECOND, -1, 0, 1794838527, check.LAST_SECOND])
def test_dates_return_from_the_table(seconds: int, tmp_path: Path) -> None:
    source = sources.Source("/some/dump", 1, seconds + 0.5 if abs(seconds) < 1 << 33 else seconds)
    one = row.empty(*source)
    one |= {"status": row.OK, "time": seconds, "uptime": (1 << 63) - 1}
    made = table.Table(tmp_path)
    made.add(source, one)
    for _ in range(2):
        (found,) = made.compact()
        assert (found["time"], found["modified"]) == (seconds, source.modified)
        assert found["uptime"] == (1 << 63) - 1
    index.write(made.rows(), tmp_path)
    assert table.pending([source], made, retry=False) == []


def test_values_that_a_column_cannot_have(tmp_path: Path) -> None:
    one = row.empty(*SOURCE)
    one |= {"status": row.OK, "uptime": 1 << 63, "time": 1 << 40, "copied": 1 << 64}
    one |= {"host": "a\udcff", "missing": ["b\ud800"]}
    made = table.Table(tmp_path)
    made.add(SOURCE, one)
    (found,) = made.compact()
    assert (found["uptime"], found["time"], found["copied"]) == (None, None, 0)
    assert found["host"] == "a\\xff"
    names = sorted(text.partition(" ")[0] for text in found["missing"][:-1])
    assert names == ["copied", "time", "uptime"]
    assert found["missing"][-1] == "b\\ud800"


@pytest.mark.parametrize(
    "change",
    [
        {"status": "?"},
        {"host": 5},
        {"uptime": "5"},
        {"time": 1.5},
        {"missing": None},
        {"missing": [5]},
        {"signature": "javascript:x"},
        {"other": 1},
        {"message": "x" * (1 << 20)},
    ],
)
def test_what_is_no_row_is_a_failed_row(change: dict[str, Any], tmp_path: Path) -> None:
    made = table.Table(tmp_path)
    made.add(SOURCE, {**valid(), **change})  # type: ignore[typeddict-item]
    (one,) = made.compact()
    assert one["status"] == row.FAILED
    assert one["error"] is not None
    assert "its row cannot be written" in one["error"]
    assert made.warnings == []


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "[1]",
        "{}",
        "",
        "null",
        "[" * 200_000,
        "x" * ((1 << 20) + 1),
        '"\xff',
        json.dumps({**valid(), "path": 5}),
        json.dumps(valid("/another/dump")),
    ],
)
def test_a_damaged_part_is_dropped(text: str, tmp_path: Path) -> None:
    made = table.Table(tmp_path)
    part_of(tmp_path).write_text(text, encoding="latin-1")
    assert table.pending([SOURCE], made, retry=False) == [SOURCE]
    assert made.compact() == []
    (warning,) = made.warnings
    assert "a damaged row is dropped" in warning
    assert not part_of(tmp_path).exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_part_that_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    made = table.Table(tmp_path)
    make(part_of(tmp_path))
    assert made.compact() == []
    assert len(made.warnings) == 1


def test_an_uptime_in_a_part(tmp_path: Path) -> None:
    made = table.Table(tmp_path)
    part_of(tmp_path).write_text(json.dumps({**valid(), "uptime": 1 << 63}))
    (one,) = made.compact()
    assert one["uptime"] is None


def test_the_command_names_damaged_parts(dumps: Path, tmp_path: Path, capsysbinary: Any) -> None:
    table.Table(tmp_path)
    part_of(tmp_path).write_text("5")
    words = ["triage", str(dumps / "hung-task-1" / "vmcore"), "-o", str(tmp_path), "--json"]
    assert main(words) == 0
    found = capsysbinary.readouterr()
    assert "a damaged row is dropped" in " ".join(json.loads(found.out)["warnings"])


def foreign(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"a": [1]}), path)


def wrong_types(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {name: [{"a": 1}] for name in row.Row.__annotations__}
    parquet.write_table(pyarrow.table(columns), path)


def truncated(path: Path) -> None:
    foreign(path)
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("make", [foreign, wrong_types, truncated, Path.touch, os.mkfifo])
def test_a_foreign_parquet_file(
    make: Callable[[Path], None], dumps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.Table(tmp_path)
    make(tmp_path / "triage.parquet")
    assert main(["triage", str(dumps), "-o", str(tmp_path)]) == 74
    err = capsys.readouterr().err
    assert f"{tmp_path}/triage.parquet" in err
    assert "Traceback" not in err


def test_a_row_of_the_table_that_is_invalid(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    made = table.Table(tmp_path)
    one = {**valid(), "modified": 2_000_000}
    far = {**valid("/far"), "modified": 1 << 62, "time": 1 << 50}
    data = pyarrow.Table.from_pylist([one, {**one, "status": None}, far], schema=table.schema())
    parquet.write_table(data, tmp_path / "triage.parquet")
    found = {one["path"]: one for one in made.compact()}
    assert set(found) == {"/some/dump", "/far"}
    assert found["/some/dump"]["modified"] == 2.0
    assert (found["/far"]["modified"], found["/far"]["time"]) == (None, None)
    assert len(made.warnings) == 1


@pytest.mark.parametrize("report", ["https://evil.example/", "javascript:x", "../x.html"])
def test_links_lead_to_reports_only(report: str, tmp_path: Path) -> None:
    made = table.Table(tmp_path)
    part_of(tmp_path).write_text(json.dumps({**valid(), "report": report}))
    index.write(made.compact(), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert report not in page
    assert ">report</a>" not in page
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / f"{SOURCE.key}.html").write_text("")
    index.write(made.rows(), tmp_path)
    link = f'<a href="reports/{SOURCE.key}.html">report</a>'
    assert link in (tmp_path / "index.html").read_text()


def test_an_id_is_a_hash(tmp_path: Path) -> None:
    one = row.empty(*SOURCE)
    one |= {"status": row.OK, "signature": "x y", "signature_text": "panic"}
    index.write([one], tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert 'id="none"' in page
    assert 'href="#none"' in page


def test_hosts_without_a_fault_are_not_counted(tmp_path: Path) -> None:
    found = []
    for number, signature in enumerate(["0123abcd", "0123abcd", None]):
        one = row.empty(f"/{number}", 1, 2.0)
        one |= {"status": row.OK, "signature": signature, "host": f"host{number}"}
        found.append(one)
    index.write(found, tmp_path)
    assert "Signatures: 1, on hosts: 2." in (tmp_path / "index.html").read_text()
    index.write(found[:1], tmp_path)
    assert "<h1>Triage of 1 dump</h1>" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("size", [None, 3, 1 << 62])
def test_a_copy_leaves_disk_space(
    size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/fleet-space/vmcore", bytes(5 << 20))
    monkeypatch.setattr(type(system), "info", lambda *_, **__: {"size": size, "type": "file"})
    # Enough for the first piece only.
    free = iter([200 << 20] * (1 if size is None else 2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free, 64 << 20)))
    monkeypatch.setattr(examine, "_PIECE", 4 << 20)
    found = examine.examine("memory://fleet-space/vmcore", size, None, Options(str(tmp_path)))
    monkeypatch.undo()
    system.rm("/fleet-space", recursive=True)
    assert found["status"] == row.FAILED
    assert found["error"] is not None
    assert "disk space" in found["error"]
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    ((source, found),) = local.run([SOURCE], Options(), process.Limits(), 1)
    assert source == SOURCE
    assert found["error"] is not None
    assert "its worker cannot be started" in found["error"]


def test_a_bug_of_the_owner_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(process.Process, "examine", broken)
    found = list(local.run([SOURCE] * 3, Options(), process.Limits(), 1))
    assert [one["error"] for _, one in found] == ["internal error: KeyError: 'x'"] * 3


def test_a_worker_that_hangs_ends_with_its_owner() -> None:
    """It holds the other end of a pipe, which has an end when it is gone."""
    worker = (
        "import os, sys, time\n"
        "from xenkdump_fast.fleet import examine, worker\n"
        "def hang(*_):\n"
        "    os.write(int(os.environ['PIPE']), b'%10d' % os.getpid())\n"
        "    time.sleep(1000)\n"
        "examine._open = hang\n"
        "worker.main()"
    )
    owner = (
        "import subprocess\n"
        "from xenkdump_fast.fleet import examine, process, sources\n"
        "start = subprocess.Popen\n"
        "def instead(command, **options):\n"
        f"    code = {worker!r}\n"
        "    return start([command[0], '-c', code, *command[4:]], close_fds=False, **options)\n"
        "subprocess.Popen = instead\n"
        "found = process.Process(examine.Options(), process.Limits(timeout=900.0))\n"
        "found.examine(sources.Source('/some/dump', 1, 2.0))\n"
    )
    ours, theirs = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", owner],
        pass_fds=[theirs],
        env={**os.environ, "PIPE": str(theirs)},
    )
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as end:
        worker_id = int(end.read(10))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        # Only a worker that goes on uses up this time.
        ended = select.select([end], [], [], 100)[0]
        if not ended:
            os.kill(worker_id, signal.SIGKILL)
        assert ended


def test_a_part_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    """The directory may be another user's: what a link in it leads to is not written."""
    directory = tmp_path / "table"
    found = table.Table(directory)
    other = tmp_path / "other"
    other.write_text("mine")
    part = part_of(directory)
    part.symlink_to(other)
    found.add(SOURCE, row.empty(SOURCE.path, SOURCE.size, SOURCE.modified) | {"status": row.OK})
    assert other.read_text() == "mine"
    assert not part.is_symlink()
    assert [one["path"] for one in found.rows()] == [SOURCE.path]


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_threads_that_cannot_be_started(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    one = row.empty(SOURCE.path, SOURCE.size, SOURCE.modified)
    monkeypatch.setattr(process.Process, "examine", lambda *_: one)
    rows = local.run([SOURCE], Options(), process.Limits(), 3)
    if allowed == 2:
        # The one that feeds, and one of three workers.
        assert list(rows) == [(SOURCE, one)]
    else:
        with pytest.raises(OSError, match="no thread can be started"):
            next(rows)
    assert not any(thread.is_alive() for thread in started)
