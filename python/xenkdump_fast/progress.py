"""How far a long piece of work has come, for whoever wants to show it."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Progress:
    """What is being processed, and how far."""

    __slots__ = ("done", "total", "what")

    def __init__(self) -> None:
        #: Empty while nothing is counted.
        self.what = ""
        self.done = 0
        self.total = 0


#: The current work; a command does one thing at a time.
now = Progress()


def each(items: Sequence[_T], what: str) -> Iterator[_T]:
    """Yields the ``items``, and counts them in ``now``."""
    now.what, now.done, now.total = what, 0, len(items)
    for item in items:
        yield item
        now.done += 1
    now.what = ""
