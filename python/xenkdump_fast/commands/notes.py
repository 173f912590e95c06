"""Every ELF note of a dump, decoded."""

from dataclasses import dataclass, field
from typing import Any

from .._native import MemoryFault, Note
from ..session import Dump

#: Fields of CRASH_INFO that are machine addresses of C strings in Xen's image.
_STRINGS = (
    "xen_extra_version",
    "xen_changeset",
    "xen_compiler",
    "xen_compile_date",
    "xen_compile_time",
)


@dataclass(frozen=True, slots=True)
class DecodedNote:
    """One note, with the strings that its addresses lead to."""

    note: Note
    fields: dict[str, Any]
    strings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notes:
    """What ``xkdump notes`` found."""

    dump: str
    word: int
    notes: list[DecodedNote]


def run(dump: Dump) -> Notes:
    """Decodes every note; follows the addresses that CRASH_INFO holds."""
    found = []
    for note in dump.notes:
        fields = note.fields
        strings = {}
        if note.kind == "crash_info":
            for name in _STRINGS:
                try:
                    text = dump.machine.cstring(fields[name], 256)
                except MemoryFault:
                    continue
                strings[name] = text.decode("utf-8", "backslashreplace")
        found.append(DecodedNote(note, fields, strings))
    return Notes(dump.path, dump.native.word, found)
