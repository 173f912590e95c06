"""Unpacks dumps that are compressed as a whole into a directory that the user named, once each.

Without such a directory nothing is unpacked: a dump may be larger than memory and disk.

A file in the directory has the name of the dump and a key of the file that it came of. It is
written under a name of its own, which is locked, and renamed at its end: so it is complete, and two
processes do not unpack the same file at once. What a process that was killed left is overwritten
by the next one.
"""

import fcntl
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import BinaryIO, NamedTuple

from .. import progress
from .._native import DumpError, zstd_obstacle
from ..limits import MAX_UNPACKED_RATIO, MAX_UNPACKED_SMALL
from ..regular_files import open_regular
from . import compression
from .compression import Compression, Stream

#: The environment variable that names the directory.
CACHE_DIR = "XKDUMP_CACHE_DIR"

#: Free space on the disk that unpacking leaves, in bytes: other programs need some.
MIN_FREE_SPACE = 512 << 20

#: Changed if files that were unpacked before cannot be used any more.
_VERSION = b"1"
#: Bytes at the start and the end of a file that its key depends on, besides its inode and times.
_KEY_PART = 64 << 10
#: Blocks of zeros of this size become holes.
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
_ZERO_PIECE = bytes(compression.PIECE)
#: Bytes written between two looks at the free space.
_CHECK_EVERY = 64 << 20
#: How a file in the directory ends, by the end of the compressed file.
_SUFFIXES = {"whole": ".dump", "cut": ".cut", "damaged": ".damaged"}


class Opened(NamedTuple):
    """A file that can be opened as a dump."""

    path: str
    #: What is wrong with the file that it came of.
    warning: str | None


def opened(path: str, cache_dir: str | None, *, is_raw: bool = False) -> Opened:
    """The file itself; if it is compressed and cannot be read in place, what it was unpacked to.

    ``cache_dir`` is the directory for that. DumpError, with what to do, if it is needed and None.
    """
    found = compression.of_file(path)
    if found is None:
        return Opened(path, None)
    if is_raw and not compression.contents_head(path, found, 1):
        # A raw image may start with any bytes.
        return Opened(path, None)
    obstacle = None
    if found is compression.ZSTD:
        obstacle = zstd_obstacle(path)
        if obstacle is None:
            return Opened(path, None)
    with open_regular(path) as file:
        if not cache_dir:
            raise DumpError(f"{path}: {_remedy(path, file, found, obstacle)}")
        with _directory(cache_dir) as directory:
            return _Unpacker(path, file, found, cache_dir, directory).run()


def _remedy(path: str, file: BinaryIO, found: Compression, obstacle: str | None) -> str:
    text = f"compressed by {found.name}"
    if obstacle is not None:
        text += f", and cannot be read in place: {obstacle}"
    size = compression.contents_size(file, found)
    if size is not None:
        text += f". It has at least {_amount(size)} of contents"
    name = shlex.quote(path if not path.startswith("-") else f"./{path}")
    return (
        f"{text}. To unpack it once, name a directory: xkdump COMMAND --cache-dir DIR ... (or "
        f"{CACHE_DIR}=DIR, in Python cache_dir=DIR); or decompress it: {found.command} {name} "
        "> FILE"
    )


