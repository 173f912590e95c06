"""printk's ring of records: 3.5 to 5.9."""

from collections.abc import Iterator
from functools import partial

from ..._native import AbsentError
from ...limits import MAX_LOG_SIZE
from ..kernel import Kernel
from ..partial_buffer import PartialBuffer
from .message import Lines, LogLine, caller, decode

#: Bytes of struct log in 3.5. Later versions have at least as many.
_MIN_RECORD = 16


class _Layout:
    """Offsets of a record's members."""

    def __init__(self, kernel: Kernel) -> None:
        # 3.11 renamed struct log to printk_log (62e32ac3505a).
        for name in ("printk_log", "log"):
            try:
                self.size = kernel.types.sizeof(name)
                break
            except AbsentError:
                continue
        else:
            raise AbsentError(f"{kernel.image.path}: no layout of struct printk_log")
        self.time = kernel.types.offset(f"{name}.ts_nsec")
        self.length = kernel.types.offset(f"{name}.len")
        self.text_length = kernel.types.offset(f"{name}.text_len")
        self.dict_length = kernel.types.offset(f"{name}.dict_len")
        # With CONFIG_PRINTK_CALLER, since 5.1 (15ff2069cb7f).
        try:
            self.caller: int | None = kernel.types.offset(f"{name}.caller_id")
        except AbsentError:
            self.caller = None
        # A u16 of its own in 3.5; since 3.6 the upper 3 bits of the byte after facility, which is
        # not in VMCOREINFO.
        self.level: int | None = self.dict_length + 3
        self.level_shift = 5
        native = kernel.types.native
        if native is not None:
            members = native.members(name)
            if "flags_level" in members:  # RHEL 7: one byte instead of bit-fields
                self.level = members["flags_level"].offset
            elif "level" in members:
                level = members["level"]
                self.level = level.offset + (level.bit_offset or 0) // 8
                self.level_shift = (level.bit_offset or 0) % 8 if level.bit_size else 0
            else:
                self.level = None
                kernel.warn(f"the levels of messages are not known: struct {name} has none")
        self._check(name)

    def _check(self, name: str) -> None:
        """Rejects layouts that no version has: with a size of 0 the ring would have no end."""
        members = [(self.time, 8), (self.length, 2), (self.text_length, 2)]
        if self.level is not None:
            members.append((self.level, 1))
        if self.caller is not None:
            members.append((self.caller, 4))
        if self.size < _MIN_RECORD or not all(0 <= at <= self.size - size for at, size in members):
            raise AbsentError(f"invalid layout of struct {name}, with {self.size} bytes")


def lines(kernel: Kernel) -> Lines:
    """Every record in the ring."""
    layout = _Layout(kernel)
    size = kernel.variable("log_buf_len", 4)
    first, end = kernel.variable("log_first_idx", 4), kernel.variable("log_next_idx", 4)
    if not (layout.size <= size <= MAX_LOG_SIZE and first < size and end <= size):
        raise AbsentError(f"log_buf_len is {size}, with records from {first} to {end}: overwritten")
    ring = PartialBuffer(kernel, kernel.pointer(kernel.symbol("log_buf")), size)
    if ring.missing:
        kernel.warn(f"{ring.missing} bytes of the kernel's log are not in the dump")
    sequence = kernel.variable("log_first_seq", 8) if "log_first_seq" in kernel.symbols else 0
    return Lines(partial(_lines, kernel, ring, layout, first, end, sequence))


def _lines(
    kernel: Kernel, ring: PartialBuffer, layout: _Layout, first: int, end: int, sequence: int
) -> Iterator[LogLine]:
    size = len(ring.data)
    at, wraps = first, end < first
    while at != end:
        # A record of length 0 follows the last one before the ring's end, if it fits.
        length = 0
        if at + layout.size <= size:
            length = int.from_bytes(
                ring.data[at + layout.length : at + layout.length + 2], "little"
            )
        if length == 0 and wraps and ring.is_complete(at, min(at + layout.size, size)):
            at, wraps = 0, False
            continue
        if not (layout.size <= length <= size - at) or (not wraps and at + length > end):
            kernel.warn(f"the kernel's log is damaged at byte {at}: later messages are missing")
            break
        yield _line(ring, layout, at, length, sequence)
        at += length
        sequence += 1


def _line(ring: PartialBuffer, layout: _Layout, at: int, length: int, sequence: int) -> LogLine:
    def number(offset: int, size: int) -> int:
        return int.from_bytes(ring.data[at + offset : at + offset + size], "little")

    start = at + layout.size
    end = start + min(number(layout.text_length, 2), length - layout.size)
    return LogLine(
        sequence=sequence,
        time=number(layout.time, 8),
        caller=None if layout.caller is None else caller(number(layout.caller, 4)),
        level=None if layout.level is None else number(layout.level, 1) >> layout.level_shift & 7,
        text=decode(ring.data[start:end]),
        lost=not ring.is_complete(start, end),
    )
