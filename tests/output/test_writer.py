"""Incremental output."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from xenkdump_fast import cli, isolation, session
from xenkdump_fast.output import writer
from xenkdump_fast.output.document import document

BODY: dict[str, Any] = {
    "none": [],
    "objects": [{"a": 1, "b": [1, [2.5], {}]}, {"text": "two\nlines \x1b"}, []],
    "many": list(range(1000)),
    "last": {"x": None},
}


@pytest.mark.parametrize("warnings", [[], ["one", "two\nlines"]])
def test_incremental_output_matches_the_whole(warnings: list[str]) -> None:
    whole = {"schema": 1, "command": "log", "dump": None, **BODY}
    if warnings:
        whole["warnings"] = warnings
    plain = json.dumps(whole, indent=1) + "\n"
    lazy = {key: iter(value) if isinstance(value, list) else value for key, value in BODY.items()}
    assert "".join(document("log", None, BODY, lambda: warnings)) == plain
    assert "".join(document("log", None, lazy, lambda: warnings)) == plain


def test_members_of_incremental_objects_are_incremental_too() -> None:
    groups: list[dict[str, Any]] = [
        {"count": 2, "tasks": [{"pid": 1}, {"pid": 2}], "why": "two\nlines"},
        {"count": 0, "tasks": []},
    ]
    alive, most = 0, 0

    def tasks(group: dict[str, Any]) -> Iterator[Any]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        yield from group["tasks"]
        alive -= 1

    lazy = ({**group, "tasks": tasks(group)} for group in groups)
    whole = {"schema": 1, "command": "bt", "dump": None, "groups": groups}
    found = "".join(document("bt", None, {"groups": lazy}, list))
    assert found == json.dumps(whole, indent=1) + "\n"
    assert most == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_warnings_during_output(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    warnings: list[str] = []

    def made() -> Iterator[str]:
        yield "line"
        warnings.append("damaged")

    if form == "json":
        writer.Writer().json("log", None, {"lines": made()}, lambda: warnings)
    else:
        writer.Writer().text(made(), lambda: warnings)
    found = capsys.readouterr()
    assert found.err == "xkdump: warning: damaged\n"
    if form == "json":
        assert json.loads(found.out)["warnings"] == ["damaged"]
        assert json.loads(found.out)["lines"] == ["line"]
    else:
        assert found.out == "line\n"


#: ESC sequences, C1, bidirectional overrides, line and paragraph separators, a lone surrogate,
#: line feed and carriage return.
HOSTILE = "a\x1b]0;title\x07\x9b2J\u202e\u2066\u2028\u2029\u200b\ud800\n\rb\x7f"


@pytest.mark.parametrize("form", ["text", "json"])
def test_output_has_no_control_sequences(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that forgets to escape a field; warnings and errors quote the dump as well."""
    if form == "text":
        writer.Writer().text([f"one {HOSTILE}", "two\ttabs"], lambda: [HOSTILE])
    else:
        writer.Writer().json("mod", None, {"name": HOSTILE, HOSTILE: 1}, lambda: [HOSTILE])
    writer.error(HOSTILE)
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


def test_bug_reports_have_no_control_sequences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_(*_: object, **__: object) -> None:
        raise ValueError(HOSTILE)

    monkeypatch.setattr(session, "open", open_)
    with pytest.raises(ValueError, match="title"):
        cli.main(["notes", "vmcore"])
    monkeypatch.setattr(isolation, "strict", False)
    assert cli.main(["notes", "vmcore"]) == cli.ExitStatus.BUG
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
