"""A small assembler for i386 and x86_64, for functions that unwind like real ones.

With the instructions it records how to unwind from each address, as rows for ORC and
``.debug_frame``.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field, replace

REGISTERS_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
REGISTERS_64 = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)


@dataclass(frozen=True)
class Row:
    """How to unwind from an address on: the CFA is ``base`` + ``offset``.

    ``kind`` is ``call`` for a plain frame, ``regs`` if a pt_regs is at that address, ``iret`` for
    its last five words only, ``end`` at the end of the stack. ``saved`` has the distance of each
    saved register below the CFA.
    """

    base: str = "sp"
    offset: int = 0
    kind: str = "call"
    saved: tuple[tuple[str, int], ...] = ()


@dataclass
class Asm:
    """Code from ``address`` on."""

    word: int
    address: int
    row: Row = Row()
    code: bytearray = field(default_factory=bytearray)
    rows: list[tuple[int, Row]] = field(default_factory=list)
    sites: dict[str, int] = field(default_factory=dict)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)
    fixups: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def here(self) -> int:
        """The address of the next instruction."""
        return self.address + len(self.code)

    def state(self, row: Row) -> None:
        """Sets how to unwind from here on."""
        self.row = row
        if self.rows and self.rows[-1][0] == self.here:
            self.rows.pop()
        if not self.rows or self.rows[-1][1] != row:
            self.rows.append((self.here, row))

    def label(self, name: str, size: int = 0) -> None:
        """A symbol at this address, with a size if it is a function."""
        self.labels[name] = (self.here, size)

    def emit(self, code: bytes | str) -> None:
        """Appends bytes, given as bytes or in hexadecimal."""
        self.code += bytes.fromhex(code) if isinstance(code, str) else code

    def _reg(self, opcode: int, reg: str) -> bytes:
        if self.word == 4:
            return bytes([opcode + REGISTERS_32.index(reg)])
        n = REGISTERS_64.index(reg)
        return bytes([0x41, opcode + n - 8] if n >= 8 else [opcode + n])

    def _moved(self, by: int) -> Row:
        """The row after the stack grew by ``by`` bytes."""
        if self.row.base != "sp":
            return self.row
        return replace(self.row, offset=self.row.offset + by)

    def push(self, reg: str) -> None:
        """``push``; the register's value is saved at that depth."""
        self.emit(self._reg(0x50, reg))
        moved = self._moved(self.word)
        depth = sum(1 for _ in self.row.saved)
        at = moved.offset if moved.base == "sp" else 2 * self.word + depth * self.word
        self.state(replace(moved, saved=(*self.row.saved, (reg, at))))

    def pop(self, reg: str) -> None:
        """``pop`` of the last register pushed."""
        self.emit(self._reg(0x58, reg))
        self.state(replace(self._moved(-self.word), saved=self.row.saved[:-1]))

    def push_value(self, code: bytes | str) -> None:
        """An instruction that pushes a word, but saves no register."""
        self.emit(code)
        self.state(self._moved(self.word))

    def grow(self, size: int) -> None:
        """``sub $size, %esp``, or ``add`` for a negative size."""
        rex = b"\x48" if self.word == 8 else b""
        op = 0xEC if size > 0 else 0xC4
        n = abs(size)
        if n < 128:
            self.emit(rex + bytes([0x83, op, n]))
        else:
            self.emit(rex + bytes([0x81, op]) + struct.pack("<I", n))
        self.state(self._moved(size))

    def call(self, target: str, key: str | None = None) -> None:
        """``call target``; records the return address under ``key``, or the target."""
        self.fixups.append((len(self.code) + 1, self.here + 5, target))
        self.emit(b"\xe8\0\0\0\0")
        self.sites[key or target] = self.here

    def call_indirect(self, code: bytes | str, key: str) -> None:
        """An indirect call, given as its bytes."""
        self.emit(code)
        self.sites[key] = self.here

    def jump(self, target: str) -> None:
        """``jmp target``."""
        self.fixups.append((len(self.code) + 1, self.here + 5, target))
        self.emit(b"\xe9\0\0\0\0")

    def nops(self, size: int) -> None:
        """``size`` bytes of NOPs."""
        forms = ("90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000")
        while size:
            n = min(size, len(forms))
            self.emit(forms[n - 1])
            size -= n

    def body(self, rng: random.Random, count: int) -> None:
        """``count`` random instructions of compiled code."""
        forms = ["31c0", "85c0", "89c2", "83f801", "0fb6c0", "89d0", "83c201", "39c2", "c1e003"]
        if self.word == 8:
            forms += ["4889c7", "4885c0", "31f6", "4889d6", "4883c208", "488d4208"]
        for _ in range(count):
            self.emit(rng.choice(forms))

    def ret(self) -> None:
        """``ret``."""
        self.emit(b"\xc3")
