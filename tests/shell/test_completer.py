"""Completion of words, at the ends of lines."""

from pathlib import Path

import pytest

from xenkdump_fast.commands import COMMANDS
from xenkdump_fast.linux.kernel import Kernel
from xenkdump_fast.shell.completer import Completer
from xenkdump_fast.shell.repl import Shell
from xenkdump_forge import SyntheticDump

from .conftest import make


@pytest.fixture
def completer(shell: Shell) -> Completer:
    return Completer(shell)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {"bt", "ps", "domain", "exit", "dmesg"}),
        ("  do", {"domain", "domains"}),
        ("bt; pw", set()),
        ("bt; vc", {"vcpus"}),
        ("bt --al", {"--all"}),
        ("bt --state U", {"UN"}),
        ("bt --domain ", {"0", "1", "all", "hypervisor"}),
        ("domain h", {"hypervisor"}),
        ("bt 134", {"1340"}),
        ("bt systemd-u", {"systemd-udevd"}),
        ("vtop linux_bann", {"linux_banner"}),
        ("vtop --pid systemd-u", {"systemd-udevd"}),
        ("dmesg --lev", {"--level"}),
        ("dis linux_bann", {"linux_banner"}),
        ("sym -M jb", {"jbd2"}),
        ("struct task_stru", {"task_struct"}),
        ("p linux_bann", {"linux_banner"}),
        ("set sc", {"scroll"}),
        ("set scroll o", {"on", "off"}),
        ("help gre", {"grep"}),
        ("ps | h", {"head"}),
        ("ps | ", {"grep", "head", "tail", "wc", "sort", "uniq", "less", "more"}),
        ("ps | grep --ign", {"--ignore-case"}),
        ("ps > not", {"notes.txt"}),
        ("ps | head >> not", {"notes.txt"}),
        ("ps | head >! a", {"a[1]"}),
        ("ps | grep 'x", set()),
        ("nonsense ", set()),
        ("log ", set()),
        ("exit ", set()),
    ],
)
def test_candidates(completer: Completer, line: str, expected: set[str], workplace: Path) -> None:
    (workplace / "notes.txt").touch()
    (workplace / "a[1]").touch()
    found = completer.complete(line)
    if line == "":
        usable = {c.name for c in COMMANDS.values() if c.target != "none" and not c.interactive}
        assert {*found.texts} > expected | usable
        assert {*COMMANDS} & {*found.texts} == usable
    else:
        assert {*found.texts} == expected
    assert line[found.start :] == (line.rsplit(" ", maxsplit=1)[-1] if line else "")


def test_options(completer: Completer) -> None:
    found = completer.complete("ps -").texts
    assert {"--domain", "--json", "--state"} <= {*found}
    assert "--force" not in found


def test_structs(completer: Completer, monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    """Of a command whose operand is called so, if there is type information."""
    from xenkdump_fast.commands import vtop

    monkeypatch.setattr(vtop, "OPERANDS", vtop.OPERANDS._replace(metavar="STRUCT[.MEMBER]"))
    domain = shell.session.current
    assert domain is not None
    assert "task_struct" in completer.complete("vtop task_").texts
    monkeypatch.setattr(domain.kernel.types, "native", None)
    monkeypatch.setattr(domain.kernel.types, "_why", "removed", raising=False)
    assert [*Completer(shell).complete("vtop task_").texts] == []


def test_names_are_of_the_current_domain(completer: Completer, shell: Shell) -> None:
    assert "do_kdump" in completer.complete("bt do_").texts
    shell.run("domain 1")
    assert "do_kdump" not in completer.complete("bt do_").texts
    shell.run("domain all")
    assert completer.complete("bt do_").texts == []


def test_many(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenkdump_fast.shell.completer.MAX_COMPLETIONS", 3)
    assert len(completer.complete("vtop ").texts) == 3


def test_names_from_the_dump_are_plain(
    completer: Completer, monkeypatch: pytest.MonkeyPatch, shell: Shell
) -> None:
    from xenkdump_fast.linux import task_table

    domain = shell.session.current
    assert domain is not None
    first = domain.kernel.tasks()[0]
    named = [first._replace(comm=comm) for comm in ("a\x1b[2J", "a b", "a|b", "a\u202eb", "ab")]
    monkeypatch.setattr(task_table, "read", lambda kernel: named)
    assert completer.complete("bt a").texts == ["ab"]


def test_tasks_are_read_once(completer: Completer, monkeypatch: pytest.MonkeyPatch) -> None:
    from xenkdump_fast.linux import task_table

    reads = []
    read = task_table.read

    def counted(kernel: Kernel) -> task_table.TaskTable:
        reads.append(kernel)
        return read(kernel)

    monkeypatch.setattr(task_table, "read", counted)
    assert {"1340", "systemd", "scroll"} < {*completer.complete("set ").texts}
    assert "1340" in completer.complete("bt 134").texts
    assert len(reads) == 1


def test_damage(host: SyntheticDump, tmp_path: Path) -> None:
    short = tmp_path / "short"
    with host.vmcore.open("rb") as stream:
        short.write_bytes(stream.read(1 << 20))
    found = Completer(make(str(short)))
    assert [*found.complete("bt 1").texts] == []
    assert found.complete("b").texts == ["bt"]
