"""The JSON object that every command's ``--json`` prints."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from ..limits import MAX_JSON_BATCH

#: The version of the schema (docs/json.md): incremented if a field is removed or changes meaning.
SCHEMA = 1
#: Encodes like ``json.dumps`` with that indent.
_encode = json.JSONEncoder(indent=1).encode


class Nested(NamedTuple):
    """A list of objects that are written while they are produced."""

    #: The members of each object, which may have iterators as values.
    objects: Iterator[Iterable[tuple[str, object]]]


def document(
    command: str, dump: str | None, body: Mapping[str, object], warnings: Callable[[], list[str]]
) -> Iterator[str]:
    """One object, piece by piece: the command, its own members, the warnings.

    ``warnings`` is called last. Iterators in ``body`` become lists, which may be long; a ``Nested``
    becomes a list of objects.
    """
    whole = {"schema": SCHEMA, "command": command, "dump": dump, **body}
    yield from _object(chain(whole.items(), _late(warnings)), "")
    yield "\n"


def _late(warnings: Callable[[], list[str]]) -> Iterator[tuple[str, list[str]]]:
    found = warnings()
    if found:
        yield "warnings", found


def _object(members: Iterable[tuple[str, object]], indent: str) -> Iterator[str]:
    separator = "{"
    for key, value in members:
        yield f"{separator}\n{indent} {_encode(key)}: "
        yield from _value(value, f"{indent} ")
        separator = ","
    yield f"\n{indent}}}"


def _value(value: object, indent: str) -> Iterator[str]:
    if isinstance(value, Nested):
        separator = "["
        for members in value.objects:
            yield f"{separator}\n{indent} "
            yield from _object(members, f"{indent} ")
            separator = ","
        yield "[]" if separator == "[" else f"\n{indent}]"
    elif isinstance(value, Iterator):
        first = list(islice(value, 1))
        values = chain(first, value)
        if first and _has_iterators(first[0]):
            value = Nested(one.items() for one in values)
            yield from _value(value, indent)
        else:
            yield from _list(values, indent)
    else:
        yield _encode(value).replace("\n", f"\n{indent}")


def _has_iterators(value: object) -> bool:
    """Whether an object has members that are iterators; all objects of a list have the same."""
    return isinstance(value, Mapping) and any(isinstance(one, Iterator) for one in value.values())


def _list(values: Iterator[Any], indent: str) -> Iterator[str]:
    separator = "["
    while some := list(islice(values, MAX_JSON_BATCH)):
        # Without the brackets. Line feeds within strings are escaped.
        yield separator + _encode(some)[1:-2].replace("\n", f"\n{indent}")
        separator = ","
    yield "[]" if separator == "[" else f"\n{indent}]"
