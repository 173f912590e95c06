"""What is said of words that are not commands."""

import gzip
import importlib
import struct
from pathlib import Path

import pytest

from xenkdump_fast.cli import main
from xenkdump_fast.commands import COMMANDS, hints
from xenkdump_forge import write_dump


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sig", "1"], "sig is a command of drgn: xkdump crash [VMLINUX] VMCORE sig ..."),
        (["dmesg"], "no command dmesg: try xkdump log"),
        (["--domain", "1", "bt"], "options follow the command: xkdump bt --domain ..."),
        (["--domain", "1"], "invalid choice: '1'"),
        (["kmem", "-s", "x"], "unrecognized arguments: -s; -i is the usage of memory"),
        (["bt", "-f", "x"], "unrecognized arguments: -f; drgn has -c, -f and -F: xkdump crash"),
        (["ps", "-m", "x"], "unrecognized arguments: -m; drgn has -m, -p, -G and others"),
        (["mod", "-t", "x"], "unrecognized arguments: -t; drgn has -t"),
        (["vtop", "-u", "x", "1"], "unrecognized arguments: -u; --pid PID"),
        (["bt", "--domian", "x"], "unrecognized arguments: --domian; did you mean --domain?\n"),
        (["bt", "--domian=1", "x"], "did you mean --domain?"),
        (["bt", "--xyzzy", "x"], "unrecognized arguments: --xyzzy\n"),
        (["bakctrace"], "invalid choice: 'bakctrace'"),
        (["btt"], "no command btt; did you mean bt?"),
        (["signatrue", "vmcore"], "no command signatrue; did you mean signature?"),
        (["./nosuch"], "neither a command nor a file: ./nosuch"),
        (["nosuch.vmcore"], "neither a command nor a file: nosuch.vmcore"),
        (["nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_on_the_command_line(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files of every kind."""
    directory = tmp_path_factory.mktemp("hints") / "dump"
    write_dump(directory, like="modern")
    (directory / "empty").touch()
    (directory / "text").write_text("typo\n")
    (directory / "text.gz").write_bytes(gzip.compress(b"typo\n"))
    (directory / "program").write_bytes(PROGRAM)
    return directory


#: The headers of an ELF executable with a dynamic linker.
PROGRAM = (
    b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 6, 4, 64, 64, 64, 112, 112, 8)
    + struct.pack("<IIQQQQQQ", 3, 4, 176, 176, 176, 28, 28, 1)
).ljust(4096, b"\0")


@pytest.mark.parametrize(
    ("line", "status", "expected"),
    [
        ("bt vmcore typo", 1, "has no task typo; there is no file typo either\n"),
        ("bt vmcore ./typo", 1, "has no task ./typo; there is no file ./typo either\n"),
        ("bt vmcore 99999", 1, "has no task 99999\n"),
        ("ps vmcore 1 99999", 1, "has no task 99999\n"),
        ("ps vmcore systemdd 1", 1, "has no task systemdd; did you mean systemd?\n"),
        ("bt vmcore text", 1, "text is a file of 5 bytes that starts with 'typo\\n', and follows"),
        ("bt vmcore empty", 1, "empty is an empty file, and follows the files: these are"),
        ("bt vmcore text.gz", 1, "text.gz is a file compressed by gzip, and follows"),
        ("bt vmcore .", 1, ". is a directory, and follows"),
        ("bt vmcore vmlinux vmlinux", 1, "vmlinux is an ELF executable, such as a vmlinux, and"),
        ("domains vmcore vmlinux", 1, "vmlinux is an ELF executable, such as a vmlinux, and"),
        ("sym vmcore linux_baner", 1, "did you mean linux_banner?"),
        ("domains vmcore vmlinux", 1, "follows the files: these are VMCORE\n"),
        ("vcpus vmcore vmlinux", 2, "these are VMCORE, with --vmlinux VMLINUX\n"),
        ("vcpus vmlinux vmcore", 2, "takes no VMLINUX before VMCORE, but --vmlinux VMLINUX\n"),
        (
            "bt 1 vmcore",
            3,
            "1: No such file or directory; operands follow the files: [VMLINUX] VMCORE "
            "[PID|TASK|COMM ...]\n",
        ),
        ("bt ./typo vmcore", 3, "./typo: No such file or directory\n"),
        ("sys typo vmcore", 3, "typo: No such file or directory\n"),
        ("sym linux_banner vmcore", 3, "operands follow the files: [VMLINUX] VMCORE"),
        (
            "p jiffies vmcore",
            2,
            "required: EXPRESSION; there is no file jiffies: operands follow the files: "
            "[VMLINUX] VMCORE EXPRESSION [EXPRESSION ...]\n",
        ),
        (
            "rd --hypervisor xen_start vmcore",
            2,
            "there is no file xen_start: operands follow the files: [XEN-SYMS] VMCORE",
        ),
        ("p vmlinux vmcore", 2, "arguments are required: EXPRESSION\n"),
        ("sys vmcore typo", 2, "unrecognized arguments: typo; there is no file typo either\n"),
        ("sys vmcore text", 2, "unrecognized arguments: text; text is a file of 5 bytes"),
        ("bt vmlinux", 2, "required: VMCORE; vmlinux is an ELF executable, such as a vmlinux\n"),
        ("domains vmlinux vmcore", 2, "xkdump domains takes no VMLINUX before VMCORE\n"),
        ("bt vmlinux vmlinux", 3, "in place of a dump: the order of the files is VMLINUX VMCORE"),
        ("bt vmcore vmcore", 3, "in place of a vmlinux: the order of the files is VMLINUX VMCORE"),
        ("bt program vmcore", 3, "program: a program of user space: give the vmlinux"),
        ("bt --hypervisor program vmcore", 3, "a program of user space: give the xen-syms"),
        ("bt text vmcore", 3, "text: not a vmlinux but a file of 5 bytes that starts with 'typo"),
        ("bt empty vmcore", 3, "empty: not a vmlinux but an empty file: give the vmlinux or"),
        ("bt --hypervisor text vmcore", 3, "text: not a xen-syms but a file of 5 bytes"),
        ("search vmcore -c text", 2, "required: VALUE|SYMBOL|TEXT; -c takes a task; text, which"),
        ("search vmcore", 2, "required: VALUE|SYMBOL|TEXT\n"),
        (
            "bt .",
            3,
            ".: expected a regular file, found a directory; the only dump in it",
        ),
        ("bt --hypervisor . vmcore", 3, ".: expected a regular file, found a directory\n"),
        ("bt --hypervisor vmlinux vmcore", 1, "none of its symbols (it is a Linux kernel's)"),
    ],
)
def test_files_in_wrong_places(
    line: str,
    status: int,
    expected: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message says what a file is, and where it belongs."""
    monkeypatch.chdir(files)
    try:
        found = main(line.split())
    except SystemExit as error:
        found = int(error.code or 0)
    assert (found, expected) == (status, expected)
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help", "--he", "-V", "--version"])
def test_options_without_a_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([option, "bt"])
    assert raised.value.code == 0
    assert "xkdump" in capsys.readouterr().out


def test_drgn_has_the_commands() -> None:
    pytest.importorskip("drgn", reason="pip install 'xenkdump_fast[drgn]'")
    from drgn import Program
    from drgn.commands import CommandNotFoundError, run_command

    # It loads the commands, and has none for a program without a kernel.
    with pytest.raises(CommandNotFoundError):
        run_command(Program(), "crash no_such_command", globals={})
    common = importlib.import_module("drgn.commands._crash.common")
    missing = hints._DRGN - common.CRASH_COMMAND_NAMESPACE._commands.keys()
    assert not missing


def test_drgn_has_the_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("drgn", reason="pip install 'xenkdump_fast[drgn]'")
    dump = write_dump(tmp_path / "dump", like="modern")

    def refused(line: str) -> bool:
        main(["crash", str(dump.vmlinux), str(dump.vmcore), *line.split()])
        return "unrecognized arguments" in capsys.readouterr().err

    for line in ("bt -c 0", "bt -f", "bt -F", "mod -t", "ps -m", "ps -p 1", "ps -G"):
        assert not refused(line), line
    assert refused("bt -t")


def test_no_hint_hides_a_command() -> None:
    assert not (hints._DRGN | hints._OTHER_NAMES.keys()) & COMMANDS.keys()
