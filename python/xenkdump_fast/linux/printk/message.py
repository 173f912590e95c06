"""A message of the kernel's log, in any format."""

from collections.abc import Callable, Iterator

from ..._typing import NamedTuple

#: In caller_id: the rest is the number of a CPU; without this bit it is that of a task.
_CALLER_IS_CPU = 0x8000_0000


class LogLine(NamedTuple):
    """One message; its text may contain line feeds."""

    #: The kernel's own count of messages; in a ring of bytes the count of lines in it.
    sequence: int
    #: Nanoseconds since boot; None if the kernel did not record it.
    time: int | None
    #: What printed it, in the style of crash: ``T214`` is task 214, ``C1`` CPU 1. None before 5.1.
    caller: str | None
    #: 0 (emergency) to 7 (debug); None if it is lost.
    level: int | None
    text: str
    #: Whether the text is lost, by the kernel or because the dump lacks it.
    lost: bool = False


class Lines:
    """Messages, decoded again in each iteration.

    A list of all would take up to 150 times the size of the log, as a ring may be full of line
    feeds. The memory was read before, so that an iteration raises nothing.
    """

    def __init__(self, make: Callable[[], Iterator[LogLine]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[LogLine]:
        return self._make()


def decode(text: bytes | bytearray) -> str:
    """Decodes text of the kernel; bytes that are not UTF-8 are escaped."""
    return text.decode("utf-8", "backslashreplace")


def caller(number: int) -> str:
    """A caller_id in the style of crash."""
    if number & _CALLER_IS_CPU:
        return f"C{number & ~_CALLER_IS_CPU}"
    return f"T{number}"
