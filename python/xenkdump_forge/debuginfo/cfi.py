"""``.debug_frame``: call frame information, which gcc writes for C functions only."""

from __future__ import annotations

import struct

from ..code.asm import Row
from ..code.text import Text
from ..elf.format import SHT_PROGBITS, Section
from .dwarf import uleb

#: DWARF register numbers.
_NUMBERS = {
    4: {"eax": 0, "ecx": 1, "edx": 2, "ebx": 3, "sp": 4, "bp": 5, "ebp": 5, "esi": 6, "edi": 7},
    8: {
        "rax": 0,
        "rdx": 1,
        "rcx": 2,
        "rbx": 3,
        "rsi": 4,
        "rdi": 5,
        "rbp": 6,
        "bp": 6,
        "sp": 7,
        **{f"r{n}": n for n in range(8, 16)},
    },
}
_RETURN = {4: 8, 8: 16}

_ADVANCE1, _ADVANCE2, _DEF_CFA, _OFFSET, _RESTORE = 0x02, 0x03, 0x0C, 0x80, 0xC0


def _advance(by: int) -> bytes:
    if by < 0x40:
        return bytes([0x40 | by])
    if by < 0x100:
        return bytes([_ADVANCE1, by])
    return struct.pack("<BH", _ADVANCE2, by)


def _instructions(word: int, start: int, rows: list[tuple[int, Row]]) -> bytes:
    numbers = _NUMBERS[word]
    out = bytearray()
    at = start
    before = Row(offset=word)
    for address, row in rows:
        if row == before:
            continue
        if address > at:
            out += _advance(address - at)
            at = address
        if (row.base, row.offset) != (before.base, before.offset):
            out += bytes([_DEF_CFA]) + uleb(numbers[row.base]) + uleb(row.offset)
        old, new = dict(before.saved), dict(row.saved)
        for reg in new.keys() - old.keys():
            out += bytes([_OFFSET | numbers[reg]]) + uleb(new[reg] // word)
        for reg in old.keys() - new.keys():
            out.append(_RESTORE | numbers[reg])
        before = row
    return bytes(out)


def section(text: Text, word: int) -> Section:
    """The section: one CIE, then an FDE per C function."""

    def record(body: bytes) -> bytes:
        body += bytes(-(len(body) + 4) % word)
        return struct.pack("<I", len(body)) + body

    numbers = _NUMBERS[word]
    initial = bytes([_DEF_CFA]) + uleb(numbers["sp"]) + uleb(word)
    initial += bytes([_OFFSET | _RETURN[word]]) + uleb(1)
    # The data alignment factor, minus the word size as a signed LEB128.
    factor = bytes([0x80 - word])
    cie = struct.pack("<IB", 0xFFFFFFFF, 1) + b"\0" + uleb(1) + factor
    out = record(cie + bytes([_RETURN[word]]) + initial)
    for function in text.functions.values():
        if function.is_c:
            where = struct.pack("<QQ" if word == 8 else "<II", function.address, function.size)
            steps = _instructions(word, function.address, function.rows)
            out += record(struct.pack("<I", 0) + where + steps)
    return Section(".debug_frame", SHT_PROGBITS, data=out, align=word)
