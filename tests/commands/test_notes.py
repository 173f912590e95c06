"""``notes --extract``: one note's descriptor, written to a file or to stdout."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.test_search import vmcore
from xenkdump_fast import AbsentError, session
from xenkdump_fast.cli import main
from xenkdump_fast.commands import extraction

DEVICE = b"eth0".ljust(44, b"\0") + bytes(range(256)) * 5


def note(name: bytes, type_: int, data: bytes) -> bytes:
    def padded(part: bytes) -> bytes:
        return part + bytes(-len(part) % 4)

    name += b"\0"
    return struct.pack("<III", len(name), len(data), type_) + padded(name) + padded(data)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A vmcore with a device dump between two other notes."""
    path = tmp_path / "vmcore"
    notes = note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\n") + note(b"LINUX", 0x700, DEVICE)
    vmcore(path, [(0, bytes(64))], note=notes + note(b"OTHER", 7, b"\r\n\x00\x80\xff"))
    return path


def test_to_a_file(dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, expected in enumerate((b"OSRELEASE=6.1.0\n", DEVICE, b"\r\n\x00\x80\xff")):
        target = tmp_path / f"note{number}"
        assert main(["notes", str(dump), "--extract", str(number), str(target)]) == 0
        assert target.read_bytes() == expected
        assert capsys.readouterr().out == f"{len(expected)} bytes written to {target}\n"


def test_the_header_of_a_device_dump(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", str(dump)]) == 0
    out = capsys.readouterr().out
    assert "n_type: 700 (NT_VMCOREDD)" in out
    assert 'dump_name: "eth0"' in out


def test_overwriting(dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "file"
    target.write_text("mine")
    words = ["notes", str(dump), "--extract", "1", str(target)]
    assert main(words) == 2
    assert "exists (--overwrite replaces it)" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert target.read_bytes() == DEVICE
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    assert main([*words[:-1], str(link)]) == 2
    assert not (tmp_path / "nowhere").exists()


def test_the_dump_is_not_overwritten(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dump.read_bytes()
    (tmp_path / "same").symlink_to(dump)
    for name in ("vmcore", "same"):
        words = ["notes", str(dump), "--force", "--extract", "1", str(tmp_path / name)]
        assert main(words) == 2
        assert "is the dump itself" in capsys.readouterr().err
    assert dump.read_bytes() == before


def test_to_stdout(dump: Path) -> None:
    words = [sys.executable, "-m", "xenkdump_fast", "notes", str(dump), "--extract", "1", "-"]
    done = subprocess.run(words, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (DEVICE, b"")
    done = subprocess.run([*words, "--json"], capture_output=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["status"] == 2
    assert b"--json: not allowed with bytes on stdout" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", str(dump), "--force", "--extract", "1", "/dev/full"]) == 74
    assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "xenkdump_fast", "notes", str(dump), "--extract", "1", "-"]
        assert subprocess.run(words, stdout=full, check=False).returncode == 74


def test_json(dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "file"
    assert main(["notes", str(dump), "--json", "--extract", "1", str(target)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["extracted_to"] == str(target)
    assert [part["fields"] for part in found["notes"]] == [{"dump_name": "eth0"}]
    assert target.read_bytes() == DEVICE


@pytest.mark.parametrize(
    ("number", "status", "problem"),
    [
        ("3", 1, "no note 3: there are 3, counted from 0"),
        ("-1", 1, "no note -1"),
        ("x", 2, "'x' is not a number"),
        ("1_0", 2, "'1_0' is not a number"),
        ("١", 2, "is not a number"),
    ],
)
def test_wrong_numbers(
    number: str,
    status: int,
    problem: str,
    dump: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "file"
    assert main(["notes", str(dump), "--extract", number, str(target)]) == status
    assert problem in capsys.readouterr().err
    assert not target.exists()


def test_a_note_that_the_file_lost(
    dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = session.open(dump)
    with dump.open("r+b") as file:
        file.truncate(opened.notes[1].offset + 100)
    with pytest.raises(AbsentError, match="of its descriptor can be read"):
        extraction.descriptor(opened, "1")
