"""A message of the kernel's log, whatever kept it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

#: caller_id: this bit says that it is a CPU's number, else it is a task's.
_CALLER_IS_CPU = 0x8000_0000


class LogLine(NamedTuple):
    """One message; its text may hold line feeds."""

    #: The kernel's own count of messages; in a ring of bytes the count of lines in it.
    sequence: int
    #: Nanoseconds since boot; None where the kernel did not note it.
    time: int | None
    #: Who printed it, in crash's style: ``T214`` is task 214, ``C1`` is CPU 1. None before 5.1.
    caller: str | None
    #: 0 (emergency) to 7 (debug); None where it is lost.
    level: int | None
    text: str
    #: The kernel (or the dump) has lost the text; the message was there.
    lost: bool = False


class Lines:
    """Messages, made anew each time one goes through them.

    All of a log at once would be up to 150 times its size: a ring may be nothing but line feeds.
    The memory was read before, so that going through them raises nothing.
    """

    def __init__(self, make: Callable[[], Iterator[LogLine]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[LogLine]:
        return self._make()


def decode(text: bytes | bytearray) -> str:
    """Text as the kernel kept it; bytes that are no UTF-8 come out as escapes."""
    return text.decode("utf-8", "backslashreplace")


def caller(number: int) -> str:
    """A caller_id in crash's style."""
    if number & _CALLER_IS_CPU:
        return f"C{number & ~_CALLER_IS_CPU}"
    return f"T{number}"
