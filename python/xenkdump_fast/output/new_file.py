"""Files that appear under their names when they are complete, and not at all after an error."""

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: Signals that end the process: the file that is being written is removed before.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def is_one_of(path: str, sources: Iterable[str]) -> bool:
    """Whether a path leads to one of the files ``sources``."""
    for source in sources:
        with suppress(OSError):
            if os.path.samefile(source, path):
                return True
    return False


@contextmanager
def new_file(path: str, *, force: bool, follow: bool = True) -> Iterator[str]:
    """The path of a temporary file, which the block creates and which then gets the name ``path``.

    FileExistsError if there is a file of that name by then, unless ``force`` says to replace it.
    Other errors of the operating system name ``path``, or its directory if that does not exist.
    If the name is that of a symbolic link, the file that it leads to is replaced; without
    ``follow`` the link is. The temporary file is removed on any exception, Ctrl-C, SIGTERM and
    SIGHUP.
    """
    path = os.path.realpath(path) if follow else os.path.abspath(path)
    folder, name = os.path.split(path)
    if not os.path.exists(folder):
        raise FileNotFoundError(errno.ENOENT, "the directory does not exist", folder)
    part = os.path.join(folder, f".{name}.{os.urandom(4).hex()}.part")
    try:
        with _signals():
            yield part
            _publish(part, path, force=force)
    except OSError as error:
        if error.filename == part:
            error.filename = path  # the user knows no other name
        raise
    finally:
        with suppress(OSError):
            os.unlink(part)


def _publish(part: str, path: str, *, force: bool) -> None:
    """Gives the file its name; FileExistsError if there is one meanwhile."""
    if not force:
        try:
            os.link(part, path)
            return
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links.
            if os.path.lexists(path):
                raise FileExistsError(17, "File exists", path) from None
    os.rename(part, path)


@contextmanager
def _signals() -> Iterator[None]:
    """Turns signals that end the process into an exception, in the main thread."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {}
    with suppress(ValueError):  # another thread
        for number in _SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
