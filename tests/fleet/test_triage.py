"""Triage of synthetic dumps: rows, resumption, limits, the index."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import xenkdump_fast
from tests.fleet.conftest import CRASHES, PACKAGES
from xenkdump_fast import fleet
from xenkdump_fast.cli import main
from xenkdump_fast.fleet import examine, index, process, row, sources, table
from xenkdump_fast.fleet.examine import Options
from xenkdump_forge import write_dump

for package in PACKAGES:
    pytest.importorskip(package, reason=f"{package} is not installed: the extra [fleet]")


def rows(directory: Path) -> list[row.Row]:
    return table.Table(directory).rows()


def test_every_dump_has_a_row(dumps: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = fleet.triage(
        [dumps, dumps / "absent"],
        tmp_path,
        jobs=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (found.dumps, found.examined, found.failed) == (8, 8, 2)
    assert found.signatures == len(CRASHES)
    assert seen == [(done, 8) for done in range(9)]
    by_name = {Path(one["path"]).parent.name: one for one in rows(tmp_path)}
    one = by_name["null-dereference-1"]
    assert one["status"] == row.OK
    assert one["host"] == "aiko.lab.example"
    assert one["xen"] == "4.17.5"
    assert one["kernel"] == "6.1.0-56-amd64"
    assert (one["died"], one["kind"]) == ("dom0", "null-dereference")
    assert one["message"] == "BUG: kernel NULL pointer dereference, address: 0000000000000018"
    assert one["time"] == 1794838527
    assert one["signature"] == by_name["null-dereference-2"]["signature"]
    assert by_name["xen-page-fault-1"]["died"] == "Xen"
    failed = [one for one in rows(tmp_path) if one["status"] == row.FAILED]
    assert {Path(one["path"]).name for one in failed} == {"absent", "damaged"}
    assert all(one["error"] for one in failed)


def test_files_that_are_no_dumps(tmp_path: Path) -> None:
    """What may have been meant to be a dump has a row with the reason."""
    folder = tmp_path / "crash"
    out = folder / "triage"
    out.mkdir(parents=True)
    made = write_dump(folder / "dump", "modern")
    (folder / "empty").touch()
    (folder / "garbage").write_bytes(bytes(range(256)) * 64)
    (folder / "zeros").write_bytes(bytes(4096))
    (folder / "dangling").symlink_to(folder / "absent")
    (folder / "dmesg.txt").write_text("[    0.000000] Linux version " + "\u00fc" * 4096)
    (folder / ".lock").touch()
    os.mkfifo(folder / "fifo")
    for _ in range(2):  # the second time there are files in the output
        found = fleet.triage([folder], out, jobs=1)
        assert (found.dumps, found.failed) == (5, 4)
        by_name = {Path(one["path"]).name: one for one in rows(out)}
        assert by_name.keys() == {"empty", "garbage", "zeros", "dangling", made.vmcore.name}
    assert by_name[made.vmcore.name]["status"] != row.FAILED
    reasons = {name: one["error"] or "" for name, one in by_name.items()}
    assert "not a dump but an empty file" in reasons["empty"]
    assert "a file of 16384 bytes that starts with 00 01 02 03" in reasons["garbage"]
    assert "a file of 4096 bytes that starts with 00 00" in reasons["zeros"]
    assert "No such file" in reasons["dangling"]
    text = (out / "index.html").read_text()
    assert all(name in text for name in ("empty", "garbage", "zeros", "dangling"))


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def scan(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    (found,) = sources.find([str(tmp_path)])
    assert found.path == str(tmp_path / "closed")


def test_a_split_dump_has_one_row(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_dump(tmp_path / "in" / folder, "modern", memory=64 << 20, format="kdump-split")
    parts = sorted((tmp_path / "in" / "a").glob("vmcore*"))
    assert [part.name for part in parts] == ["vmcore", "vmcore.2", "vmcore.3"]
    found = fleet.triage([tmp_path / "in", *reversed(parts)], tmp_path / "out", jobs=1)
    assert (found.dumps, found.failed) == (2, 0)
    names = [str(tmp_path / "in" / folder / "vmcore") for folder in ("a", "b")]
    assert sorted(one["path"] for one in rows(tmp_path / "out")) == names
    # By whichever part it is given.
    assert [one.path for one in sources.find(map(str, reversed(parts)))] == [str(parts[-1])]
    # A damaged part is a dump of its own, whose row says why.
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    assert [one.path for one in sources.find([str(tmp_path / "in" / "a")])] == list(
        map(str, parts[:2])
    )


def test_duckdb_reads_the_table(dumps: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    found = fleet.triage([dumps], tmp_path, jobs=2)
    query = f"""select signature_text, count(*) from '{found.parquet}'
        where signature is not null group by 1 order by 1"""
    counts = [count for _, count in duckdb.sql(query).fetchall()]
    assert counts == [2] * len(CRASHES)


def test_a_run_goes_on_where_it_was(dumps: Path, tmp_path: Path) -> None:
    first = str(dumps / "hung-task-1" / "vmcore")
    assert fleet.triage([first], tmp_path, jobs=1).examined == 1
    found = fleet.triage([dumps], tmp_path, jobs=1)
    assert (found.dumps, found.examined) == (7, 6)
    again = fleet.triage([dumps], tmp_path, jobs=1)
    assert (again.dumps, again.examined) == (7, 0)
    assert fleet.triage([dumps], tmp_path, jobs=1, retry=True).examined == 1  # the damaged one


def test_a_changed_dump_is_examined_again(dumps: Path, tmp_path: Path) -> None:
    copy = tmp_path / "vmcore"
    copy.write_bytes((dumps / "hung-task-1" / "vmcore").read_bytes())
    out = tmp_path / "out"
    fleet.triage([copy], out, jobs=1)
    copy.write_bytes((dumps / "xen-page-fault-1" / "vmcore").read_bytes())
    os.utime(copy, (1, 1))
    found = fleet.triage([copy], out, jobs=1)
    assert (found.dumps, found.examined) == (1, 1)
    assert [one["kind"] for one in rows(out)] == ["xen-page-fault"]


def test_interrupted_between_rows(dumps: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fleet.triage([dumps], tmp_path, jobs=2, progress=interrupt)
    assert len(rows(tmp_path)) == 3
    assert (tmp_path / "index.html").exists()
    found = fleet.triage([dumps], tmp_path, jobs=2)
    assert (found.dumps, found.examined) == (7, 4)


def test_killed_between_rows(dumps: Path, tmp_path: Path) -> None:
    code = f"""
