"""Lines that are run on a session."""

import io
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from xenkdump_fast import arguments, isolation, session
from xenkdump_fast.cli import ExitStatus, main
from xenkdump_fast.commands import COMMANDS, Command
from xenkdump_fast.commands.contract import UsageError
from xenkdump_fast.linux import backtrace
from xenkdump_fast.linux.system import Linux
from xenkdump_fast.output.writer import WriteError
from xenkdump_fast.session import Domain
from xenkdump_fast.shell import output
from xenkdump_fast.shell import session as shell_session
from xenkdump_fast.shell.builtins import LeaveError
from xenkdump_fast.shell.line import Mode, Redirection
from xenkdump_fast.shell.repl import Shell
from xenkdump_forge import SyntheticDump, write_dump

from .conftest import make

Capture = pytest.CaptureFixture[str]
#: With the files before the operands.
LINES = (
    "bt",
    "bt -a",
    "bt --all",
    "bt 1",
    "bt --unwind scan",
    "sys",
    "ps",
    "ps systemd",
    "log -n 3",
    "cmdline",
    "mod",
    "vtop linux_banner 0x10",
    "rd linux_banner 4",
    "rd 0x100000 -p",
    "sym linux_banner",
    "struct list_head",
    "struct list_head init_task -o",
    "union thread_union",
    "task 1 --members=pid,comm",
    "dis panic 3 -l",
    "whatis list_head",
    "dis panic 3",
    "vm --all",
    "runq",
    "irq",
    "timer",
    "kmem -i",
    "search nothing-like-this -t --length=0x10000",
    "mount",
    "net",
    "ipcs -m",
    "dev -d",
    "swap",
    "check",
    "signature",
    "notes",
    "domains",
    "domains 0",
    "vcpus --all",
    "pcpus",
    "sched",
    "report --text",
    "evtchn 0",
    "grants",
    "bt --hypervisor",
    "sys --hypervisor",
    "log --hypervisor",
    "bt -a --domain all",
    "ps --domain 1",
    "ps 1 99999",
    "bt 99999",
)


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("line", LINES)
def test_as_the_command_line(
    host: SyntheticDump, shell: Shell, line: str, form: list[str], capsys: Capture
) -> None:
    name, *words = [*line.split(), *form]
    takes_vmlinux = COMMANDS[name].vmlinux != "no" and "--hypervisor" not in words
    files = [str(host.vmlinux)] * takes_vmlinux + [str(host.vmcore)]
    options, operands = words, []
    has_operands = hasattr(arguments.command_module(COMMANDS[name]), "OPERANDS")
    if has_operands and words and not words[0].startswith("-"):
        operands = [word for word in words if not word.startswith("-")]
        options = [word for word in words if word.startswith("-")]
    if name == "vcpus":
        options = [*options, "--vmlinux", str(host.vmlinux)]
    capsys.readouterr()
    status = main([name, *options, *files, *operands])
    expected = capsys.readouterr()
    for repetition in range(2):
        assert shell.run(" ".join([line, *form])) == status
        found = capsys.readouterr()
        assert found.out == expected.out
        errors = expected.err.splitlines()
        if repetition:
            errors = [text for text in errors if "warning: " not in text]
        assert found.err.splitlines() == errors


def test_many_repetitions(shell: Shell, capsys: Capture) -> None:
    """Budgets are for one command, not for the session."""
    # A report has the warnings of the commands before it.
    left_out = ("ps 1 ", "bt 9", "report ")
    lines = "; ".join(line for line in LINES if not line.startswith(left_out))
    shell.run(lines)
    first = capsys.readouterr().out
    for _ in range(15):
        shell.run(lines)
        assert capsys.readouterr().out == first


