"""``signature``: of dumps, of domains, and of logs."""

import io
import json
from pathlib import Path

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import write_dump

_LOG = """[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000018
[    1.0] RIP: 0010:ext4_foo.isra.0+0x1/0x20 [ext4]
[    1.0] Call Trace:
[    1.0]  bar+0x1/0x20
"""

Capture = pytest.CaptureFixture[str]


def test_a_dump(tmp_path: Path, capsys: Capture) -> None:
    files = write_dump(tmp_path, "modern", memory=64 << 20, crash="divide-error")
    assert main(["signature", str(files.vmcore)]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0] == "        DIED: dom0"
    assert text[1].startswith("   SIGNATURE: divide-error:calc_lcoefs<-ioc_refresh_params<-")
    assert text[2] == "   FUNCTIONS: the stack in memory"
    # The same with the vmlinux.
    assert main(["signature", str(files.vmlinux), str(files.vmcore)]) == 0
    assert capsys.readouterr().out.splitlines() == text
    assert main(["signature", str(files.vmcore), "--domain", "1"]) == 1
    assert "no fault" in capsys.readouterr().err


def test_one_domain(tmp_path: Path, capsys: Capture) -> None:
    files = write_dump(tmp_path, "modern", memory=64 << 20, crash="domu-panic")
    outputs = []
    for words in ([], ["--domain", "1"]):
        assert main(["signature", str(files.vmcore), *words]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("        DIED: domain 1\n")


def test_a_log(tmp_path: Path, capsys: Capture) -> None:
    log = tmp_path / "dmesg"
    log.write_text(_LOG)
    assert main(["signature", "--log", str(log)]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0].startswith("   SIGNATURE: null-dereference:ext4_foo<-bar #")
    assert text[1:] == ["      MODULE: ext4", "   FUNCTIONS: the log"]
    assert main(["signature", "--log", str(log), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dump"], found["died"], found["domain"]) == (None, None, None)
    assert found["functions"] == ["ext4_foo", "bar"]
    assert found["hash"] in text[0]


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["--log", "{empty}"], 1, "no fault"),
        (["--log", "{absent}"], 3, "No such file"),
        (["--log", "{empty}", "{empty}"], 2, "unrecognized arguments"),
        ([], 2, "VMCORE"),
    ],
)
def test_errors(words: list[str], status: int, error: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").write_text("nothing\n")
    names = {"empty": tmp_path / "empty", "absent": tmp_path / "absent"}
    try:
        found = main(["signature", *(word.format(**names) for word in words)])
    except SystemExit as usage:
        found = usage.code  # type: ignore[assignment]
    assert found == status
    assert error in capsys.readouterr().err


def test_a_hostile_log(tmp_path: Path, capsys: Capture) -> None:
    log = tmp_path / "dmesg"
    lines = [
        "BUG: kernel NULL pointer dereference, address: 0",
        "RIP: 0010:" + "a" * 5000 + "+0x1/0x20",
        "Call Trace:",
        *(f" f{n}\x1b[31m+0x1/0x2" for n in range(1000)),
        *(f" [<{'f' * 16}>] " * 100 for _ in range(1000)),
        *(" <IRQ> " * 300 for _ in range(1000)),
        "Kernel panic - not syncing: " + "9" * 10000,
        "INFO: task x:" + "9" * 10000 + " blocked for more than 120 seconds.",
        "(XEN) Panic on CPU 0:",
        "(XEN) FATAL TRAP: vector = " + "9" * 900,
        "(XEN) Xen call trace:",
        "(XEN)    [<ffff82d040000000>] R " + "a/" * 400 + "x#f+0x1/0x2",
    ]
    log.write_text("\n".join(lines * 3))
    assert main(["signature", "--log", str(log)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_log_on_stdin(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{'x' * 2000}\n".encode() * 10 + _LOG.encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["signature", "--log", "-"]) == 0
    assert "null-dereference:ext4_foo<-bar #" in capsys.readouterr().out


def test_a_dump_in_place_of_a_log(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "vmcore").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    assert main(["signature", "--log", str(tmp_path / "vmcore")]) == 2
    assert "not a text; a dump needs no --log" in capsys.readouterr().err