import os, signal
import xenkdump_fast
from xenkdump_fast import fleet
def kill(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
fleet.triage([{str(dumps)!r}], {str(tmp_path)!r}, jobs=2, progress=kill)
"""
    status = subprocess.run([sys.executable, "-c", code], check=False).returncode
    assert status == -signal.SIGKILL
    assert not (tmp_path / "triage.parquet").exists()
    found = fleet.triage([dumps], tmp_path, jobs=2)
    assert (found.dumps, found.examined) == (7, 4)
    assert max(Counter(one["path"] for one in rows(tmp_path)).values()) == 1


def test_killed_between_the_table_and_its_parts(dumps: Path, tmp_path: Path) -> None:
    source = str(dumps / "hung-task-1" / "vmcore")
    fleet.triage([source], tmp_path, jobs=1)
    (one,) = rows(tmp_path)
    (found,) = sources.find([source])
    table.Table(tmp_path).add(found, one)  # a part that was not removed
    assert len(rows(tmp_path)) == 1
    assert fleet.triage([source], tmp_path, jobs=1).examined == 0


def _child(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets workers run this code in place of ``worker.main``."""
    start = subprocess.Popen

    def instead(command: list[str], **options: Any) -> Any:
        assert command[1] == "-P"
        return start([command[0], "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", instead)


SOURCE = sources.Source("/some/dump", 1, 2.0)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("input(); print(5)", "answer is invalid: not a row"),
        ("input(); print('[' * 200000)", "answer is invalid"),
        ("import time; input(); time.sleep(1000)", "not done within 0.5 s"),
        ("import os; input(); os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("input(); raise SystemExit(3)", "ended with status 3"),
    ],
)
def test_a_worker_that_fails_gives_a_row(
    code: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = process.Limits(timeout=0.5 if "within" in error else 100.0)
    worker = process.Process(Options(), limits)
    _child(code, monkeypatch)
    found = worker.examine(SOURCE)
    assert found["status"] == row.FAILED
    assert found["error"] is not None
    assert error in found["error"]
    assert (found["path"], found["size"]) == (SOURCE.path, SOURCE.size)
    worker.close()


def test_a_worker_that_was_idle_is_replaced(dumps: Path) -> None:
    (source,) = sources.find([str(dumps / "hung-task-1" / "vmcore")])
    worker = process.Process(Options(), process.Limits())
    first = worker.examine(source)
    child = worker._child
    assert child is not None
    child.kill()
    child.wait()
    second = worker.examine(source)
    worker.close()
    assert first["status"] == second["status"] == row.OK


def test_the_memory_of_a_worker_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; import os; sys.argv = ['worker', str(96 << 20), str(os.getppid())]\n"
        "from xenkdump_fast.fleet import examine, worker\n"
        "examine._open = lambda *_: bytearray(256 << 20)\n"
        "worker.main()"
    )
    worker = process.Process(Options(), process.Limits(timeout=100.0))
    _child(code, monkeypatch)
    found = worker.examine(SOURCE)
    worker.close()
    assert (found["status"], found["error"]) == (row.FAILED, "out of memory")


def test_a_bug_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(examine, "_open", broken)
    found = examine.examine("/some/dump", 1, 2.0, Options())
    assert found["error"] == "internal error: KeyError: 'x'"


def test_remote_files_are_copied_and_removed(dumps: Path, tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    data = (dumps / "null-dereference-1" / "vmcore").read_bytes()
    system.pipe("/fleet-test/host/vmcore", data)
    copies = tmp_path / "copies"
    (found,) = sources.find(["memory://fleet-test"])
    assert found.path == "memory:///fleet-test/host/vmcore"
    assert found.size == len(data)
    one = examine.examine(*found, Options(str(copies)))
    system.rm("/fleet-test", recursive=True)
    assert (one["status"], one["kind"]) == (row.OK, "null-dereference")
    assert one["copied"] == len(data)
    assert list(copies.iterdir()) == []
    absent = examine.examine("memory://fleet-test/absent", None, None, Options())
    assert absent["status"] == row.FAILED


class FakeReport(ModuleType):
    """Stands for the package that writes reports."""

    problem: Exception | None = None

    def content(self, dump: xenkdump_fast.Dump) -> str:
        if self.problem is not None:
            raise self.problem
        return f"report of {dump.path}"

    def write_html(self, content: str, path: str) -> None:
        Path(path).write_text(content)


def test_reports_are_linked(dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeReport("xenkdump_fast.report")
    monkeypatch.setitem(sys.modules, "xenkdump_fast.report", fake)
    (source,) = sources.find([str(dumps / "hung-task-1" / "vmcore")])
    found = examine.examine(*source, Options(reports=True))
    assert found["report"] == f"report of {source.path}"
    made = table.Table(tmp_path)
    made.add(source, found)
    (one,) = made.compact()
    assert one["report"] == f"reports/{source.key}.html"
    assert (tmp_path / one["report"]).read_text() == f"report of {source.path}"
    index.write([one], tmp_path)
    assert f'<a href="{one["report"]}">report</a>' in (tmp_path / "index.html").read_text()


def test_a_row_without_its_report(dumps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeReport("xenkdump_fast.report")
    fake.problem = xenkdump_fast.AbsentError("a broken domain")
    monkeypatch.setitem(sys.modules, "xenkdump_fast.report", fake)
    (source,) = sources.find([str(dumps / "hung-task-1" / "vmcore")])
    found = examine.examine(*source, Options(reports=True))
    assert (found["status"], found["report"]) == (row.OK, None)
    assert "no report: a broken domain" in found["missing"]


def test_names_are_not_markup(tmp_path: Path) -> None:
    one = row.empty("/dumps/<script>alert(1)</script>\x1b[31m", 1, 2.0)
    one |= {
        "status": row.OK,
        "host": "<b>host</b>",
        "signature": "00000000",
        "signature_text": "panic(<i>):f",
        "message": '"><img src=x>',
        "missing": ["<u>"],
    }
    index.write([one], tmp_path)
    text = (tmp_path / "index.html").read_text()
    tags: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.add(tag)

    Tags().feed(text)
    assert not tags & {"script", "b", "i", "img", "u"}
    assert "\x1b" not in text
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", text)  # nothing is loaded


def test_the_index_has_the_clusters(dumps: Path, tmp_path: Path) -> None:
    fleet.triage([dumps], tmp_path, jobs=2)
    found = index.clusters(rows(tmp_path))
    assert [one.number for one in found] == [2, 2, 2]
    assert all(one.first == one.last == 1794838527 for one in found)
    text = (tmp_path / "index.html").read_text()
    assert "Signatures: 3, on hosts: 1." in text
    for one in found:
        assert f'<span class="dim">#{one.signature}</span>' in text.partition("<details")[0]
        assert f'href="#{one.signature}"' in text
        assert f'id="{one.signature}"' in text


@pytest.mark.parametrize("package", ["pyarrow", "jinja2", "distributed"])
def test_missing_packages_are_named(
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load: Callable[[str], Any] = importlib.import_module

    def absent(name: str) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(name=package)
        return load(name)

    monkeypatch.setattr("xenkdump_fast.fleet.extra.import_module", absent)
    words = ["triage", str(tmp_path / "absent"), "-o", str(tmp_path / "out")]
    if package == "distributed":
        words += ["--scheduler", "tcp://127.0.0.1:1"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert f"{package} is not installed" in err
    assert "pip install 'xenkdump_fast[fleet]'" in err


def test_the_command(dumps: Path, tmp_path: Path, capsysbinary: Any) -> None:
    out = tmp_path / "out"
    assert main(["triage", str(dumps), "-o", str(out), "-j", "2", "--json"]) == 1
    found = json.loads(capsysbinary.readouterr().out)
    assert (found["dumps"], found["examined"], found["failed"]) == (7, 7, 1)
    assert main(["triage", str(dumps), "-o", str(out)]) == 1
    found = capsysbinary.readouterr()
    text = "7 dumps, 0 of them examined now; different signatures: 3; failed: 1\n"
    assert found.out.decode().startswith(text)
    assert b"failed dumps: 1" in found.err


def test_nothing_to_examine(tmp_path: Path, capsysbinary: Any) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["triage", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 1
    assert b"no dump was found" in capsysbinary.readouterr().err


def test_a_folder_of_others_is_left_alone(dumps: Path, tmp_path: Path, capsysbinary: Any) -> None:
    page = tmp_path / "index.html"
    page.write_text("mine")
    assert main(["triage", str(dumps), "-o", str(tmp_path)]) == 74
    assert b"without a table of triage" in capsysbinary.readouterr().err
    assert page.read_text() == "mine"


def test_a_directory_that_cannot_be_written(dumps: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["triage", str(dumps), "-o", str(tmp_path / "file")]) == 74
