"""What is printed piece by piece."""

import argparse
import json
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast.output import writer
from xenkdump_fast.output.document import document

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
        yield "line\n"
        warnings.append("damaged")

    render = ModuleType("render")
    render.__dict__["lines"] = made
    render.__dict__["lazy_json"] = lambda _: {"lines": made(None)}
    render.__dict__["json"] = None
    args = argparse.Namespace(command="log", json=form == "json")
    writer.show(args, render, None, SimpleNamespace(warnings=warnings))
    told = capsys.readouterr()
    assert told.err == "xkdump: warning: damaged\n"
    if form == "json":
        assert json.loads(told.out)["warnings"] == ["damaged"]
        assert json.loads(told.out)["lines"] == ["line\n"]
    else:
        assert told.out == "line\n"
