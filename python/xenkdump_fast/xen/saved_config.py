"""The configuration of a saved domain, which xl writes before the stream as JSON (Xen 4.5 on)."""

from .._native import Dump
from .._typing import TYPE_CHECKING, Any, NamedTuple
from ..limits import MAX_SAVED_CONFIG

if TYPE_CHECKING:
    from uuid import UUID


class SavedConfig(NamedTuple):
    """What the toolstack knew about the domain; None for what is not recorded."""

    name: str | None = None
    uuid: "UUID | None" = None
    #: "pv", "hvm" or "pvh".
    kind: str | None = None


def read(dump: Dump) -> SavedConfig:
    """The configuration in a save file; empty if there is none, or if it is not JSON."""
    for note in dump.notes:
        if note.kind == "save_config" and note.size <= MAX_SAVED_CONFIG:
            return _parse(note.data)
    return SavedConfig()


def _parse(text: bytes) -> SavedConfig:
    import json
    from uuid import UUID

    try:
        config = json.loads(text.rstrip(b"\0"))
    except (ValueError, RecursionError):
        # Older versions of xl write the file that the domain was created from.
        return SavedConfig()
    created: Any = config.get("c_info") if isinstance(config, dict) else None
    if not isinstance(created, dict):
        return SavedConfig()
    text_of = {key: value for key, value in created.items() if isinstance(value, str)}
    try:
        uuid = UUID(text_of["uuid"])
    except (KeyError, ValueError):
        uuid = None
    return SavedConfig(text_of.get("name"), uuid, text_of.get("type"))
