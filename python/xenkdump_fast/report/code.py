"""Disassembly around the place where code failed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .._native import AddressSpace, MemoryFault, disassemble
from ..limits import MAX_REPORT_CODE
from .model import Code, Instruction

if TYPE_CHECKING:
    from .._native import WordSize

#: Instructions before and after the marked one.
_BEFORE, _AFTER = 10, 6
#: Bytes that are read behind it, and the longest instruction.
_BEHIND, _LONGEST = 64, 15
#: The name and the offset of a symbol that covers an address.
Label = Callable[[int], tuple[str, int] | None]


def in_memory(
    virtual: AddressSpace, word: "WordSize", pc: int, label: Label, *, is_return: bool = False
) -> Code | None:
    """The code at ``pc`` as it is in memory; None if it cannot be read.

    ``is_return`` says that ``pc`` is a return address: the call before it is marked.
    """
    found = label(pc - 1 if is_return else pc)
    offset = 0 if found is None else pc - 1 - found[1] if is_return else pc - found[1]
    start = offset if found is not None and 0 <= pc - offset <= MAX_REPORT_CODE else pc
    data = _read(virtual, start, pc, word)
    if not data:
        return None
    lines = _instructions(data, start, word, label, pc, is_return=is_return)
    if not any(line["marked"] for line in lines):
        # The start of the function is not known, or it contains data.
        if start == pc or is_return:
            return None
        lines = _instructions(data[pc - start :], pc, word, label, pc, is_return=False)
    lines = [line for line in lines if _is_within(label, int(line["address"], 16), found)]
    return {
        "source": "memory",
        "symbol": None if found is None else found[0],
        "instructions": _around(lines),
        "agrees": None,
    }


def _is_within(label: Label, address: int, found: tuple[str, int] | None) -> bool:
    """Whether an address is in the same function."""
    if found is None:
        return True
    place = label(address)
    return place is not None and place[0] == found[0]


def _read(virtual: AddressSpace, start: int, pc: int, word: int) -> bytes:
    last = (1 << 8 * word) - 1
    end = min(pc + _BEHIND, last)
    try:
        return virtual.read(start, end - start)
    except MemoryFault as fault:
        if not start < fault.address < end:
            return b""
        try:
            return virtual.read(start, fault.address - start)
        except MemoryFault:
            return b""


def in_log(
    data: bytes, at: int, pc: int | None, word: "WordSize", virtual: AddressSpace, label: Label
) -> Code | None:
    """The bytes of a line ``Code:``, whose byte ``at`` is the first of the faulting instruction."""
    base = (pc or 0) - at
    if not 0 <= base <= (1 << 8 * word) - 1 - len(data) or not 0 <= at < len(data):
        return None
    found: list[Instruction] = []
    # The bytes begin anywhere in an instruction: the first start that leads to the fault counts.
    for skip in range(min(at, _LONGEST) + 1):
        found = _instructions(data[skip:], base + skip, word, label, base + at, is_return=False)
        if any(line["marked"] for line in found):
            break
    symbol = None if pc is None else label(pc)
    agrees = None
    if pc is not None:
        try:
            agrees = virtual.read(base, len(data)) == data
        except MemoryFault:
            agrees = None
    return {
        "source": "the line Code: of the log",
        "symbol": None if symbol is None else symbol[0],
        "instructions": _around(found),
        "agrees": agrees,
    }


def _instructions(
    data: bytes, start: int, word: "WordSize", label: Label, pc: int, *, is_return: bool
) -> list[Instruction]:
    found: list[Instruction] = []
    for address, size, text, target in disassemble(data, start, word, limit=len(data)):
        at = address - start
        place = None if target is None else label(target)
        shown = text
        if place is not None:
            shown += f" <{place[0]}+{place[1]:#x}>" if place[1] else f" <{place[0]}>"
        found.append(
            {
                "address": hex(address),
                "bytes": data[at : at + size].hex(" "),
                "text": shown,
                "marked": address + size == pc if is_return else address == pc,
            }
        )
    return found


def _around(lines: list[Instruction]) -> list[Instruction]:
    """Those near the marked one."""
    at = next((i for i, line in enumerate(lines) if line["marked"]), 0)
    return lines[max(0, at - _BEFORE) : at + _AFTER + 1]
