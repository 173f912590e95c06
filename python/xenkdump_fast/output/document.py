"""The JSON object that every command's ``--json`` prints."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from ..limits import MAX_JSON_BATCH

#: The version of the schema (docs/json.md): incremented if a field is removed or changes meaning.
SCHEMA = 1
#: Encodes like ``json.dumps`` with that indent.
_encode = json.JSONEncoder(indent=1).encode


def document(
    command: str, dump: str | None, body: Mapping[str, object], warnings: Callable[[], list[str]]
) -> Iterator[str]:
    """One object, piece by piece: the command, its own members, the warnings.

    ``warnings`` is called last. Iterators in ``body`` become lists, which may be long.
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
    found = warnings()
    if found:
        yield "warnings", found


def _list(values: Iterator[Any]) -> Iterator[str]:
    separator = "["
    while some := list(islice(values, MAX_JSON_BATCH)):
        # Without the brackets. Line feeds within strings are escaped.
        yield separator + _encode(some)[1:-2].replace("\n", "\n ")
        separator = ","
    yield "[]" if separator == "[" else "\n ]"
