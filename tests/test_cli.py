"""Invalid arguments: a one-line error message and exit status 2."""

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


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([option])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("xkdump ")


@pytest.mark.parametrize("topic", [[], ["bt"], ["sample"]])
def test_help(topic: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for arguments in (["help", *topic], [*topic, "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith(f"usage: xkdump {' '.join(topic)}")


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ("VMLINUX VMCORE", "bt"),
        ("VMLINUX VMCORE", "bt 1340"),
        ("VMLINUX VMCORE", "bt vmcore"),
        ("VMLINUX VMCORE", "bt vmlinux vmcore 1340"),
        ("VMLINUX VMCORE", "vtop linux_banner"),
        ("VMLINUX VMCORE", "sys --domain 1"),
        ("VMLINUX VMCORE", "check"),
        ("VMLINUX VMCORE", "notes"),
        ("VMLINUX VMCORE", "sys --hypervisor"),
        ("VMLINUX", "bt vmcore 1340"),
        ("VMLINUX", "sys vmcore"),
        ("VMCORE", "bt vmlinux 1340"),
        ("VMCORE", "ps vmlinux"),
        ("VMCORE", "check"),
        ("VMCORE", "domains"),
    ],
)
def test_files_of_the_environment(
    variables: str,
    arguments: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["sample", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    for name in variables.split():
        monkeypatch.setenv(f"XKDUMP_{name}", name.lower())
    capsys.readouterr()
    assert main(arguments.split()) == 0
    assert capsys.readouterr().out


def test_missing_files_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XKDUMP_VMCORE", str(tmp_path / "absent"))
    assert main(["notes"]) == 3
    monkeypatch.setenv("XKDUMP_VMCORE", "")
    with pytest.raises(SystemExit):
        main(["notes"])
    assert "required: VMCORE" in capsys.readouterr().err


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