def test_domains(shell: Shell, capsys: Capture) -> None:
    prompts = [shell.prompt]
    shell.run("bt")
    own = capsys.readouterr().out
    for name in ("1", "hypervisor", "xen", "all", "Domain-0", "domu1.lab.example"):
        assert shell.run(f"domain {name}") == 0
        prompts.append(shell.prompt)
        assert shell.run("bt -a") == 0
    assert prompts == [
        f"xkdump {where}> "
        for where in ("dom0", "dom1", "hypervisor", "hypervisor", "all", "dom0", "dom1")
    ]
    found = capsys.readouterr()
    assert found.out.count("DOMAIN: 1\n") == 3
    assert found.out.count("PCPU:  0") == 2
    assert shell.run("domain") == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "1"
    assert shell.run("bt --domain 0") == 0
    assert capsys.readouterr().out == own
    assert shell.prompt == "xkdump dom1> "


@pytest.mark.parametrize(
    ("line", "status", "problem"),
    [
        ("domain 7", 1, "no domain 7; domains: 0, 1"),
        ("domain nobody", 1, "no domain 'nobody'"),
        ("domain 1 2", 2, "2 arguments"),
        ("domain all; vtop 0", 2, "--domain: all is only available for"),
        ("domain hypervisor; ps", 2, "ps needs a domain"),
        ("domain hypervisor; check", 2, "check needs a domain"),
        ("domain hypervisor; set 1", 2, "set needs a domain"),
        ("ps --domain hypervisor", 2, "needs a domain"),
        ("bt --domain 9", 1, "no domain 9"),
        ("nonsense", 2, "nonsense: no such command; 'help' lists them"),
        ("sig 1", 2, "sig: no such command; outside of the shell, 'xkdump crash ... sig'"),
        ("drgn", 2, "drgn: no such command; outside of the shell, 'xkdump drgn' runs it"),
        ("task_struct.pid 1", 2, "no such command; try struct task_struct.pid"),
        ("foreach bt", 2, "foreach: no such command; try bt --all"),
        ("sample /tmp/x", 2, "no such command; outside of the shell, 'xkdump sample' runs it"),
        ("triage x", 2, "no such command; outside of the shell, 'xkdump triage' runs it"),
        ("kmem -s", 2, "unrecognized arguments: -s; -i is the usage of memory; drgn prints slab"),
        ("kmem -s x", 2, "kmem ... -- -s"),
        ("shell", 2, "no such command"),
        ("bt --nonsense", 2, "bt: unrecognized arguments: --nonsense"),
        ("bt -a --all", 2, "not allowed with"),
        ("bt --state XX", 2, "invalid choice"),
        ("bt --hypervisor --all", 2, "not allowed with"),
        ("vtop", 2, "required: ADDRESS|SYMBOL"),
        ("vtop 0x10", 1, "is not mapped"),
        ("vtop nonsense", 1, "neither an address nor a symbol"),
        ("log more", 2, "unrecognized arguments: more"),
        ("log -n x", 2, "not a number of messages"),
        ("help nonsense", 2, "no command nonsense"),
        ("set 99999", 1, "has no task 99999"),
        ("set -c 77", 1, "no task of CPU 77"),
        ("set scroll maybe", 2, "on or off"),
        ("bt | nonsense", 2, "nonsense: no filter"),
        ("bt | less | head", 2, "less: no filter"),
        ("bt | grep [", 2, "unterminated"),
        ("bt | head -z", 2, "unrecognized"),
        ("bt 'x", 2, "within quotes"),
        ("bt > /nonexistent/file", 74, "No such file"),
        ("bt > .", 74, "Is a directory"),
        ("! echo no", 2, "--shell-escapes"),
        ("unalias nonsense", 2, "no alias"),
        ("alias domain ps", 2, "of the shell"),
    ],
)
def test_mistakes(shell: Shell, line: str, status: int, problem: str, capsys: Capture) -> None:
    """Each is a message and a status, and the next command works."""
    assert shell.run(line) == status
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("xkdump: ")
    assert problem in error
    assert shell.run("domain 0; mod") == 0
    assert capsys.readouterr().out


