"""What is printed piece by piece."""

import json
from collections.abc import Iterator
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

    def made() -> Iterator[str]:
        yield "line"
        warnings.append("damaged")

    if form == "json":
        writer.write_json("log", None, {"lines": made()}, lambda: warnings)
    else:
        writer.write_text(made(), lambda: warnings)
    found = capsys.readouterr()
    assert found.err == "xkdump: warning: damaged\n"
    if form == "json":
        assert json.loads(found.out)["warnings"] == ["damaged"]
        assert json.loads(found.out)["lines"] == ["line"]
    else:
        assert found.out == "line\n"
