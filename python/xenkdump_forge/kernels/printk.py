"""The kernel's log: the ring buffer since 5.10, and the records of 3.5 to 5.9."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """A message: seconds since boot, its level, its text."""

    seconds: float
    level: int
    text: str


@dataclass
class Ring:
    """The ring buffer of Linux 5.10 and later, as the bytes of its three arrays."""

    descs: bytes
    infos: bytes
    data: bytes
    head_id: int
    tail_id: int
    head_lpos: int
    tail_lpos: int
    #: The messages that were not overwritten.
    kept: list[Line]


_WORD = 1 << 64
_FINALIZED = 2 << 62
_ID_MASK = (1 << 62) - 1
_NEWLINE = 2


def ring(lines: list[Line], count_bits: int, size_bits: int, info_size: int = 88) -> Ring:
    """Writes messages to the ring; the oldest are overwritten if it is too small.

    As in the kernel, ids and positions wrap early: the first record has id -(count), the first byte
    has position -(size).
    """
    count, size = 1 << count_bits, 1 << size_bits
    descs = bytearray(count * 24)
    infos = bytearray(count * info_size)
    data = bytearray(size)
    lpos = _WORD - size
    written: list[tuple[int, int, Line]] = []  # id, begin, message
    for seq, line in enumerate(lines):
        text = line.text.encode()
        ident = (-count + seq) & _ID_MASK
        need = 8 + -(-len(text) // 8) * 8
        begin = lpos
        end = (begin + need) % _WORD
        if begin // size != ((begin + need) % _WORD) // size:
            # A block that would reach the end of the array starts at its beginning.
            data[begin % size : begin % size + 8] = struct.pack("<Q", ident)
            end = ((begin // size + 1) * size + need) % _WORD
            at = 0
        else:
            at = begin % size
        data[at : at + 8] = struct.pack("<Q", ident)
        data[at + 8 : at + 8 + len(text)] = text
        slot = ident % count
        descs[slot * 24 : slot * 24 + 24] = struct.pack("<QQQ", _FINALIZED | ident, begin, end)
        caller = 0x80000000 if seq % 7 == 0 else 1
        info = struct.pack(
            "<QQHBBI",
            seq,
            round(line.seconds * 1e9),
            len(text),
            0,
            line.level << 5 | _NEWLINE,
            caller,
        )
        infos[slot * info_size : slot * info_size + len(info)] = info
        infos[slot * info_size + len(info) : (slot + 1) * info_size] = bytes(info_size - len(info))
        lpos = end
        written.append((ident, begin, line))
    # Overwritten because descriptors or text space ran out.
    kept = written[-count:]
    while kept and (lpos - kept[0][1]) % _WORD > size:
        kept.pop(0)
    return Ring(
        bytes(descs),
        bytes(infos),
        bytes(data),
        head_id=written[-1][0],
        tail_id=kept[0][0],
        head_lpos=lpos,
        tail_lpos=kept[0][1],
        kept=[line for _, _, line in kept],
    )


@dataclass
class Records:
    """The log buffer of Linux 3.5 to 5.9: consecutive records, the oldest dropped."""

    data: bytes
    first_idx: int
    next_idx: int
    first_seq: int
    next_seq: int
    kept: list[Line]


_RECORD = struct.Struct("<QHHHBB")


def records(lines: list[Line], size: int, align: int) -> Records:
    """Writes messages as records. A record that does not fit at the end is written to the start.

    A header of zeros marks the rest of the buffer as unused.
    """
    data = bytearray(size)
    live: list[tuple[int, int, Line]] = []  # start, end, message
    at = 0
    for line in lines:
        text = line.text.encode()
        need = -(-(_RECORD.size + len(text)) // align) * align
        if at + need + _RECORD.size > size:
            # Records after the marker are dropped.
            live = [r for r in live if r[0] < at]
            data[at : at + _RECORD.size] = bytes(_RECORD.size)[: size - at]
            at = 0
        while live and live[0][0] < at + need + _RECORD.size and live[0][0] >= at:
            live.pop(0)
        flags = line.level << 5 | _NEWLINE
        head = _RECORD.pack(round(line.seconds * 1e9), need, len(text), 0, 0, flags)
        data[at : at + need] = (head + text).ljust(need, b"\0")
        live.append((at, at + need, line))
        at += need
    kept = [line for _, _, line in live]
    first = live[0][0] if live else 0
    return Records(bytes(data), first, at, len(lines) - len(kept), len(lines), kept)