def test_the_current_task(shell: Shell, capsys: Capture) -> None:
    shell.run("bt 1")
    expected = capsys.readouterr().out
    assert shell.run("set") == 0
    assert 'COMMAND: "do_kdump"' in capsys.readouterr().out
    assert shell.run("set 1") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["    PID: 1", 'COMMAND: "systemd"']
    shell.run("bt")
    assert capsys.readouterr().out == expected
    # Each domain has its own, and options that choose other tasks come first.
    shell.run("domain 1; bt; domain 0")
    assert '"systemd"' not in capsys.readouterr().out
    shell.run("bt -a")
    assert '"do_kdump"' in capsys.readouterr().out
    shell.run("set -p; bt")
    assert '"systemd"' not in capsys.readouterr().out
    shell.run("set -c 0")
    assert 'COMMAND: "swapper/0"' in capsys.readouterr().out


def test_user_memory_of_the_current_task(shell: Shell, capsys: Capture) -> None:
    """Its page tables are for addresses that the kernel's do not map."""

    def printed(line: str) -> str:
        shell.run(line)
        return capsys.readouterr().out

    text = json.loads(printed("vtop --pid 1 --json 10000"))
    assert text["pid"] == 1
    expected = [printed(f"{line} --json") for line in ("vtop linux_banner", "rd linux_banner")]
    for pid in (0, 1):  # 0 is a kernel thread
        shell.run(f"set {pid}")
        capsys.readouterr()
        assert printed("vtop linux_banner --json") == expected[0]
        assert printed("rd linux_banner --json") == expected[1]
        found = json.loads(printed("vtop 10000 --json"))
        assert found.get("pid") == (1 if pid else None)
    assert printed("rd 10000 --json") == printed("rd -c 1 10000 --json")


def test_pipes(shell: Shell, capsys: Capture) -> None:
    shell.run("ps")
    lines = capsys.readouterr().out.splitlines()
    assert shell.run("ps | grep -v COMM | wc -l") == 0
    assert capsys.readouterr().out == f"{len(lines) - 1}\n"
    assert shell.run("ps | head -1; help | grep -c 'the tasks'") == 0
    assert capsys.readouterr().out.splitlines() == [lines[0], "1"]
    assert shell.run("ps --json | grep systemd | head -1 | less") == 0
    assert '"comm": "systemd"' in capsys.readouterr().out
    # The command's own status counts, unless the filter ends it.
    assert shell.run("ps 1 99999 | grep nothing") == 1


