"""``notes``: every ELF note of a dump, decoded."""

import argparse
import re
from collections.abc import Iterator, Sequence
from functools import partial

from .._native import Note
from .._typing import Any, NamedTuple, NotRequired, TypedDict
from ..output.escape import visible
from ..output.frames import registers_json
from ..output.json_types import Count, Hex, HexBytes, Registers, Stream
from ..output.lazy import Lazy
from ..session.dump_file import DumpFile
from . import extraction

_INDENT = " " * 25
#: 32-bit notes show four words a line, 64-bit ones two.
_PER_LINE = {4: 4, 8: 2}
#: A note with many MiB of data, which are not shown.
_DEVICE_DUMP = "device_dump"
#: Records of a saved domain, which are no ELF notes.
_RECORD_KINDS, _RECORD_NAMES = ("save_header", "save_config"), ("libxc", "libxl")
_LINE = re.compile("^.*$", re.MULTILINE)


class Options(NamedTuple):
    """What to do with the notes."""

    #: The number of a note, from 0 up, and the file to write its descriptor to.
    extract: Sequence[str] | None = None
    #: Replaces that file.
    overwrite: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``notes``."""
    parser.add_argument(
        "--extract",
        nargs=2,
        metavar=("N", "FILE"),
        help="write the descriptor of note N, counted from 0, to a file; - is stdout",
    )
    parser.add_argument(
        "--overwrite", "--force", action="store_true", help="replace the file of --extract"
    )


class DecodedNote(NamedTuple):
    """One note, with the strings at its addresses."""

    note: Note
    fields: dict[str, Any]
    strings: dict[str, str]


def run(target: DumpFile, options: Options = Options()) -> "Notes | extraction.Extracted":
    """Decodes every note, and reads the strings of CRASH_INFO; or extracts one of the notes."""
    if options.extract is not None:
        number, file = options.extract
        note, data = extraction.descriptor(target, number)
        if file != "-":
            extraction.write(target, data, file, force=options.overwrite)
        shown = Notes(target.native.word, [_decoded(target, note)])
        return extraction.Extracted(shown.json()["notes"], data, file)
    notes = Lazy(
        target.notes,
        partial(_decoded, target),
        "note",
        problem=lambda note: f"the note at offset {note.offset:#x} cannot be decoded",
        warn=target.warn,
    )
    return Notes(target.native.word, notes)


def _decoded(dump: DumpFile, note: Note) -> DecodedNote:
    fields = note.fields
    strings: dict[str, str] = {}
    if note.kind == "crash_info":
        from ..xen import crash_info

        strings = crash_info.strings(dump.native, fields)
    return DecodedNote(note, fields, strings)


class NoteJson(TypedDict):
    """A note."""

    name: str
    type: Hex
    type_name: str | None
    kind: str
    size: Count
    offset: Count
    fields: dict[str, str | Registers]
    strings: dict[str, str]
    data: HexBytes


class JSON(TypedDict):
    """What ``notes --json`` prints."""

    notes: Stream[NoteJson]
    extracted_to: NotRequired[str]


class Notes(NamedTuple):
    """The notes of a dump."""

    word: int
    #: Decoded on demand.
    notes: Sequence[DecodedNote]

    def text(self) -> Iterator[str]:
        """Note by note in the manner of crash's ``help -n``, in the order of the file."""
        return (line for note in self.notes for line in _note(note, self.word))

    def json(self) -> JSON:
        """Every note."""
        return {"notes": map(_note_json, self.notes)}


def _note(decoded: DecodedNote, word: int) -> Iterator[str]:
    note = decoded.note
    name = note.type_name or "?"
    if note.kind in _RECORD_KINDS or note.name in _RECORD_NAMES:
        yield "Record:"
        yield f'                   name: "{visible(note.name)}"'
        yield f"                   size: {note.size}"
        yield f"                   type: {note.type:x} ({name})"
    else:
        yield from _header(note, word, name)
    if "text" in decoded.fields:
        for line in _LINE.finditer(decoded.fields["text"].rstrip("\n\0")):
            yield _INDENT + visible(line[0])
        return
    if note.kind != _DEVICE_DUMP:
        yield from _hex(note.data, _word_of(decoded, word))
    yield from _fields(decoded)


def _header(note: Note, word: int, name: str) -> Iterator[str]:
    # In hex as in 2006: constants are recognised more easily.
    yield f"Elf{word * 8}_Nhdr:"
    yield f'               n_namesz: {note.name_size} ("{visible(note.name)}")'
    yield f"               n_descsz: {note.size}"
    yield f"                 n_type: {note.type:x} ({name})"


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


def _note_json(decoded: DecodedNote) -> NoteJson:
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
