"""Wrong arguments: one line that says what is wrong, and exit status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

from xenkdump_fast import session
from xenkdump_fast.cli import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "required: COMMAND"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("bt", "required: VMLINUX, VMCORE\n"),
        ("ps", "required: VMLINUX, VMCORE\n"),
        ("vtop vmlinux vmcore", "required: ADDRESS|SYMBOL"),
        (
            "bt vmlinux vmcore --unwind nope",
            "'nope'; available: orc, cfi, fp, scan",
        ),
        ("bt vmlinux vmcore --unwind orc,", "no unwind method ''"),
        ("bt --hypervisor vmcore --unwind orc", "'orc'; available: cfi, fp, scan"),
        ("bt -a --all vmlinux vmcore", "not allowed with"),
        ("bt --domain x vmlinux vmcore", "invalid int value: 'x'"),
        ("sys --p2m-source foo vmlinux vmcore", "no P2M source 'foo'"),
        ("log vmlinux vmcore more", "unrecognized arguments: more"),
    ],
)
def test_wrong_usage(arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments.split())
    except SystemExit as error:
        status = int(error.code or 0)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert complaint in err


def test_a_closed_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["notes", "/nonexistent"]) == 3


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("xkdump ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["ps"], ["ps", "--json"], ["bt", "--all"]])
def test_a_full_disk(arguments: list[str], tmp_path: Path) -> None:
    assert main(["sample", str(tmp_path)]) == 0
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xenkdump_fast", *arguments, "vmlinux", "vmcore"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 74
    assert done.stderr == "xkdump: cannot write to stdout: No space left on device\n"


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def open_(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "open", open_)
    assert main(["notes", "vmcore"]) == 130
    assert capsys.readouterr() == ("", "")
