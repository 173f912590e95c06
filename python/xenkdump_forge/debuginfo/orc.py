"""ORC: the kernel's unwind tables, ``.orc_unwind_ip`` and ``.orc_unwind``."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ..code.asm import Row

_UNDEFINED, _PREV_SP, _BP, _SP = 0, 1, 4, 5
_CALL, _REGS, _REGS_PARTIAL = 0, 1, 2


def entry(row: Row) -> bytes:
    """An entry of Linux 4.19 to 6.2: two offsets, then 4+4+2+1 bits."""
    if row.kind == "end":
        return struct.pack("<hhH", 0, 0, 1 << 10)
    if row.kind == "none":
        return struct.pack("<hhH", 0, 0, 0)
    sp_reg = _BP if row.base == "bp" else _SP
    type_ = {"call": _CALL, "regs": _REGS, "iret": _REGS_PARTIAL}[row.kind]
    saved = dict(row.saved)
    bp_reg, bp_offset = (_PREV_SP, -saved["rbp"]) if "rbp" in saved else (_UNDEFINED, 0)
    return struct.pack("<hhH", row.offset, bp_offset, sp_reg | bp_reg << 4 | type_ << 8)


def tables(rows: Iterable[tuple[int, Row]], ip_address: int) -> tuple[bytes, bytes]:
    """Both tables, sorted by address; each ip is relative to the address of its entry."""
    ips = bytearray()
    entries = bytearray()
    for address, row in sorted(rows, key=lambda r: r[0]):
        ips += struct.pack("<i", address - (ip_address + len(ips)))
        entries += entry(row)
    return bytes(ips), bytes(entries)
