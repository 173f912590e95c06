"""What is said of words that are not commands."""

import importlib
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
        (["bt", "--domian", "x"], "unrecognized arguments: --domian\n"),
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
