"""The examples in the README and the documentation: run, compared and type-checked.

The ``python`` blocks of a page are one program, which is run and type-checked. The commands in
``console`` blocks are run, and their output is compared with the documented output. A line ``...``
matches any lines. ``sh`` blocks are not run: their ``xkdump`` commands must parse, and their
``make`` targets must exist. All examples use the ``vmlinux`` and ``vmcore`` of a synthetic dump, of
kind ``modern`` unless a comment ``<!-- sample: KIND -->`` names another.
"""

import ast
import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xenkdump_fast import arguments, cli
from xenkdump_fast.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        *sorted(ROOT.glob("*.md")),
        *sorted(ROOT.glob("docs/**/*.md")),
        ROOT / "python/xenkdump_fast/__init__.py",
    )
}
#: Words that end a shell command.
END = re.compile(r"\s(?:#|&&|\||>).*")


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.M | re.S)


def pages_with(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


def kind(page: str) -> str:
    """The kind of synthetic dump that a page shows."""
    found = re.search(r"<!-- sample: (\S+) -->", PAGES[page])
    return found[1] if found else "modern"


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the directory of a synthetic dump."""
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("docs") / name
            with contextlib.redirect_stdout(io.StringIO()):
                assert cli.main(["sample", str(made[name]), "--like", name]) == 0
        return made[name]

    return directory


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs(
    page: str,
    dump: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "example.py"
    program.write_text("\n".join(blocks(page, "python")))
    if "drgn_program" in program.read_text():
        pytest.importorskip("drgn", reason="drgn is not installed")
    monkeypatch.chdir(dump(kind(page)))
    runpy.run_path(str(program))
    assert capsys.readouterr().out, "an example must print something"


def test_python_has_types(tmp_path: Path) -> None:
    programs = []
    for page in pages_with("python"):
        program = tmp_path / f"{re.sub(r'[^A-Za-z]', '_', page)}.py"
        program.write_text("\n".join(blocks(page, "python")))
        programs.append(program)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    found = subprocess.run(
        [*mypy, "--cache-dir", str(ROOT / ".mypy_cache"), *map(str, programs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def commands(block: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with its documented output."""
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def normal(text: str) -> list[str]:
    """The lines of a text, without trailing white space."""
    return [line.rstrip() for line in text.strip("\n").split("\n")]


def is_shown(found: str, shown: str) -> bool:
    """Whether an output is the documented one, where ``...`` matches any lines."""
    pattern = "\n".join(".*" if line == "..." else re.escape(line) for line in normal(shown))
    return re.fullmatch(pattern, "\n".join(normal(found)), re.S) is not None


@pytest.mark.parametrize("page", pages_with("console"))
def test_console(
    page: str,
    dump: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(dump(kind(page)))
    for block in blocks(page, "console"):
        for command, shown in commands(block):
            name, *words = shlex.split(command)
            assert name == "xkdump", command
            assert cli.main(words) == 0, command
            found = capsys.readouterr().out
            assert is_shown(found, shown), f"{command}\n{found}"


@pytest.mark.parametrize("page", pages_with("sh"))
def test_shell_commands_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(END.sub("", line), comments=True)
            if words[:1] == ["make"]:
                targets = [word for word in words[1:] if "=" not in word]
                for target in targets:
                    assert re.search(rf"^{target}:", makefile, re.M), line
            elif words[:1] == ["xkdump"]:
                command = COMMANDS[words[1]]
                # Exits if it does not parse.
                arguments.parse(command, arguments.command_module(command), words[2:])


def test_every_command_is_documented() -> None:
    text = PAGES["docs/getting-started.md"]
    missing = [name for name in COMMANDS if not re.search(rf"(`|xkdump ){name}\b", text)]
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) < 100


def test_link_targets_exist() -> None:
    # mkdocs checks the links of the pages in docs/.
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)", PAGES[page]):
            assert "://" in target or (ROOT / target).exists(), f"{page}: {target}"


def headings(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs name them."""
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).lower()) for title in plain}


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".md")])
def test_link_anchors_exist(page: str) -> None:
    for path, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", PAGES[page]):
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        name = str(target.relative_to(ROOT))
        assert anchor in headings(name), f"{page}: {path}#{anchor}"


#: The first components of paths in the text.
BASES = ("", "python/xenkdump_fast", "rust/xenkdump", "rust/xenkdump/src")


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    for path in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|rs|md|json))`", PAGES[page]):
        if "NAME" not in path:
            assert any((ROOT / base / path).exists() for base in BASES), f"{page}: {path}"


def test_stubs_have_docstrings() -> None:
    stub = ast.parse((ROOT / "python/xenkdump_fast/_native.pyi").read_text())
    described: dict[str, bool] = {}
    for outer in stub.body:
        if isinstance(outer, ast.ClassDef):
            described[outer.name] = ast.get_docstring(outer) is not None
            for inner in outer.body:
                if isinstance(inner, ast.FunctionDef):
                    # Only the first overload has a docstring.
                    name = f"{outer.name}.{inner.name}"
                    described.setdefault(name, ast.get_docstring(inner) is not None)
    assert [name for name, is_described in described.items() if not is_described] == []


def test_the_demo(tmp_path: Path) -> None:
    """The files that it names exist, and its warnings are those of the documentation."""
    xkdump = tmp_path / "xkdump"
    xkdump.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m xenkdump_fast "$@"\n')
    xkdump.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "demo.sh"), str(xkdump), "target"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) not in done.stdout
    for name in re.findall(r"^2006/[\w.]+$", done.stdout, re.M):
        assert (tmp_path / "target" / name).is_file()
    assert done.stdout.endswith("\nThe files are in target/2006.\n")
    assert (tmp_path / "target" / "2006" / "vmcore").is_file()
    (documented,) = (text for text in blocks("docs/history.md", "text") if "warning" in text)
    assert set(done.stderr.splitlines()) == set(documented.splitlines())