def _amount(size: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def create(path: str) -> None:
    """Creates the directory if it is absent, but not those above it: a name may be mistyped.

    DumpError, with what to do, if the one above it does not exist.
    """
    if os.path.lexists(path):
        return
    parent = os.path.dirname(os.path.abspath(path))  # without a slash at the end
    if not os.path.lexists(parent):
        raise DumpError(
            f"{path}: the directory {parent} does not exist. If the name is right: mkdir -p "
            f"{shlex.quote(path)}"
        )
    # Another process may have created it just now.
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    """Opens the directory as ``create`` leaves it. DumpError if others can write to it.

    Dumps hold secrets, and a file that someone else put there would be taken for the dump's.
    """
    create(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid():
            raise DumpError(f"{path}: the directory belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise DumpError(
                f"{path}: others can write to the directory: chmod go-w {shlex.quote(path)}"
            )
        yield fd
    finally:
        os.close(fd)


def _identity(file: BinaryIO) -> tuple[int, ...]:
    """What changes if a file is replaced or written to. No program can set its time of change."""
    found = os.fstat(file.fileno())
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)


class _Unpacker:
    """Unpacks one file."""

    def __init__(
        self, path: str, file: BinaryIO, found: Compression, cache_dir: str, directory: int
    ) -> None:
        self._path = path
        self._file = file
        self._compression = found
        self._cache_dir = cache_dir
        self._directory = directory
        self._identity = _identity(file)
        self._source_size = os.fstat(file.fileno()).st_size
        name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(path))[-64:].lstrip(".-")
        self._name = f"{name}-{self._key()}"

    @property
    def _command(self) -> str:
        """The command that decompresses the file."""
        return f"{self._compression.command} {shlex.quote(self._path)}"

    def _key(self) -> str:
        """Identifies the file. Reading all of it would take as long as unpacking it."""
        key = blake2b(_VERSION, digest_size=10)
        key.update(repr(self._identity).encode())
        fd, size = self._file.fileno(), self._source_size
        for at in (0, max(0, size - _KEY_PART)):
            key.update(os.pread(fd, _KEY_PART, at))
        return key.hexdigest()

    def run(self) -> Opened:
        """What it was unpacked to, perhaps earlier."""
        if (found := self._existing()) is not None:
            return found
        with self._part() as part:
            # While this process waited, another one may have finished.
            found = self._existing()
            if found is not None:
                os.unlink(self._name + ".part", dir_fd=self._directory)
                return found
            try:
                end = self._unpack(part)
            except BaseException:
                os.unlink(self._name + ".part", dir_fd=self._directory)
                raise
            # What a crash of the machine leaves must not be taken for the dump.
            os.fsync(part)
            os.rename(
                self._name + ".part",
                self._name + _SUFFIXES[end],
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
            )
        found = self._existing()
        if found is None:
            raise DumpError(f"{self._cache_dir}: {self._name} was removed")
        return found

    def _existing(self) -> Opened | None:
        for end, suffix in _SUFFIXES.items():
            try:
                status = os.stat(self._name + suffix, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                path = os.path.join(self._cache_dir, self._name + suffix)
                return Opened(path, self._warning(end, status.st_size))
        return None

    def _warning(self, end: str, size: int) -> str | None:
        if end == "whole":
            return None
        kind = self._compression.name
        what = f"{self._path}: the {kind} file is {end}: {size} bytes were unpacked"
        if end == "cut":
            return f"{what}, and what follows is lost"
        return f"{what} before the damage. The last of them may be wrong, and what follows is lost"

    @contextmanager
    def _part(self) -> Iterator[int]:
        """Opens and locks the file that is written."""
        name = self._name + ".part"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            fd = os.open(name, flags, 0o600, dir_fd=self._directory)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if self._is_at(name, fd):
                    yield fd
                    return
                # Another process renamed or removed it, and this one waited for that.
            finally:
                os.close(fd)

    def _is_at(self, name: str, fd: int) -> bool:
        try:
            there = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _unpack(self, part: int) -> str:
        """Writes the contents; returns how they ended."""
        os.ftruncate(part, 0)
        self._check_free(part, self._source_size)
        most = max(self._source_size * MAX_UNPACKED_RATIO, MAX_UNPACKED_SMALL)
        stream = Stream(self._file, self._compression)
        size = written = checked = 0
        try:
            for piece in stream:
                progress.now.set(
                    "unpacking: MiB", stream.consumed >> 20, (self._source_size >> 20) + 1
                )
                if size + len(piece) > most:
                    raise DumpError(
                        f"{self._path}: unpacking stopped: {self._source_size} bytes that expand "
                        f"to more than {_amount(most)} are not unpacked. If it is no error, "
                        f"decompress it: {self._command}"
                    )
                written += _write(part, piece, size)
                size += len(piece)
                if written - checked >= _CHECK_EVERY:
                    checked = written
                    self._check_free(part, 0)
            os.ftruncate(part, size)
        except OSError as error:
            if error.filename is None:
                name = os.path.join(self._cache_dir, self._name)
                raise OSError(error.errno, error.strerror, name) from error
            raise
        finally:
            progress.now.what = ""
        if _identity(self._file) != self._identity:
            raise DumpError(f"{self._path}: the file changed while it was unpacked")
        if size == 0:
            text = f"{self._path}: nothing can be unpacked from it: "
            if not stream.problem:
                raise DumpError(f"{text}it is empty")
            # Perhaps there is no memory for the window of a decoder.
            raise DumpError(f"{text}{stream.problem}. To decompress it elsewhere: {self._command}")
        return stream.end

    def _check_free(self, fd: int, size: int) -> None:
        """DumpError if the disk has too little space for ``size`` more bytes."""
        free = _free(fd)
        if free < size + MIN_FREE_SPACE:
            raise DumpError(
                f"{self._path}: unpacking stopped: {self._cache_dir} has {_amount(free)} of free "
                f"space, of which {_amount(MIN_FREE_SPACE)} are left free"
            )


def _free(fd: int) -> int:
    """The free space for this user in bytes."""
    found = os.fstatvfs(fd)
    return found.f_bavail * found.f_frsize


def _write(fd: int, data: bytes, offset: int) -> int:
    """Writes ``data`` but for blocks of zeros; returns how many bytes were written."""
    if _ZERO_PIECE.startswith(data):
        return 0
    written = 0
    start, at = 0, 0
    # Blocks of the file, not of the data.
    end = min(len(data), -offset % _BLOCK)
    while at < len(data):
        if end == at:
            end = min(len(data), at + _BLOCK)
        if data[at:end] == _ZEROS[: end - at]:
            written += _write_all(fd, data[start:at], offset + start)
            start = end
        at = end
    return written + _write_all(fd, data[start:], offset + start)


def _write_all(fd: int, data: bytes, offset: int) -> int:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
    return len(data)
