"""``--domain all``: every domain with its own kernel."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import xenkdump_fast as xk
from tests.real.copies import Copy
from tests.tools.test_json_schema import SCHEMA, closed
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump

Capture = pytest.CaptureFixture[str]
COMMANDS = ("bt -a", "bt --all", "ps", "log", "sys", "mod")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    """A host with domains 0 and 1, both with the same kernel."""
    return write_dump(tmp_path_factory.mktemp("host") / "dump", "modern")


def document(arguments: Sequence[str], capsys: Capture, status: int = 0) -> Any:
    """The JSON object of a command, validated."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    errors = Draft202012Validator(closed(SCHEMA)).iter_errors(found)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
    return found


def lines(arguments: Sequence[str], capsys: Capture, status: int = 0) -> list[str]:
    capsys.readouterr()
    assert main(arguments) == status
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("with_vmlinux", [False, True])
def test_each_domain_as_alone(
    host: SyntheticDump, capsys: Capture, command: str, with_vmlinux: bool
) -> None:
    files = [str(host.vmlinux), str(host.vmcore)] if with_vmlinux else [str(host.vmcore)]
    whole = document([*command.split(), *files, "--domain", "all"], capsys)
    assert whole["command"] == f"{command.split(maxsplit=1)[0]} --domain all"
    expected_lines = []
    for number, found in enumerate(whole["domains"]):
        alone = [*command.split(), *files, "--domain", str(number)]
        expected = document(alone, capsys)
        warnings = [
            text if f"domain {number}" in text else f"domain {number}: {text}"
            for text in expected.pop("warnings", ())
        ]
        assert found.pop("warnings", []) == warnings
        for key in ("schema", "command", "dump"):
            del expected[key]
        assert found == expected
        body = lines(alone, capsys)
        if body[:1] == ["DOMAIN: 1"]:
            body = body[2:]  # the heading of bt
        expected_lines += ["", f"DOMAIN: {number}", "", *body]
    assert len(whole["domains"]) == 2
    assert lines([*command.split(), *files, "--domain", "all"], capsys) == expected_lines[1:]


def test_the_vmlinux_is_used_where_it_fits(
    host: SyntheticDump, tmp_path: Path, capsys: Capture
) -> None:
    files = [str(host.vmlinux), str(host.vmcore)]
    used = document(["sys", *files, "--domain", "all"], capsys)
    assert [domain["kernel"] for domain in used["domains"]] == [files[0], files[0]]
    other = str(write_dump(tmp_path, "32on64").vmlinux)
    unused = document(["sys", other, files[1], "--domain", "all"], capsys)
    assert {domain["kernel"] for domain in unused["domains"]} == {"(symbols and types from memory)"}
    assert unused["warnings"] == [f"{other} is not the kernel of any domain: it is not used"]


def test_a_machine_without_domains(tmp_path: Path, capsys: Capture) -> None:
    made = write_dump(tmp_path, "2006-x86_64")
    found = document(["sys", str(made.vmcore), "--domain", "all"], capsys)
    assert [domain["domain"] for domain in found["domains"]] == [0]
    assert xk.open(made.vmcore).domain_ids == [0]


class Damaged:
    """A copy of the host in which strings of domain 1's kernel can be replaced."""

    def __init__(self, host: SyntheticDump, folder: Path) -> None:
        path = folder / "vmcore"
        shutil.copyfile(host.vmcore, path)
        self.path = str(path)
        self._copy = Copy(path)
        self._domain = xk.open(host.vmcore).domain(1, host.vmlinux)

    def replace(self, old: bytes, new: bytes) -> None:
        """Replaces all occurrences in the kernel's image."""
        symbols = self._domain.kernel.symbols
        found = self._domain.virtual.find(old, symbols["_text"], symbols["_end"])
        assert found
        for address in found:
            self._write(address, old, new)

    def _write(self, address: int, old: bytes, new: bytes) -> None:
        at = self._copy.offset(self._domain.virtual.translate(address))
        assert self._copy.write(at, new) == old


