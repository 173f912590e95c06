"""The progress of a long operation, for display."""

from collections.abc import Iterator, Sequence

from ._typing import TypeVar

_T = TypeVar("_T")


class Progress:
    """The kind of item that is being processed, and how many are done."""

    __slots__ = ("done", "total", "what")

    def __init__(self) -> None:
        #: Empty while nothing is counted.
        self.what = ""
        self.done = 0
        self.total = 0

    def set(self, what: str, done: int, total: int) -> None:
        """Sets all of them."""
        self.what, self.done, self.total = what, done, total


#: The current work; a command does one thing at a time.
now = Progress()


def each(items: Sequence[_T], what: str) -> Iterator[_T]:
    """Yields the ``items``, and counts them in ``now``."""
    now.what, now.done, now.total = what, 0, len(items)
    for item in items:
        yield item
        now.done += 1
    now.what = ""
