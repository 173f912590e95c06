"""The note CRASH_INFO of Xen (xen/include/xen/elfcore.h)."""

from collections.abc import Mapping
from typing import Any

from .._native import Dump, MemoryFault
from ..limits import MAX_CRASH_INFO_STRING

_STRINGS = (
    "xen_extra_version",
    "xen_changeset",
    "xen_compiler",
    "xen_compile_date",
    "xen_compile_time",
)


def read(dump: Dump) -> dict[str, Any]:
    """Its fields with its strings, of which the note has machine addresses; empty without it."""
    for note in dump.notes:
        if note.kind != "crash_info":
            continue
        fields: dict[str, Any] = note.fields
        for name in _STRINGS:
            try:
                text = dump.machine.cstring(fields[name], MAX_CRASH_INFO_STRING)
                fields[name] = text.decode("utf-8", "backslashreplace")
            except MemoryFault:
                fields[name] = None
        return fields
    return {}


def version(fields: Mapping[str, Any]) -> str | None:
    """Xen's version by ``read``: major, minor and xen_extra_version; None if it is not known."""
    if not fields:
        return None
    number = f"{fields['xen_major_version']}.{fields['xen_minor_version']}"
    return number + (fields.get("xen_extra_version") or "")
