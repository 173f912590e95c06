"""What a dump keeps open for later commands: hypervisors and images of kernels, by their files."""

import os
from collections.abc import Callable, Hashable

from .._contexts import suppress
from .._typing import Generic, TypeVar
from ..limits import MAX_OPENED

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Opened(Generic[K, V]):
    """The last few things that were opened.

    A key is a path, or a tuple with paths. A file that was replaced is opened again.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[K, Hashable], V] = {}

    def get(self, key: K, opened: Callable[[], V]) -> V:
        """What ``opened`` returned for this key; what it raises is not kept."""
        now = key, _identity(key)
        found = self._known.pop(now, None)
        if found is None:
            found = opened()
        self._known[now] = found
        if len(self._known) > MAX_OPENED:
            del self._known[next(iter(self._known))]
        return found


def _identity(key: object) -> Hashable:
    """What differs if the files of a key are not the same as before."""
    found = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, str):
            with suppress(OSError, ValueError):
                status = os.stat(part)
                found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
