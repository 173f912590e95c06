"""The complete text and JSON of a command's result."""

from collections.abc import Iterator
from typing import Any

from xenkdump_fast.commands.contract import Result
from xenkdump_fast.output.escape import printable


def text(result: Result) -> str:
    """As the command prints it."""
    return "".join(f"{printable(line)}\n" for line in result.text())


def json(result: Result) -> dict[str, Any]:
    """The command's own members, with lists in place of iterators."""
    return {
        name: list(value) if isinstance(value, Iterator) else value
        for name, value in result.json().items()
    }
