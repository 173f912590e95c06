"""What the notes say about whether a dump is a Xen host's."""

from collections.abc import Iterable

from .._native import Note

#: Kinds of note that only a Xen host's dump has.
_NOTES = {"crash_info", "crash_regs", "vmcoreinfo_xen", "xen_kdump_cr3"}


def are_xens(notes: Iterable[Note]) -> bool:
    """Whether one of the notes is Xen's."""
    return any(note.kind in _NOTES for note in notes)


def may_lead_to_xen(notes: Iterable[Note]) -> bool:
    """Whether there are notes by which ``detect`` searches for Xen: those of QEMU."""
    return any(note.kind == "qemu" for note in notes)
