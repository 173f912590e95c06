"""The completion scripts and the manual page."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xenkdump_fast import arguments
from xenkdump_fast.cli import main
from xenkdump_fast.commands import COMMANDS
from xenkdump_fast.commands.completion import SHELLS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "packaging" / "data" / "share" / "man" / "man1" / "xkdump.1"


def options() -> Iterator[tuple[str, str]]:
    """Every command and each of its long options."""
    parser = arguments.overview(complete=True)
    (subparsers,) = (action.choices for action in parser._actions if action.dest == "==SUPPRESS==")
    assert isinstance(subparsers, dict)
    for name in COMMANDS:
        for action in subparsers[name]._actions:
            for option in action.option_strings:
                if option.startswith("--"):
                    yield name, option


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_every_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name, option in options():
        (start,) = (
            f"_shtab_xkdump_{function}_option_strings=(" if shell == "bash" else text
            for function in [name.replace("-", "_")]
            for text in [f"_shtab_xkdump_{function}_options=("]
        )
        part = script[script.index(start) :]
        part = part[: part.index("\n" if shell == "bash" else "\n)")]
        assert option in part, f"{name} {option}"


def test_the_page_has_every_option() -> None:
    page = PAGE.read_text().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    for name, option in options():
        part = page.partition(f".SH COMMAND \\fI\\,'xkdump {name}'")[2]
        part = part.partition("\n.SH COMMAND")[0]
        assert option == "--help" or option in part, f"{name} {option}"


def test_the_files_are_current() -> None:
    """As ``make lint`` checks; argparse words some texts differently in other versions."""
    pytest.importorskip("shtab")
    pytest.importorskip("argparse_manpage")
    from tools.command_line import files

    found = files()
    assert len(found) == len(SHELLS) + 1
    for path, text in found.items():
        assert path.read_text() == text, "run python -m tools.command_line"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["s"], [name for name in COMMANDS if name.startswith("s")]),
        (["bt", "--hyp"], ["--hypervisor"]),
        (["vtop", "--p"], ["--p2m-source", "--phys-base", "--pid"]),
        (["ps", "--state", "U"], ["UN"]),
        (["bt", "vmco"], ["vmcore"]),
        (["bt", "vmlinux", "vmco"], ["vmcore"]),
        (["sample", "fol"], ["folder"]),
        (["sample", "vmco"], []),
        (["completion", ""], list(SHELLS)),
        (["help", "dom"], ["domains"]),
    ],
)
def test_bash_completes(
    words: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("vmlinux", "vmcore"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    code = (
        'source ./script; COMP_WORDS=(xkdump "$@"); COMP_CWORD=$#; _shtab_xkdump; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code, "bash", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_accepts_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    script = tmp_path / "_xkdump"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_groff_accepts_the_page() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", str(PAGE)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "EXIT STATUS" in done.stdout
    assert "ENVIRONMENT" in done.stdout


@pytest.mark.parametrize(
    ("words", "problem"), [([], "required: SHELL"), (["fish"], "available: bash, zsh")]
)
def test_other_shells(words: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["completion", *words])
    assert stopped.value.code == 2
    assert problem in capsys.readouterr().err
