"""Oopses in the log of a kernel, and register dumps in the console of Xen."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..parsing import number

#: Lines in front of the program counter that may have the title, and behind it with registers.
_BEFORE, _BEHIND = 40, 24
#: The most lines between those that say what happened.
_GAP = 12
#: The first line of an oops.
_TITLE = (
    r"BUG: |Oops|[Gg]eneral protection|kernel BUG at|Unable to handle kernel|divide error|"
    r"invalid opcode|double fault|stack segment|LOCKUP|soft lockup|detected stall|"
    r"\[Hardware Error\]|NMI"
)
_PC = (
    r"\b[RE]?IP:?\s*(?:is at )?(?:(?P<cs>[0-9a-f]{4}):)?(?:\[<(?P<address>[0-9a-f]{8,16})>\]\s*)?"
    r"(?:\[<[0-9a-f]+>\]\s*)?(?:(?P<name>[A-Za-z_][\w.]*)\+0x(?P<offset>[0-9a-f]+)/0x[0-9a-f]+)?"
    r"(?: \[(?P<module>\w+)\])?"
)
_REGISTER = (
    r"(?i)\b(R[A-Z0-9]{2}|R1[0-5]|E[A-Z]{2}|CR[0-9]|EFLAGS): ?(?:[0-9a-f]{4}:)?"
    r"([0-9a-f]{8,16})\b"
)
_CODE = r"\bCode: (?:Bad \w+ value\.)?\s*((?:[<(]?[0-9a-f]{2}[>)]? ?)+)"
_ERROR = r"\bOops: (?:[A-Z ]*)([0-9a-f]{4})\b"
_PANIC = r"Kernel panic - not syncing|Kernel panic: "
#: Bits of the error code of a page fault, set and clear.
_BITS = (
    ("protection violation", "page not present"),
    ("write", "read"),
    ("user mode", "kernel mode"),
    ("reserved bit set", None),
    ("instruction fetch", None),
)


class LogOops(NamedTuple):
    """What a log says of an oops."""

    title: str | None
    error: str | None
    #: The program counter: its address, or a symbol with an offset; None if it is not there.
    address: int | None
    symbol: str | None
    offset: int | None
    module: str | None
    registers: dict[str, int]
    #: The bytes of the line ``Code:`` and the index of the first one of the instruction.
    code: bytes
    code_at: int


def find(lines: Sequence[str]) -> LogOops | None:
    """The oops in kernel mode that the last panic in a log is from; the last one without a panic.

    An exception in user space is none.
    """
    end = len(lines)
    for i in range(len(lines) - 1, -1, -1):
        if re.search(_PANIC, lines[i]):
            end = i + 1
            break
    for i in range(end - 1, -1, -1):
        found = re.search(_PC, lines[i])
        if found and "IP" in lines[i] and _is_kernel(found):
            return _parse(lines, i, found)
    return None


def _is_kernel(found: "re.Match[str]") -> bool:
    if found["cs"] is not None:
        # A 32-bit PV kernel runs in ring 1.
        return int(found["cs"], 16) & 3 != 3
    return found["address"] is not None or found["name"] is not None


def _parse(lines: Sequence[str], at: int, pc: "re.Match[str]") -> LogOops:
    title = error = None
    last = at
    for i in range(at, max(-1, at - _BEFORE), -1):
        if "---[ end" in lines[i] or last - i > _GAP:
            break  # of another oops
        if re.search(_TITLE, lines[i]):
            title, last = lines[i], i
            if error is None and (found := re.search(_ERROR, lines[i])):
                error = _error(int(found[1], 16))
    block = list(_block(lines, at))
    registers: dict[str, int] = {}
    for line in block:
        for name, value in re.findall(_REGISTER, line):
            registers.setdefault(name.lower(), int(value, 16))
    code, code_at = _code(block)
    return LogOops(
        title=title,
        error=error,
        address=None if pc["address"] is None else int(pc["address"], 16),
        symbol=pc["name"],
        offset=None if pc["offset"] is None else number(pc["offset"], 16),
        module=pc["module"],
        registers=registers,
        code=code,
        code_at=code_at,
    )


def _block(lines: Sequence[str], at: int) -> Iterator[str]:
    """The lines with registers and code: from the program counter to the call trace."""
    yield lines[at]
    for line in lines[at + 1 : at + _BEHIND]:
        if (
            (re.search(_PC, line) and "IP:" in line)
            or "end trace" in line
            or re.search(_PANIC, line)
        ):
            return
        yield line


def _code(lines: Sequence[str]) -> tuple[bytes, int]:
    for line in lines:
        found = re.search(_CODE, line)
        if found:
            words = found[1].split()
            marked = [i for i, word in enumerate(words) if word[0] in "<("]
            if marked:
                return bytes(int(word.strip("<>()"), 16) for word in words), marked[0]
    return b"", 0


def _error(code: int) -> str:
    """The error code of a page fault in words."""
    words = [f"{code:#06x}"]
    for i, (is_set, clear) in enumerate(_BITS):
        text = is_set if code >> i & 1 else clear
        if text is not None:
            words.append(text)
    return ", ".join(words)


_XEN_START = r"----\[ Xen-"
_XEN_PC = r"\b[RE]IP:\s+[0-9a-f]{4}:\[<([0-9a-f]{8,16})>\]\s*(\S+)?"
_XEN_REGISTER = r"\b(r[a-z0-9]{1,2}|e[a-z]{2}|cr[0-9]):\s*([0-9a-f]{8,16})\b"
_XEN_CODE = r"Xen code around <([0-9a-f]{8,16})>"


def find_xen(lines: Sequence[str]) -> LogOops | None:
    """The last register dump of Xen's own code in its console."""
    start = max((i for i, line in enumerate(lines) if re.search(_XEN_START, line)), default=None)
    if start is None:
        return None
    block = [line.removeprefix("(XEN) ") for line in lines[start : start + 2 * _BEHIND]]
    address: int | None = None
    registers: dict[str, int] = {}
    code, at = b"", 0
    for i, line in enumerate(block):
        pc = re.search(_XEN_PC, line)
        if pc and address is None:
            address = int(pc[1], 16)
        for name, value in re.findall(_XEN_REGISTER, line):
            registers.setdefault(name, int(value, 16))
        if re.search(_XEN_CODE, line) and i + 1 < len(block):
            code, at = _code([f"Code: {block[i + 1].strip()}"])
    if address is None:
        return None
    title = next((line for line in block if "Panic" in line or "FATAL" in line), None)
    return LogOops(title, None, address, None, None, None, registers, code, at)
