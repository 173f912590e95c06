"""``notes`` in the manner of crash's ``help -n``, and as JSON."""

import re
from collections.abc import Iterator
from typing import Any

from ..commands.notes import DecodedNote, Notes
from .escape import visible
from .frames import registers_json

_INDENT = " " * 25
#: 32-bit notes show four words a line, 64-bit ones two.
_PER_LINE = {4: 4, 8: 2}
#: Notes of any number of MiB, of which only the name is shown.
_DEVICE_DUMP = "device_dump"
_LINE = re.compile("^.*$", re.MULTILINE)


def lines(result: Notes) -> Iterator[str]:
    """Note by note, in the order of the file; a note may be as long as the file."""
    return (line for note in result.notes for line in _note(note, result.word))


def _note(decoded: DecodedNote, word: int) -> Iterator[str]:
    note = decoded.note
    name = note.type_name or "?"
    # As in 2006: small numbers in decimal would hide the constants' look.
    yield f"Elf{word * 8}_Nhdr:"
    yield f'               n_namesz: {note.name_size} ("{visible(note.name)}")'
    yield f"               n_descsz: {note.size}"
    yield f"                 n_type: {note.type:x} ({name})"
    if "text" in decoded.fields:
        for line in _LINE.finditer(decoded.fields["text"].rstrip("\n")):
            yield _INDENT + visible(line[0])
        return
    if note.kind != _DEVICE_DUMP:
        yield from _hex(note.data, _word_of(decoded, word))
    yield from _fields(decoded)


def _word_of(decoded: DecodedNote, word: int) -> int:
    """The word size of the note itself, which may differ from the file's."""
    if decoded.note.kind == "prstatus":
        return 4 if "eip" in decoded.fields["registers"] else 8
    if decoded.note.size < word:
        return 4
    return int(decoded.fields.get("word", word))


def _hex(data: bytes, word: int) -> Iterator[str]:
    step = word * _PER_LINE[word]
    for start in range(0, len(data), step):
        line = data[start : start + step]
        yield _INDENT + " ".join(line[i : i + word][::-1].hex() for i in range(0, len(line), word))


def _fields(decoded: DecodedNote) -> Iterator[str]:
    for name, value in decoded.fields.items():
        if name == "word":
            continue
        if isinstance(value, dict):
            for register, content in value.items():
                yield f"{_INDENT}{register:>16}: {content:x}"
        elif name in decoded.strings:
            yield f'{_INDENT}{name}: {value:x} "{visible(decoded.strings[name])}"'
        elif isinstance(value, str):
            yield f'{_INDENT}{name}: "{visible(value)}"'
        else:
            yield f"{_INDENT}{name}: {value:x}"


def json(result: Notes) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"notes": list(map(_note_json, result.notes))}


def lazy_json(result: Notes) -> dict[str, Any]:
    """The same, its list an iterator."""
    return {"notes": map(_note_json, result.notes)}


def _note_json(decoded: DecodedNote) -> dict[str, Any]:
    return {
        "name": decoded.note.name,
        "type": hex(decoded.note.type),
        "type_name": decoded.note.type_name,
        "kind": decoded.note.kind,
        "size": decoded.note.size,
        "offset": decoded.note.offset,
        "fields": {key: _value(value) for key, value in decoded.fields.items()},
        "strings": decoded.strings,
        "data": "" if decoded.note.kind == _DEVICE_DUMP else decoded.note.data.hex(),
    }


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return registers_json(value)
    return hex(value) if isinstance(value, int) else value
