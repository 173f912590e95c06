"""The note XENKDUMP that ``xkdump export`` writes, as far as a reader needs it."""

from collections.abc import Iterable, Mapping

from ._native import Note
from ._typing import Any, NamedTuple
from .limits import MAX_CPUS, MAX_EXPORT_NOTE

#: The last value of a register.
_LAST = (1 << 64) - 1


class ExportedCpu(NamedTuple):
    """The registers of a CPU that are known."""

    number: int
    registers: Mapping[str, int]


class ExportNote(NamedTuple):
    """What an exported file was written from."""

    #: The domain in the source; None for Xen itself.
    domain: int | None
    #: Empty if the notes of the source were copied.
    cpus: list[ExportedCpu]


def read(notes: Iterable[Note]) -> ExportNote | None:
    """The first such note; None if there is none, or if it is not valid."""
    for note in notes:
        if note.kind == "export" and note.size <= MAX_EXPORT_NOTE:
            try:
                return _parsed(note.data)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                return None
    return None


def _parsed(data: bytes) -> ExportNote:
    import json

    facts: Any = json.loads(data)
    domain = facts["source"]["domain"]
    if domain is not None and not isinstance(domain, int):
        raise ValueError("domain")
    found = []
    for cpu in facts.get("cpus", ()):
        registers = {str(name): int(value, 16) for name, value in cpu.get("registers", {}).items()}
        number = cpu["number"]
        if not isinstance(number, int) or not 0 <= number < MAX_CPUS:
            raise ValueError("number")
        if not all(0 <= value <= _LAST for value in registers.values()):
            raise ValueError("registers")
        if registers:
            found.append(ExportedCpu(number, registers))
    return ExportNote(domain, found)
