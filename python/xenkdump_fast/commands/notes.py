"""Every ELF note of a dump, decoded."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from .._native import MemoryFault, Note
from ..dumpfile import DumpFile
from ..lazy import Lazy

#: Fields of CRASH_INFO that are machine addresses of C strings in Xen's image.
_STRINGS = (
    "xen_extra_version",
    "xen_changeset",
    "xen_compiler",
    "xen_compile_date",
    "xen_compile_time",
)


class DecodedNote(NamedTuple):
    """One note, with the strings that its addresses lead to."""

    note: Note
    fields: dict[str, Any]
    strings: dict[str, str]


class Notes(NamedTuple):
    """What ``xkdump notes`` found."""

    dump: str
    word: int
    notes: Sequence[DecodedNote]


def run(dump: DumpFile) -> Notes:
    """Decodes every note; follows the addresses that CRASH_INFO holds."""
    notes = Lazy(
        dump.notes,
        partial(_decoded, dump),
        "note",
        name=lambda note: f"the note at offset {note.offset:#x} cannot be decoded",
        warn=dump.warn,
    )
    return Notes(dump.path, dump.native.word, notes)


def _decoded(dump: DumpFile, note: Note) -> DecodedNote:
    fields = note.fields
    strings = {}
    if note.kind == "crash_info":
        for name in _STRINGS:
            try:
                text = dump.machine.cstring(fields[name], 256)
            except MemoryFault:
                continue
            strings[name] = text.decode("utf-8", "backslashreplace")
    return DecodedNote(note, fields, strings)
