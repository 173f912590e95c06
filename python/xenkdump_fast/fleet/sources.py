"""The dumps that are to be examined: files, folders and URLs."""

import codecs
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from .._native import split_identity
from ..limits import MAX_TRIAGE_DUMPS
from ..regular_files import open_regular
from ..session import compression, formats
from . import check, extra

#: Bytes at the start of a file that say whether it is text.
_START = 4096
#: Keys of fsspec's info() with the time of the last change, by file system.
_CHANGED = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


class Source(NamedTuple):
    """A dump, and what tells its versions apart."""

    path: str
    size: int | None
    modified: float | None

    @property
    def key(self) -> str:
        """Identifies the dump: the same as long as path, size and time of change are the same."""
        # As in the row, from which the key is made again.
        size, changed = check.whole(self.size), check.date(self.modified)
        modified = None if changed is None else f"{changed:.6f}"
        version = sha256(f"{size}:{modified}".encode()).hexdigest()[:8]
        return f"{self.family}-{version}"

    @property
    def text(self) -> str:
        """The path as text: bytes that are not UTF-8 are escaped."""
        return check.plain(self.path)

    @property
    def family(self) -> str:
        """What the keys of all versions of one path begin with."""
        return sha256(self.text.encode()).hexdigest()[:24]


def is_url(path: str) -> bool:
    """Whether fsspec has to open it."""
    return "://" in path


def find(paths: Iterable[str], own: Sequence[str] = ()) -> Iterator[Source]:
    """The dumps at these paths, each once; a folder is searched for dumps.

    Of the parts of a split dump in one folder it is the first one. A path that cannot be read is a
    dump, too, and so is what may have been meant to be one: an empty file, and one with bytes of no
    known format. Their rows will say why. The folders ``own``, where triage writes, are left out.
    """
    seen: set[str] = set()
    left_out = {os.path.realpath(path) for path in own}
    split: set[tuple[str, bytes]] = set()
    for path in paths:
        for source in _remote(path) if is_url(path) else _local(os.path.abspath(path), left_out):
            if source.path in seen:
                continue
            seen.add(source.path)
            # A part finds the others in its folder.
            identity = None if is_url(source.path) else split_identity(source.path)
            if identity is not None:
                dump = os.path.dirname(source.path), identity
                if dump in split:
                    continue
                split.add(dump)
            yield source
            if len(seen) >= MAX_TRIAGE_DUMPS:
                return


def _local(path: str, left_out: Collection[str]) -> Iterator[Source]:
    if not os.path.isdir(path):
        yield _source(path)
        return
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        unreadable.append(error.filename)

    for folder, names, files in os.walk(path, onerror=note):
        yield from (Source(name, None, None) for name in unreadable)
        unreadable.clear()
        names[:] = sorted(
            name for name in names if os.path.realpath(os.path.join(folder, name)) not in left_out
        )
        for name in sorted(files):
            file = os.path.join(folder, name)
            if _is_dump(file):
                yield _source(file)
    yield from (Source(name, None, None) for name in unreadable)


def _source(path: str) -> Source:
    try:
        status = os.stat(path)
    except OSError:
        return Source(path, None, None)
    return Source(path, status.st_size, status.st_mtime_ns // 1000 / 10**6)


def _is_dump(path: str) -> bool:
    """Whether a file in a folder is a dump, or may have been meant to be one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open_regular(path) as file:
            start = file.read(_START)
    except OSError:
        return True
    kind = formats.kind(path)
    if kind is not None or compression.by_magic(start) is not None:
        return kind != "kernel"
    # Logs and notes beside dumps are text.
    return not (start and _is_text(start)) and not os.path.basename(path).startswith(".")


def _is_text(start: bytes) -> bool:
    """Whether the start of a file is text in UTF-8, of which the last character may be cut."""
    if any(byte < 0x20 and byte not in b"\t\n\r\f\x1b" for byte in start):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def _remote(url: str) -> Iterator[Source]:
    fsspec = extra.module("fsspec")
    try:
        system, path = fsspec.core.url_to_fs(url)
        if not system.isdir(path):
            yield _remote_source(url, system.info(path))
            return
        for name, info in sorted(system.find(path, detail=True).items()):
            yield _remote_source(system.unstrip_protocol(name), info)
    except Exception:  # what a file system raises is not defined
        yield Source(url, None, None)


def _remote_source(url: str, info: dict[str, Any]) -> Source:
    size = info.get("size")
    changed = next((info[key] for key in _CHANGED if info.get(key)), None)
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    modified = float(changed) if isinstance(changed, int | float) else None
    return Source(url, size if isinstance(size, int) else None, modified)
