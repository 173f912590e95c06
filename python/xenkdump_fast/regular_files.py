"""Opens paths that need not be regular files, without waiting for the writer of a FIFO."""

import os
import stat

from ._typing import BinaryIO


def open_regular(path: str) -> BinaryIO:
    """Opens a regular file for reading. Any other kind is an OSError at once, without waiting."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(22, "not a regular file", path)
    return os.fdopen(fd, "rb", buffering=0)
