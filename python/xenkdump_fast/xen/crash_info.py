"""The note CRASH_INFO of Xen (xen/include/xen/elfcore.h)."""

from collections.abc import Mapping

from .._native import Dump, MemoryFault
from .._typing import Any
from ..limits import MAX_CRASH_INFO_STRING

_STRINGS = (
    "xen_extra_version",
    "xen_changeset",
    "xen_compiler",
    "xen_compile_date",
    "xen_compile_time",
)


def strings(dump: Dump, fields: Mapping[str, Any]) -> dict[str, str]:
    """The strings at the machine addresses in the note's ``fields``; unreadable ones are absent."""
    found = {}
    for name in _STRINGS:
        try:
            text = dump.machine.cstring(fields[name], MAX_CRASH_INFO_STRING)
        except MemoryFault:
            continue
        found[name] = text.decode("utf-8", "backslashreplace")
    return found


def read(dump: Dump) -> dict[str, Any]:
    """The note's fields, with strings in place of their addresses; empty if there is no note."""
    for note in dump.notes:
        if note.kind == "crash_info":
            fields: dict[str, Any] = note.fields
            return fields | dict.fromkeys(_STRINGS) | strings(dump, fields)
    return {}


def version(fields: Mapping[str, Any]) -> str | None:
    """Xen's version by ``read``: major, minor and xen_extra_version; None if it is not known."""
    if not fields:
        return None
    number = f"{fields['xen_major_version']}.{fields['xen_minor_version']}"
    return number + (fields.get("xen_extra_version") or "")
