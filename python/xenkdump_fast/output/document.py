"""The JSON object that every command's ``--json`` prints."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

#: The version of the schema (docs/json.md): goes up when a field changes its meaning or goes away.
SCHEMA = 1
#: So many values of a long list are written together.
_AT_ONCE = 256
#: As ``json.dumps`` writes with that indent.
_encode = json.JSONEncoder(indent=1).encode


def document(
    command: str, dump: str | None, body: Mapping[str, object], warnings: Callable[[], list[str]]
) -> Iterator[str]:
    """One object, piece by piece: what it is, the command's own part, and what is missing or odd.

    The warnings are asked for last. Iterators in ``body`` become lists, which may be long.
    """
    whole = {"schema": SCHEMA, "command": command, "dump": dump, **body}
    separator = "{"
    for key, value in chain(whole.items(), _late(warnings)):
        yield f"{separator}\n {_encode(key)}: "
        if isinstance(value, Iterator):
            yield from _list(value)
        else:
            yield _encode(value).replace("\n", "\n ")
        separator = ","
    yield "\n}\n"


def _late(warnings: Callable[[], list[str]]) -> Iterator[tuple[str, list[str]]]:
    said = warnings()
    if said:
        yield "warnings", said


def _list(values: Iterator[Any]) -> Iterator[str]:
    separator = "["
    while some := list(islice(values, _AT_ONCE)):
        # Without its brackets; and within a string a line feed is written as an escape.
        yield separator + _encode(some)[1:-2].replace("\n", "\n ")
        separator = ","
    yield "[]" if separator == "[" else "\n ]"
