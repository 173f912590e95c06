"""What is printed piece by piece."""

import argparse
import importlib
import json
import pkgutil
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast import cli, isolation
from xenkdump_fast import render as rendering
from xenkdump_fast.cli import host, output
from xenkdump_fast.render.json import document

JSON = f"{rendering.__name__}.json"
BODY: dict[str, Any] = {
    "none": [],
    "objects": [{"a": 1, "b": [1, [2.5], {}]}, {"text": "two\nlines \x1b"}, []],
    "many": list(range(1000)),
    "last": {"x": None},
}


@pytest.mark.parametrize("said", [[], ["one", "two\nlines"]])
def test_pieces_are_as_the_whole(said: list[str]) -> None:
    whole = {"schema": 1, "command": "log", "dump": None, **BODY}
    if said:
        whole["warnings"] = said
    plain = json.dumps(whole, indent=1) + "\n"
    lazy = {key: iter(value) if isinstance(value, list) else value for key, value in BODY.items()}
    assert "".join(document("log", None, BODY, lambda: said)) == plain
    assert "".join(document("log", None, lazy, lambda: said)) == plain


@pytest.mark.parametrize("form", ["text", "json"])
def test_warnings_that_come_while_it_is_printed(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    warnings: list[str] = []

    def made(_: object) -> Iterator[str]:
        yield "line"
        warnings.append("damaged")

    render = ModuleType("render")
    render.__dict__["lines"] = made
    render.__dict__["lazy_json"] = lambda _: {"lines": made(None)}
    render.__dict__["json"] = None
    args = argparse.Namespace(command="log", json=form == "json")
    output.show(args, render, None, SimpleNamespace(warnings=warnings))
    told = capsys.readouterr()
    assert told.err == "xkdump: warning: damaged\n"
    if form == "json":
        assert json.loads(told.out)["warnings"] == ["damaged"]
        assert json.loads(told.out)["lines"] == ["line"]
    else:
        assert told.out == "line\n"


#: ESC and what a terminal does with it, C1, bidirectional overrides, line and paragraph separators,
#: a lone surrogate, line feed and carriage return.
HOSTILE = "a\x1b]0;title\x07\x9b2J\u202e\u2066\u2028\u2029\u200b\ud800\n\rb\x7f"


def test_no_line_has_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """A renderer that forgets to escape a field; warnings and errors quote the dump as well."""
    render = ModuleType("render")
    render.__dict__["lines"] = lambda result: iter([f"one {result}", "two\ttabs"])
    render.__dict__["json"] = lambda result: {"name": result, result: 1}
    for form in ("text", "json"):
        args = argparse.Namespace(command="mod", json=form == "json")
        output.show(args, render, HOSTILE, SimpleNamespace(warnings=[HOSTILE]))
        assert output.fail(HOSTILE, 3) == 3
        shown = capsys.readouterr()
        assert all(c.isprintable() or c in "\n\t" for c in shown.out + shown.err)
        assert len(shown.err.splitlines()) == 2
        if form == "text":
            assert shown.out.splitlines() == [
                r"one a\x1b]0;title\x07\x9b2J\u202e\u2066\u2028\u2029\u200b\ud800\n\rb\x7f",
                "two\ttabs",
            ]
        else:
            assert shown.out.isascii()
            assert json.loads(shown.out)["name"] == HOSTILE


def test_a_bug_is_shown_without_what_a_terminal_obeys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: argparse.Namespace) -> None:
        raise ValueError(HOSTILE)

    monkeypatch.setattr(host, "run", run)
    with pytest.raises(ValueError, match="title"):
        cli.main(["notes", "vmcore"])
    monkeypatch.setattr(isolation, "strict", False)
    assert cli.main(["notes", "vmcore"]) == cli.BUG
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(c.isprintable() or c == "\n" for c in shown.err)
    assert shown.err.endswith("xkdump: this is a bug in xkdump\n")
    assert "Traceback" in shown.err
    assert "\\x1b]0;title" in shown.err


def test_arguments_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["notes", "vmcore", HOSTILE])
    assert all(c.isprintable() or c == "\n" for c in capsys.readouterr().err)


def test_every_command_renders_lines() -> None:
    """``show`` knows no other way to text."""
    names = [module.name for module in pkgutil.iter_modules(rendering.__path__)]
    modules = [importlib.import_module(f"{rendering.__name__}.{name}") for name in names]
    commands = [module for module in modules if hasattr(module, "json") and module.__name__ != JSON]
    assert len(commands) >= len(cli.COMMANDS)
    for module in commands:
        assert hasattr(module, "lines")
        assert not hasattr(module, "text")
