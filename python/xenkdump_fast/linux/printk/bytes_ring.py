"""printk's ring of bytes: 2.6 to 3.4."""

import re
from collections.abc import Iterator
from functools import partial

from ..._native import AbsentError
from ...limits import MAX_LOG_SIZE
from ..kernel import Kernel
from ..partial_buffer import PartialBuffer
from .message import Lines, LogLine, decode

#: ``<6>``, or since 2.6.39 with a facility: ``<30>``; ``<c>`` (2.6.31 on) continues a line.
_LEVEL = re.compile(rb"<([0-9]{1,3}|[cd])>")
_LINE = re.compile(rb"^.*$", re.MULTILINE)
_TIME = re.compile(rb"\[ *([0-9]{1,10})\.([0-9]{6})\] ")


def lines(kernel: Kernel) -> Lines:
    """Every line in the ring."""
    return Lines(partial(_lines, _text(kernel)))


def _text(kernel: Kernel) -> bytes:
    size = kernel.variable("log_buf_len", 4)
    if not 0 < size <= MAX_LOG_SIZE:
        raise AbsentError(f"log_buf_len is {size}: not the size of a log")
    ring = PartialBuffer(kernel, kernel.pointer(kernel.symbol("log_buf")), size)
    if ring.missing:
        kernel.warn(f"{ring.missing} bytes of the kernel's log are not in the dump")
    # The number of characters ever printed; logged_chars counts those since the log was cleared.
    # Both were long before they were int: the low half is sufficient.
    end = kernel.variable("log_end", 4)
    length = min(end, size)
    if "logged_chars" in kernel.symbols:
        # Larger than log_end if that has wrapped.
        length = max(length, min(kernel.variable("logged_chars", 4), size))
    start = (end - length) % size
    return bytes(ring.data[start : start + length] + ring.data[: max(0, start + length - size)])


def _lines(text: bytes) -> Iterator[LogLine]:
    text = text.replace(b"\0", b"")
    if text.endswith(b"\n"):
        text = text[:-1]
    elif not text:
        return
    for number, found in enumerate(_LINE.finditer(text)):
        line = found[0]
        at, level, time = 0, None, None
        prefix = _LEVEL.match(line)
        if prefix:
            at = prefix.end()
            if prefix[1].isdigit():
                level = int(prefix[1]) & 7
        stamp = _TIME.match(line, at)
        if stamp:
            at = stamp.end()
            time = int(stamp[1]) * 1_000_000_000 + int(stamp[2]) * 1000
        yield LogLine(number, time, None, level, decode(line[at:]))
