"""The kernel's log, in each form that printk has kept it.

=============  =======================================================================
2.6 to 3.4     a ring of bytes (``log_bytes``)
3.5 to 5.9     a ring of records: struct log, printk_log since 3.11 (``log_records``)
5.10 on        the lockless ring of descriptors and text blocks (``log_ringbuffer``)
=============  =======================================================================
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from .._native import AbsentError
from .kernel import Kernel

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


def lines(kernel: Kernel) -> Lines:
    """Every message that the kernel still had, the oldest first; AbsentError if it has no log.

    A damaged log gives what can be read of it; ``kernel.warnings`` says what was damaged, once one
    has gone through it.
    """
    if "prb" in kernel.symbols:
        from . import log_ringbuffer as generation
    elif "log_first_idx" in kernel.symbols and "log_next_idx" in kernel.symbols:
        from . import log_records as generation  # type: ignore[no-redef]
    elif "log_buf" in kernel.symbols:
        from . import log_bytes as generation  # type: ignore[no-redef]
    else:
        raise AbsentError(f"{kernel.image.path}: no symbol prb, log_first_idx or log_buf: no log")
    return generation.lines(kernel)


def decode(text: bytes | bytearray) -> str:
    """Text as the kernel kept it; bytes that are no UTF-8 come out as escapes."""
    return text.decode("utf-8", "backslashreplace")


def caller(number: int) -> str:
    """A caller_id in crash's style."""
    if number & _CALLER_IS_CPU:
        return f"C{number & ~_CALLER_IS_CPU}"
    return f"T{number}"
