"""``notes --extract``: writes the descriptor of one note to a file or to stdout."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from .._native import AbsentError, Note
from .._typing import NamedTuple
from ..parsing import number
from ..session.dump_file import DumpFile
from .contract import OutputError, UsageError


def descriptor(dump: DumpFile, wanted: str) -> tuple[Note, bytes]:
    """A note by its number, and all of its descriptor.

    UsageError if ``wanted`` is not a number, AbsentError if there is no such note or if its
    descriptor cannot be read.
    """
    found = number(wanted)
    if found is None:
        raise UsageError(f"argument --extract: {wanted!r} is not a number of a note")
    count = len(dump.notes)
    if not 0 <= found < count:
        raise AbsentError(f"{dump.path}: no note {found}: there are {count}, counted from 0")
    note = dump.notes[found]
    data = note.data
    if len(data) != note.size:
        raise AbsentError(
            f"{dump.path}: note {found}: only {len(data)} of the {note.size} bytes of its "
            "descriptor can be read"
        )
    return note, data


def write(dump: DumpFile, data: bytes, file: str, *, force: bool) -> None:
    """Writes the file.

    UsageError if it exists and ``force`` is not set, or if it is the dump; OutputError if it cannot
    be written.
    """
    with suppress(OSError):
        if os.path.samefile(dump.path, file):
            raise UsageError(f"{file} is the dump itself")
    try:
        with open(file, "wb" if force else "xb") as stream:
            stream.write(data)
    except FileExistsError:
        raise UsageError(f"{file} exists (--overwrite replaces it)") from None
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}") from None


class Extracted(NamedTuple):
    """A descriptor that was written to a file, or is to be written to stdout."""

    #: The note, for JSON.
    notes: Iterable[object]
    descriptor: bytes
    #: ``-`` for stdout.
    file: str

    @property
    def data(self) -> bytes | None:
        """What is printed in place of text; see the contract."""
        return self.descriptor if self.file == "-" else None

    def text(self) -> Iterator[str]:
        """What was written."""
        yield f"{len(self.descriptor)} bytes written to {self.file}"

    def json(self) -> Mapping[str, object]:
        """The note, and the file."""
        return {"notes": self.notes, "extracted_to": self.file}
