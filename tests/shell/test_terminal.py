"""The shell in a real terminal."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from xenkdump_forge import SyntheticDump

PROMPT = "xkdump dom0>"
#: prompt_toolkit enables bracketed paste while a line is edited.
_EDITS, _RUNS = "\x1b[?2004h", "\x1b[?2004l"
#: Sequences that move the cursor, set colours or ask the terminal.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>])")
CTRL_D, TAB, ENTER = "\x04", "\t", "\r"

Start = Callable[..., "Terminal"]


class Terminal:
    """A shell in a terminal of 24 lines."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "xenkdump_fast", *words],
            env=environment,
            dimensions=(24, 100),
            encoding="utf-8",
            timeout=10,
        )

    def until(self, text: str) -> str:
        """What is printed up to ``text``, without control sequences."""
        self.process.expect_exact(text)
        return _SEQUENCE.sub("", self.process.before)

    def ready(self, prompt: str = PROMPT) -> str:
        """What is printed up to the next prompt."""
        printed = self.until(_EDITS)
        self.until(prompt)
        return printed

    def run(self, line: str, prompt: str = PROMPT) -> str:
        """What a line prints."""
        self.process.send(line + ENTER)
        self.until(_RUNS)
        return self.ready(prompt)

    def left(self) -> int:
        """The exit status, once the shell has ended."""
        self.process.expect(pexpect.EOF)
        self.process.close()
        status = self.process.exitstatus
        assert isinstance(status, int)
        return status


@pytest.fixture
def start(host: SyntheticDump, tmp_path: Path) -> Iterator[Start]:
    started: list[Terminal] = []
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path),
        "TERM": "xterm",
        "PAGER": "",
        "LESS": "FRX",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }

    def begin(*words: str, **more: str) -> Terminal:
        files = [str(host.vmlinux), str(host.vmcore)]
        started.append(Terminal([*words, *files], {**environment, **more}))
        return started[-1]

    yield begin
    for terminal in started:
        terminal.process.close(force=True)


def test_a_session(start: Start) -> None:
    terminal = start()  # files without a command
    assert "PANIC: " in terminal.ready()
    first = terminal.run("bt 1")
    assert '"systemd"' in first
    assert "Warning" not in first
    assert "no such command" in terminal.run("nonsense")
    assert "is not mapped" in terminal.run("vtop 10")
    assert "no symbol" not in terminal.run("ps | grep systemd")
    terminal.run("domain 1", "xkdump dom1>")
    terminal.run("domain hypervisor", "xkdump hypervisor>")
    assert terminal.run("bt | head -1", "xkdump hypervisor>").count("PCPU") == 1
    terminal.process.send(CTRL_D)
    assert terminal.left() == 0


@pytest.mark.parametrize("word", ["exit", "quit", "q"])
def test_leaving(start: Start, word: str) -> None:
    terminal = start("shell")
    terminal.ready()
    terminal.process.send(word + ENTER)
    assert terminal.left() == 0


def test_ctrl_c(start: Start) -> None:
    terminal = start()
    terminal.ready()
    # At the prompt it drops the line.
    terminal.process.send("nonsense")
    terminal.until("nonsense")
    terminal.process.sendintr()
    assert "no such command" not in terminal.ready()
    # In a command it ends the line, with the commands that follow. The second one takes more
    # than a year.
    terminal.process.send("bt 1 | wc; log | grep '((.*)*)*#!#'; bt 1 | wc" + ENTER)
    terminal.until(_RUNS)
    counts = re.compile(r"^ +[0-9]+ +[0-9]+ +[0-9]+", re.M)
    terminal.process.expect(counts)
    terminal.process.sendintr()
    assert not counts.search(terminal.ready())
    assert '"systemd"' in terminal.run("bt 1")


def test_completion(start: Start) -> None:
    terminal = start()
    terminal.ready()
    terminal.process.send("vtop linux_bann" + TAB)
    terminal.until("linux_banner")
    assert "PHYSICAL" in terminal.run("")
    terminal.process.send("domai" + TAB + TAB)
    terminal.until("domains")


def test_history(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "xkdump" / "history"
    first = start()
    first.ready()
    first.run("bt 1")
    first.process.send(CTRL_D)
    assert first.left() == 0
    assert file.read_text() == "bt 1\n"
    assert file.stat().st_mode & 0o777 == 0o600
    second = start()
    second.ready()
    second.process.send("\x1b[A")  # arrow up
    assert '"systemd"' in second.run("")
    second.process.send(CTRL_D)
    assert second.left() == 0
    without = start("shell", "--no-history")
    without.ready()
    without.run("ps 1")
    without.process.send(CTRL_D)
    assert without.left() == 0
    assert file.read_text() == "bt 1\n"


def test_a_pager(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "pager"
    program.write_text("#!/bin/sh\necho PAGER $LESSSECURE\ncat\necho END\n")
    program.chmod(0o755)
    terminal = start(PAGER=str(program))
    terminal.ready()
    shown = terminal.run("bt --all")
    assert "PAGER 1" in shown
    assert "END" in shown
    assert "PAGER" not in terminal.run("bt 1 | head -3")  # fits on the screen
    assert "PAGER" not in terminal.run("set scroll off; bt --all")
    assert "PAGER" in terminal.run("bt --all | less")


def test_a_pager_that_is_left(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "pager"
    program.write_text("#!/bin/sh\nhead -n 1 >/dev/null\necho LEFT\n")
    program.chmod(0o755)
    terminal = start(PAGER=str(program))
    terminal.ready()
    assert "LEFT" in terminal.run("bt --all")
    assert '"systemd"' in terminal.run("bt 1 | head")
    terminal = start(PAGER="/nonexistent/pager")
    terminal.ready()
    assert "COMMAND" in terminal.run("bt --all")


def test_less(start: Start) -> None:
    if not any(Path(folder, "less").exists() for folder in os.environ["PATH"].split(":")):
        pytest.skip("no less")
    terminal = start()
    terminal.ready()
    terminal.process.send("bt --all" + ENTER)
    terminal.process.expect_exact(":")
    terminal.process.send("q")
    terminal.ready()
    assert '"systemd"' in terminal.run("bt 1 | head")


def test_redirection(start: Start, tmp_path: Path) -> None:
    terminal = start()
    terminal.ready()
    file = tmp_path / "out"
    terminal.run(f"bt 1 > {file}")
    assert "systemd" in file.read_text()
    assert "exists" in terminal.run(f"ps > {file}")


def test_without_prompt_toolkit(start: Start, tmp_path: Path) -> None:
    (tmp_path / "prompt_toolkit.py").write_text("raise ImportError\n")
    terminal = start("shell", PYTHONPATH=str(tmp_path))
    terminal.until(PROMPT)
    terminal.process.send("bt 134" + TAB + "| head -3" + ENTER)
    terminal.until("do_kdump")
    terminal.until(PROMPT)
    terminal.process.sendintr()
    terminal.until(PROMPT)
    terminal.process.send(CTRL_D)
    assert terminal.left() == 0
    assert (tmp_path / "xkdump" / "history").read_text() == "bt 1340| head -3\n"


def test_a_paste_of_lines(start: Start) -> None:
    terminal = start()
    terminal.ready()
    terminal.process.send("\x1b[200~ps 1 | wc\nmod | wc\x1b[201~" + ENTER)
    terminal.until(_RUNS)
    assert re.findall(r"^ +([0-9]+) ", terminal.ready(), re.M) == ["2", "3"]