def test_head_ends_the_command(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    unwound: list[object] = []
    trace = backtrace.trace

    def counted(kernel: Linux, *arguments: Any) -> backtrace.Trace:
        unwound.append(kernel)
        return trace(kernel, *arguments)

    monkeypatch.setattr(backtrace, "trace", counted)
    shell.run("bt --all | wc -l")
    everything = len(unwound)
    unwound.clear()
    shell.run("bt --all | head -1")
    assert 0 < len(unwound) < everything / 2


def test_warnings_of_a_command_that_head_ends(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    current = shell.session.current
    assert current is not None
    current.kernel.warn("the date is odd")
    assert shell.run("bt --all | head -1") == 0
    assert "warning: the date is odd" in capsys.readouterr().err
    shell.run("mod")
    assert capsys.readouterr().err == ""


def test_redirections(shell: Shell, workplace: Path, capsys: Capture) -> None:
    shell.run("log -n 1")
    line = capsys.readouterr().out
    file = workplace / "a b"
    assert shell.run("log -n 1 > 'a b'") == 0
    assert shell.run("mod | head -1 | grep -c . >> 'a b'") == 0
    assert file.read_text() == f"{line}1\n"
    assert shell.run("bt > 'a b'") == 2
    assert "a b exists: >! replaces it" in capsys.readouterr().err
    assert file.read_text() == f"{line}1\n"
    assert shell.run("log -n 1 >! 'a b'; bt > /dev/null") == 0
    assert file.read_text() == line
    assert capsys.readouterr().out == ""
    # A mistake creates no file.
    assert shell.run("bt | nonsense > new; bt | head -z > new") == 2
    assert not (workplace / "new").exists()


@pytest.mark.parametrize(
    ("kind", "is_written"), [(stat.S_IFCHR, True), (stat.S_IFIFO, True), (stat.S_IFBLK, False)]
)
def test_a_disk_is_not_replaced(
    kind: int, is_written: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workplace / "device"
    file.write_text("contents")
    monkeypatch.setattr("os.stat", lambda _: SimpleNamespace(st_mode=kind))
    redirection = Redirection(str(file), Mode.NEW)
    if is_written:
        output.open_file(redirection, ()).close()
        assert not file.read_text()
        return
    with pytest.raises(UsageError, match="exists: >! replaces it"):
        output.open_file(redirection, ())
    assert file.read_text() == "contents"


@pytest.mark.parametrize("mode", [">!", ">>"])
def test_the_dump_is_never_written(mode: str, workplace: Path, capsys: Capture) -> None:
    made = write_dump(workplace / "dump", "modern")
    shell = make(str(made.vmlinux), str(made.vmcore))
    (workplace / "link").symlink_to(made.vmcore)
    before = made.vmcore.read_bytes(), made.vmlinux.read_bytes()
    for path in (made.vmcore, made.vmlinux, "link"):
        assert shell.run(f"bt {mode} '{path}'") == 2
        assert "one of the files that are read" in capsys.readouterr().err
    assert before == (made.vmcore.read_bytes(), made.vmlinux.read_bytes())


def test_bytes(shell: Shell, workplace: Path, capsys: Capture) -> None:
    assert shell.run("notes --extract 0 - > note") == 0
    assert shell.run("notes --extract 0 other") == 0
    assert (workplace / "note").read_bytes() == (workplace / "other").read_bytes() != b""
    assert shell.run("notes --extract 0 - | head") == 2
    assert "bytes cannot be filtered" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk(shell: Shell, capsys: Capture) -> None:
    for line in ("ps >! /dev/full", "bt --all | tail -3 >> /dev/full", "sys > /dev/full"):
        assert shell.run(line) == 74
        error = capsys.readouterr().err.splitlines()[-1]
        assert "/dev/full: No space left on device" in error


@pytest.mark.parametrize("line", ["bt --all >! cut", "bt --all | grep -v xyz >! cut"])
def test_an_interrupt_while_a_file_is_written(
    line: str,
    shell: Shell,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    def frames(*_: object) -> None:
        raise KeyboardInterrupt

    shell.run("sys >! /dev/null")
    monkeypatch.setattr(backtrace, "trace", frames)
    with pytest.raises(KeyboardInterrupt):
        shell.run(line)
    err = capsys.readouterr().err
    assert err == "xkdump: interrupted: the output in cut is incomplete\n"


def test_help(shell: Shell, capsys: Capture) -> None:
    assert shell.run("help") == 0
    text = capsys.readouterr().out
    usable = [c.name for c in COMMANDS.values() if c.target != "none" and not c.interactive]
    for name in [*usable, "domain", "set", "grep"]:
        assert f"  {name} " in text
    shown = []
    for line in ("help bt", "bt --help", "help dmesg", "help head", "help set", "man ps"):
        assert shell.run(line) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "--unwind" in shown[0]
    assert "VMCORE" not in shown[0]
    assert shown[2] == "dmesg: an alias of log\n"


def test_aliases(shell: Shell, capsys: Capture) -> None:
    shell.run("log -n 2")
    expected = capsys.readouterr().out
    assert shell.run("dmesg -n 2; alias l 'log -n'; l 2; alias log log -n 2; log") == 0
    assert capsys.readouterr().out == expected * 3
    assert shell.run("alias a b; alias b a; a") == 2  # a loop ends
    assert shell.run("unalias log; alias") == 0
    text = capsys.readouterr().out
    assert "log -n\n" in text
    assert not any(line.startswith("log ") for line in text.splitlines())


def test_warnings_once(tmp_path: Path, capsys: Capture) -> None:
    """Once per domain and session; those about the dump once; in JSON each time."""
    made = write_dump(tmp_path / "dump", "modern")
    shell = make(str(made.vmcore))
    current = shell.session.current
    assert current is not None
    other = shell.session.domain(1)
    capsys.readouterr()
    current.kernel.warn("the date is odd")
    current.dump.warn("the file is odd")
    for number in range(9):
        current.kernel.warn(f"task {number} is odd: it is")
    shell.run("mod; mod")
    first = capsys.readouterr().err.splitlines()
    assert first.count("xkdump: warning: the date is odd") == 1
    assert first.count("xkdump: warning: the file is odd") == 1
    assert sum("more like this" in line for line in first) == 1
    other.kernel.warn("the date is odd")
    current.kernel.warn("task 99 is odd: it is")
    shell.run("mod --domain 1; mod")
    assert capsys.readouterr().err.splitlines() == ["xkdump: warning: the date is odd"]
    shell.run("mod --json")
    found = capsys.readouterr()
    assert "the date is odd" in json.loads(found.out)["warnings"]
    assert found.err == ""


def test_domains_stay_open(host: SyntheticDump, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    open_domain = session.Dump.domain

    def counted(self: session.Dump, number: int = 0, *args: object, **more: object) -> Domain:
        opened.append(number)
        return open_domain(self, number, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(session.Dump, "domain", counted)
    shell = make(str(host.vmlinux), str(host.vmcore))
    shell.run("bt; domain 1; bt; ps; bt --domain 0; bt -a --domain all; domain 0; log")
    assert opened == [0, 1]
    monkeypatch.setattr(shell_session, "MAX_OPEN_DOMAINS", 1)
    opened.clear()
    shell = make(str(host.vmcore))
    shell.run("bt --domain 1; bt; bt; bt --domain 1")
    assert opened == [1, 0, 1]


def test_a_bug_does_not_end_the_shell(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    module = arguments.command_module(COMMANDS["mod"])

    def run(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(isolation, "strict", False)
    assert shell.run("mod") == ExitStatus.BUG
    assert "this is a bug in xkdump" in capsys.readouterr().err
    assert shell.run("sys") == 0


def test_a_new_command(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The shell finds its options and the current task by the contract."""
    from xenkdump_fast.commands import cmdline

    class WithTask(NamedTuple):
        task: str | None = None
        depth: int = 1

    def add_options(parser: object) -> None:
        parser.add_argument("--depth", type=int, default=1)  # type: ignore[attr-defined]

    def run(target: Domain, options: WithTask) -> cmdline.CommandLine:
        return cmdline.CommandLine(target.id, f"{options.task} {options.depth}")

    monkeypatch.setattr(cmdline, "Options", WithTask)
    monkeypatch.setattr(cmdline, "add_options", add_options, raising=False)
    monkeypatch.setattr(cmdline, "run", run)
    monkeypatch.setitem(COMMANDS, "cmdline", Command("cmdline", "a new one", "domain", "required"))
    shell.run("cmdline; set 1; cmdline --depth 3")
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "None 1"
    assert last.endswith(" 3")
    assert last.startswith("0x")


def test_programs(host: SyntheticDump, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shell = make(str(host.vmlinux), str(host.vmcore), escapes=True)
    assert shell.run("ps | grep systemd | tr a-z A-Z | sed s/SYSTEMD/found/") == 0
    assert " found\n" in capfd.readouterr().out
    assert shell.run("ps | tr a-z A-Z > out; bt --all | true; ps | no-such-program") == 2
    assert "SYSTEMD" in (workplace / "out").read_text()
    assert "no-such-program: No such file" in capfd.readouterr().err
    assert shell.run("!echo 'a;b' | cat") == 0
    assert capfd.readouterr().out == "a;b\n"
    assert shell.run("! false") == 1


@pytest.mark.parametrize("word", ["exit", "quit", "q"])
def test_leaving(shell: Shell, word: str) -> None:
    with pytest.raises(LeaveError):
        shell.run(f"mod; {word}; nonsense")


def test_a_broken_screen(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, error: OSError) -> None:
            self._error = error

        def write(self, _: str) -> None:
            raise self._error

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", Broken(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        shell.run("ps")
    monkeypatch.setattr(sys, "stdout", Broken(OSError(5, "Input/output error")))
    with pytest.raises(WriteError):
        shell.run("ps")


def test_a_domain_that_is_damaged(tmp_path: Path, capsys: Capture) -> None:
    """The dump of a host can be looked at although no kernel can be found."""
    made = write_dump(tmp_path / "dump", "modern")
    with made.vmcore.open("r+b") as stream:
        stream.truncate(made.vmcore.stat().st_size // 16)
    shell = make(str(made.vmcore))
    assert shell.run("bt") != 0
    assert capsys.readouterr().err
    assert shell.run("notes | head -1") == 0


Start = Callable[..., int]


@pytest.fixture
def start(host: SyntheticDump, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*words: str) -> int:
        return main(["shell", str(host.vmlinux), str(host.vmcore), *words])

    return run


def test_lines_of_the_command_line(start: Start, capsys: Capture) -> None:
    assert start("-c", "mod; vtop 0x10", "-c", "mod") == 1
    assert len(capsys.readouterr().out.splitlines()) > 3
    assert start("-c", "nonsense; vtop 0x10; mod") == 2
    assert start("-c", "mod; exit", "-c", "nonsense") == 0


def test_lines_of_a_file(start: Start, workplace: Path, capsys: Capture) -> None:
    (workplace / "lines").write_text("# a comment\nmod | wc -l\n\nps | wc -l\n")
    assert start("-i", "lines") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert start("-i", "nonexistent") == 3
    assert start("-i", "lines", "-c", "ps") == 2


def test_lines_of_stdin(
    host: SyntheticDump, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (workplace / "lines").write_text("log\nnonsense\n")
    for words in (["shell"], []):
        with (workplace / "lines").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            # Without a command, files are for the shell.
            assert main([*words, str(host.vmcore)]) == 2
        found = capsys.readouterr()
        assert "Linux version" in found.out
        assert "nonsense: no such command" in found.err


def test_a_vmlinux_of_another_build(tmp_path: Path, host: SyntheticDump, capsys: Capture) -> None:
    other = write_dump(tmp_path / "dump", "2006")
    assert main(["shell", str(other.vmlinux), str(host.vmcore), "-c", "notes"]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("xkdump: ")


def test_starting_in_a_domain(host: SyntheticDump, capsys: Capture) -> None:
    assert make(str(host.vmcore), "--domain", "1").prompt == "xkdump dom1> "
    assert make(str(host.vmcore), "--domain", "all").prompt == "xkdump all> "
    assert make(str(host.vmcore), "--domain", "hypervisor").prompt == "xkdump hypervisor> "
    assert main(["shell", str(host.vmcore), "--domain", "9", "-c", "bt"]) == 1


def test_the_file_of_a_domain(tmp_path: Path, capsys: Capture) -> None:
    made = write_dump(tmp_path / "dump", "modern", format="xl-save")
    shell = make(str(made.vmlinux), str(made.vmcore))
    assert shell.prompt == "xkdump> "
    assert shell.run("ps; domain; domain 0") == 0
    capsys.readouterr()
    assert shell.run("domain hypervisor") == 1
    assert "not the dump of a Xen host" in capsys.readouterr().err
