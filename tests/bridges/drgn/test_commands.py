"""``xkdump drgn`` and ``xkdump crash``."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from xenkdump_fast import cli
from xenkdump_fast.bridges.drgn.crash import command_line
from xenkdump_forge import SyntheticDump


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What drgn's prompt changes."""
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("XKDUMP_VMCORE", raising=False)


def run(argv: Sequence[object]) -> int:
    try:
        return cli.main([str(word) for word in argv])
    except SystemExit as end:
        return int(end.code or 0)


def test_code(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    files = synthetic.vmlinux, synthetic.vmcore
    code = "import sys; print(prog['init_task'].comm.string_(), sys.argv)"
    assert run(["drgn", *files, "-e", code, "a", "-b"]) == 0
    assert capsys.readouterr().out == "b'swapper/0' ['-e', 'a', '-b']\n"


def test_an_exception_of_code_is_printed(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["drgn", "-e", "prog['no_such']", synthetic.vmcore]) == 1
    text = capsys.readouterr().err
    assert "Traceback (most recent call last):" in text.splitlines()
    assert "prompt.py" not in text
    assert "no_such" in text.splitlines()[-1]


def test_a_script(
    synthetic: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(prog['modules'].type_.type_name(), sys.argv[1:])\n")
    command = ["drgn", synthetic.vmcore, "--domain", "0", script, "--force", "x"]
    assert run(command) == 0
    assert capsys.readouterr().out == "struct list_head ['--force', 'x']\n"
    script.write_text("raise SystemExit(5)\n")
    assert run(["drgn", synthetic.vmcore, script]) == 5
    assert run(["drgn", synthetic.vmcore, tmp_path / "absent.py"]) == 3
    assert "absent.py: No such file" in capsys.readouterr().err


def test_code_on_stdin(
    synthetic: SyntheticDump,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "stdin"
    source.write_text("print(prog['init_task'].pid.value_())\n")
    with source.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(["drgn", synthetic.vmcore]) == 0
    assert capsys.readouterr().out == "0\n"


def test_a_command_of_crash(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", synthetic.vmcore, "struct", "-x", "list_head"]) == 0
    assert capsys.readouterr().out.startswith("struct list_head {")


def test_a_command_with_a_pipe(synthetic: SyntheticDump, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", synthetic.vmcore, "struct list_head | grep next"]) == 0
    assert capfd.readouterr().out == "\tstruct list_head *next;\n"


def test_commands_are_listed(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crash", synthetic.vmcore]) == 0
    text = capsys.readouterr().out
    for name in ("files", "kmem", "mount", "runq", "timer", "vm"):
        assert name in text.split()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["no_such"], 2, "no_such: command not found"),
        (["ps", "--no-such"], 2, "ps: error: unrecognized arguments: --no-such"),
        (["rd", "no_such"], 1, "crash rd no_such: "),
        (["whatis", "no_such"], 1, "no_such"),
        (["sys", "config"], 1, "kernel configuration data not found"),
    ],
)
def test_errors(
    synthetic: SyntheticDump,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    message: str,
) -> None:
    assert run(["crash", synthetic.vmcore, *words]) == status
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_files_and_operands(
    synthetic: SyntheticDump, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["crash"]) == 2
    assert "required: VMCORE" in capsys.readouterr().err
    assert run(["crash", "/no/such/file", "ps"]) == 3
    assert "/no/such/file: No such file" in capsys.readouterr().err
    assert run(["crash", synthetic.vmlinux, "--", "ps"]) == 2
    capsys.readouterr()
    monkeypatch.setenv("XKDUMP_VMCORE", str(synthetic.vmcore))
    assert run(["crash", "struct", "list_head"]) == 0
    assert capsys.readouterr().out.startswith("struct list_head {")
    assert run(["crash", "--json", "ps"]) == 2  # not an option of these commands


def test_xen_needs_its_symbols(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["drgn", "--hypervisor", synthetic.vmcore, "-e", "1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("xkdump: drgn needs xen-syms")


def test_command_lines() -> None:
    assert command_line(["ps | head"]) == "ps | head"
    assert command_line(["p", "a b", "x;y", "init_task.comm"]) == "p 'a b' 'x;y' init_task.comm"


def test_without_drgn(
    synthetic: SyntheticDump, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("xenkdump_fast.bridges.drgn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "drgn", None)
    assert run(["crash", synthetic.vmcore, "ps"]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == (
        "xkdump: a module cannot be imported: drgn is not installed: "
        "pip install 'xenkdump_fast[drgn]'"
    )