def test_a_domain_that_fails(host: SyntheticDump, tmp_path: Path, capsys: Capture) -> None:
    damaged = Damaged(host, tmp_path)
    damaged.replace(b"0\0001\0002\0003\0004\0", bytes(10))  # the tokens of kallsyms
    for command in COMMANDS:
        arguments = [*command.split(), damaged.path, "--domain", "all"]
        good, bad = document(arguments, capsys, 1)["domains"]
        assert good["domain"] == 0
        assert "error" not in good
        assert (bad["domain"], bad["status"]) == (1, 1)
        assert "no kernel was found in memory" in bad["error"]
        assert lines(arguments, capsys, 1)[-3:] == ["", "DOMAIN: 1", ""]
        assert main(arguments) == 1
        assert f"xkdump: {damaged.path}: domain 1: " in capsys.readouterr().err


def test_a_domain_without_linux(host: SyntheticDump, tmp_path: Path, capsys: Capture) -> None:
    damaged = Damaged(host, tmp_path)
    damaged.replace(b"Linux version ", b"Other version ")
    damaged.replace(b"Linux\0", b"Other\0")
    arguments = ["ps", damaged.path, "--domain", "all"]
    good, other = document(arguments, capsys)["domains"]
    assert good["tasks"]
    assert other.keys() == {"domain", "skipped"}
    assert other["skipped"].startswith("no Linux kernel is in its memory: ")
    assert lines(arguments, capsys)[-1] == f"({other['skipped']})"


def test_an_error_within_a_list(
    host: SyntheticDump, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list ends early, and the next domain follows."""
    from xenkdump_fast.commands import log

    made = log._line_json

    def failing(line: Any) -> Any:
        if line.sequence == 3:
            raise xk.DumpError("it was cut off")
        return made(line)

    monkeypatch.setattr(log, "_line_json", failing)
    found = document(["log", str(host.vmcore), "--domain", "all"], capsys, 3)["domains"]
    assert [(domain["error"], domain["status"]) for domain in found] == [("it was cut off", 3)] * 2
    assert [len(domain["lines"]) for domain in found] == [3, 3]


def test_operands_and_failures(host: SyntheticDump, capsys: Capture) -> None:
    arguments = ["ps", str(host.vmcore), "1", "99999", "--domain", "all"]
    found = document(arguments, capsys, 1)["domains"]
    assert [len(domain["tasks"]) for domain in found] == [1, 1]
    assert [domain["failure"].endswith("has no task 99999") for domain in found] == [True, True]
    assert len(lines(arguments, capsys, 1)) == 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vtop", "0"], "argument --domain: all is only available for bt, sys, ps, log, "),
        (["check"], "argument --domain: all is only available for bt, sys, ps, log, "),
        (["ps", "--force"], "argument --force: not allowed with argument --domain all"),
        (
            ["ps", "--phys-base", "0"],
            "argument --phys-base: not allowed with argument --domain all",
        ),
    ],
)
def test_usage(
    host: SyntheticDump, capsys: Capture, arguments: Sequence[str], message: str
) -> None:
    command, *options = arguments
    with pytest.raises(SystemExit, match="2"):
        main([command, str(host.vmlinux), str(host.vmcore), *options, "--domain", "all"])
    assert message in capsys.readouterr().err


def test_a_usage_error_of_the_command(host: SyntheticDump, capsys: Capture) -> None:
    assert main(["bt", "-a", str(host.vmcore), "1", "--domain", "all"]) == 2
    assert "not allowed with a pid or a task" in capsys.readouterr().err


def test_no_domain_has_it(host: SyntheticDump, capsys: Capture) -> None:
    """This dump has no saved_command_line."""
    found = document(["cmdline", str(host.vmcore), "--domain", "all"], capsys, 1)["domains"]
    assert [domain["status"] for domain in found] == [1, 1]
    assert all("saved_command_line" in domain["error"] for domain in found)
