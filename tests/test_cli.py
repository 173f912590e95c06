"""Invalid arguments: a one-line error message and exit status 2."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from xenkdump_fast import session
from xenkdump_fast.cli import ExitStatus, main
from xenkdump_fast.commands import ps


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "required: COMMAND"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("bt", "required: VMCORE\n"),
        ("ps", "required: VMCORE\n"),
        ("vtop vmlinux vmcore", "required: ADDRESS|SYMBOL"),
        (
            "bt vmlinux vmcore --unwind nope",
            "'nope'; available: orc, cfi, fp, scan",
        ),
        ("bt vmlinux vmcore --unwind orc,", "no unwind method ''"),
        ("bt --hypervisor vmcore --unwind orc", "'orc'; available: cfi, fp, scan"),
        ("bt -a --all vmlinux vmcore", "not allowed with"),
        ("bt --hypervisor --domain 1 vmcore", "--domain: not allowed with argument --hypervisor"),
        ("bt --hypervisor --domain 0 vmcore", "--domain: not allowed with argument --hypervisor"),
        ("sys --hypervisor --domain 1 vmcore", "--domain: not allowed with argument --hypervisor"),
        (
            "log --hypervisor --p2m-source list vmcore",
            "--p2m-source: not allowed with argument --hypervisor",
        ),
        ("sys --hypervisor --kaslr-offset 0 vmcore", "--kaslr-offset: not allowed with"),
        ("sys --hypervisor --phys-base 0 vmcore", "--phys-base: not allowed with"),
        ("sys --hypervisor --vmcoreinfo FILE vmcore", "--vmcoreinfo: not allowed with"),
        ("bt --hypervisor vmcore xen-syms 1340", "unrecognized arguments: 1340"),
        ("sample --seed 1_0 DIR", "--seed: '1_0' is not a number"),
        ("sample --seed ١ DIR", "is not a number"),
        ("sample --memory 1_0M DIR", "not a size: '1_0M'"),
        ("sample --memory ١M DIR", "not a size: '١M'"),
        ("log -n 1_0 vmlinux vmcore", "'1_0' is not a number of messages"),
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
    assert main([option]) == 0
    # Cargo's and Python's forms of a version differ only in those of a pre-release.
    assert capsys.readouterr().out == f"xkdump {version('xenkdump_fast')}\n"


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
    assert "None" not in shown[0]


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
@pytest.mark.parametrize(
    ("redirection", "problem"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
@pytest.mark.parametrize("is_buffered", [True, False])
def test_output_that_cannot_be_written(
    redirection: str, problem: str, is_buffered: bool, synthetic: Path
) -> None:
    commands = [
        "ps vmlinux vmcore",
        "ps --json vmlinux vmcore",
        "bt --all vmlinux vmcore",
        "notes --extract 0 - vmcore",
        "--help",
        "--version",
        "help bt",
        "completion bash",
        "shell -c 'mod | head -3' vmlinux vmcore",
        "shell -c 'bt --help' vmlinux vmcore",
    ]
    variables = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if not is_buffered:
        variables["PYTHONUNBUFFERED"] = "1"
        commands = commands[:5]
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", f"exec {sys.executable} -m xenkdump_fast {command} {redirection}"],
            cwd=synthetic,
            stderr=subprocess.PIPE,
            env=variables,
            text=True,
            check=False,
        )
        assert done.returncode == 74, command
        assert done.stderr == f"xkdump: cannot write to stdout: {problem}\n", command


def test_all_streams_closed(synthetic: Path, tmp_path: Path) -> None:
    """No file that is opened gets the number of one."""
    output = tmp_path / "report.html"
    command = f"report -o {output} vmlinux vmcore"
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m xenkdump_fast {command} <&- >&- 2>&-"],
        cwd=synthetic,
        check=False,
    )
    assert done.returncode == 74  # the name of the file is printed
    text = output.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "xkdump: " not in text


def test_an_interrupt_within_the_output(
    synthetic: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output in a file may look complete."""

    def text(_: object) -> Iterator[str]:
        yield "the first line"
        raise KeyboardInterrupt

    monkeypatch.setattr(ps.Processes, "text", text)
    assert main(["ps", str(synthetic / "vmcore")]) == 130
    out, err = capsys.readouterr()
    assert out == "the first line\n"
    assert err.endswith("xkdump: interrupted: the output in stdout is incomplete\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["ps", str(synthetic / "vmcore")]) == 130
    assert "incomplete" not in capsys.readouterr().err


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def open_(_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "open", open_)
    assert main(["notes", "vmcore"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cli") / "dump"
    assert main(["sample", str(directory)]) == 0
    return directory


def test_the_pcpus_are_what_was_active(synthetic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for options in ([], ["-a"]):
        assert main(["bt", "--hypervisor", *options, str(synthetic / "vmcore")]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""


def test_there_is_nothing_but_pcpus(synthetic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bt", "--hypervisor", "--all", str(synthetic / "vmcore")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--all: not allowed with argument --hypervisor" in err


@pytest.mark.parametrize("command", ["bt", "sys", "ps", "log", "check"])
def test_domains_by_name(command: str, synthetic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(synthetic / "vmlinux"), str(synthetic / "vmcore")]
    shown = []
    for name in ("1", "domu1.lab.example"):
        assert main([command, *files, "--domain", name]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""
    assert main([command, *files, "--domain", "domu2"]) == 1
    assert (
        "no domain 'domu2'; domains: 0 (aiko.lab.example), 1 (domu1.lab.example)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("prefix", ["", "./", "../dump/"])
def test_files_are_named_as_given(
    prefix: str,
    synthetic: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(synthetic)
    vmlinux, vmcore = f"{prefix}vmlinux", f"{prefix}vmcore"
    assert main(["sys", vmlinux, vmcore]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"      KERNEL: {vmlinux}", f"    DUMPFILE: {vmcore}"]
    assert main(["sys", "--json", vmlinux, vmcore]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kernel"], found["dump"]) == (vmlinux, vmcore)
    assert main(["sys", "--hypervisor", vmcore]) == 0
    assert f"    DUMPFILE: {vmcore}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOMEM, "ulimit -v"),
        (errno.EACCES, ""),
    ],
)
def test_limits_of_the_system(
    number: int, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_(paths: list[str], **options: object) -> None:
        raise OSError(number, os.strerror(number), paths[0])

    monkeypatch.setattr(session, "open", open_)
    assert main(["notes", "vmcore"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"xkdump: vmcore: {os.strerror(number)}")
    assert remedy in err
    assert ("(the limit" in err) == bool(remedy)


def test_too_many_open_files(synthetic: Path) -> None:
    # The first call imports what the command needs.
    code = (
        "import os, resource, sys; from xenkdump_fast import cli; cli.main(sys.argv[1:]); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)); "
        "used = len(os.listdir('/proc/self/fd')) - 1; "
        "held = [os.open('/dev/null', 0) for _ in range(8 - used)]; "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "notes", str(synthetic / "vmcore")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.endswith("Too many open files (the limit of this process: ulimit -n)\n")


def test_every_status_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    page = (Path(__file__).parents[1] / "docs" / "getting-started.md").read_text()
    listed = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M))
    assert list(map(int, listed)) == list(ExitStatus)
    assert list(map(int, re.findall(r"(\d+) [a-z]", shown.partition("Exit status: ")[2]))) == list(
        ExitStatus
    )
    assert "cannot be read, is not a dump or is damaged beyond use" in shown
    assert "cannot be read, is not a dump or is damaged beyond use" in listed["3"]


def test_parts_of_a_split_dump_without_a_vmlinux(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(tmp_path), "--format", "kdump-split"]) == 0
    parts = []
    for number, name in enumerate(["vmcore", "vmcore.2", "vmcore.3"]):
        (tmp_path / str(number)).mkdir()
        parts.append(str((tmp_path / name).rename(tmp_path / str(number) / name)))
    capsys.readouterr()
    assert main(["sys", *reversed(parts)]) == 0
    alone = capsys.readouterr()
    assert main(["sys", str(tmp_path / "vmlinux"), *parts]) == 0
    ignored = ("KERNEL:", "DUMPFILE:")
    text = [
        [line for line in output.splitlines() if line.split()[0] not in ignored]
        for output in (alone.out, capsys.readouterr().out)
    ]
    assert text[0] == text[1]
    assert alone.err == ""


def test_a_sample_does_not_replace_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = tmp_path / "vmcore"
    dump.write_bytes(b"a real dump")
    assert main(["sample", str(tmp_path)]) == 2
    assert dump.read_bytes() == b"a real dump"
    assert "vmcore exists (--overwrite replaces it)" in capsys.readouterr().err
    assert main(["sample", "--overwrite", str(tmp_path)]) == 0
    assert dump.read_bytes().startswith(b"\x7fELF")
