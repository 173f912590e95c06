"""``report``: options, files and errors."""

import json
import re
import sys
from pathlib import Path

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump

from .running import Run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("report") / "dump", like="modern")


@pytest.fixture
def run(synthetic: SyntheticDump, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    return Run(synthetic, capsysbinary)


def test_html(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert run("report", "-o", str(path)) == f"{path}\n"
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert path.stat().st_mode & 0o777 in (0o600, 0o644)
    run("report", "-o", str(path), expected=2)
    assert "exists (--overwrite replaces it)" in run.err
    assert run("report", "-o", str(path), "--overwrite") == f"{path}\n"


def test_from_the_vmcore_alone(synthetic: SyntheticDump, capsys: Capture) -> None:
    assert main(["report", "--text", str(synthetic.vmcore)]) == 0
    found = capsys.readouterr().out
    assert "Dom0" in found
    assert "sysrq triggered crash" in found
    assert "the kernel's own memory" in found


def test_text_and_markdown(run: Run, tmp_path: Path) -> None:
    for option, first in (("--text", "Crash report"), ("--markdown", "# Crash report")):
        printed = run("report", option)
        assert printed.startswith(first)
        path = tmp_path / f"report{option}"
        assert run("report", option, "-o", str(path)) == f"{path}\n"
        assert path.read_text() == printed
    with pytest.raises(SystemExit):
        run("report", "--text", "--markdown")


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("r.txt", [], "Crash report"),
        ("r.TXT", [], "Crash report"),
        ("r.md", [], "# Crash report"),
        ("r.markdown", [], "# Crash report"),
        ("r.html", [], "<!DOCTYPE html>"),
        ("r", [], "<!DOCTYPE html>"),
        ("txt", [], "<!DOCTYPE html>"),
        ("r.log", [], "<!DOCTYPE html>"),
        ("r.txt", ["--markdown"], "# Crash report"),
        ("r.md", ["--text"], "Crash report"),
        ("r.html", ["--text"], "Crash report"),
    ],
)
def test_the_format_by_the_name_of_the_file(
    name: str, options: list[str], first: str, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / name
    assert run("report", "-o", str(path), *options) == f"{path}\n"
    assert path.read_text().startswith(first)


def test_folder(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    names = run("report", "--folder", str(folder)).splitlines()
    assert sorted(names) == sorted(str(path) for path in folder.iterdir())
    assert "DOMAIN" not in names
    run("report", "--folder", str(folder), expected=2)


def test_json(run: Run, tmp_path: Path) -> None:
    found = run.json("report")
    assert found["died"]["who"] == "dom0"
    assert found["died"]["crash"]["oops"]["code"][0]["instructions"]
    assert not list(tmp_path.iterdir())


def test_a_format_is_needed(run: Run) -> None:
    run("report", expected=2)
    assert "-o" in run.err


def test_redacted(run: Run, synthetic: SyntheticDump) -> None:
    found = run("report", "--text", "--redact")
    name = run.json("sys")["nodename"]
    assert name
    assert not re.search(rf"(?i)\b{re.escape(name)}\b", found)
    assert str(synthetic.vmcore) not in found
    whole = json.dumps(run.json("report", "--redact"))
    assert str(synthetic.vmcore) not in whole


def test_its_own_files(run: Run, synthetic: SyntheticDump) -> None:
    run("report", "-o", str(synthetic.vmcore), "--overwrite", expected=2)
    assert "is a file that is read" in run.err


def test_errors_of_files(run: Run, tmp_path: Path) -> None:
    run("report", "-o", str(tmp_path / "absent" / "report.html"), expected=74)
    run("report", "--folder", str(tmp_path / "absent" / "folder"), expected=74)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "markupsafe", None)
    run("report", "-o", str(tmp_path / "report.html"), expected=2)
    assert "pip install 'xenkdump_fast[report]'" in run.err
    # The other formats do not need it.
    assert run("report", "--text")


@pytest.mark.parametrize("kind", ["2006", "2006-pae", "2006-x86_64", "shadow", "xen3", "32on64"])
def test_every_kind_of_host(kind: str, tmp_path: Path, capsys: Capture) -> None:
    made = write_dump(tmp_path / kind, kind)
    assert main(["report", "--json", str(made.vmlinux), str(made.vmcore)]) == 0
    found = json.loads(capsys.readouterr().out)
    died = found["died"]
    assert (died["who"], died["domain"], died["kind"]) == ("dom0", 0, "sysrq")
    assert died["crash"]["task"]["comm"] == "do_kdump"
    (code,) = died["crash"]["oops"]["code"]
    assert sum(one["marked"] for one in code["instructions"]) == 1
