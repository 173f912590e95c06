"""Kernel stacks: the bytes that a chain of calls leaves in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .text import Text


@dataclass(frozen=True)
class StackFrame:
    """A frame as a debugger prints it: ``sp`` is the stack pointer in that function.

    ``slot`` is the address of the return address (which crash prints in brackets), None if ``pc``
    is not from the stack.
    """

    pc: int
    sp: int
    slot: int | None
    symbol: str
    interrupted: bool = False


@dataclass
class Stack:
    """The bytes from ``low`` to ``high``, growing down from ``sp``."""

    word: int
    low: int
    high: int
    sp: int
    registers: dict[str, int] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        if not self.data:
            self.data = bytearray(self.high - self.low)

    def poke(self, address: int, value: int) -> None:
        """Writes a word."""
        at = address - self.low
        if not 0 <= at <= len(self.data) - self.word:
            raise ValueError(f"{address:#x} is not on the stack {self.low:#x}-{self.high:#x}")
        mask = (1 << 8 * self.word) - 1
        self.data[at : at + self.word] = (value & mask).to_bytes(self.word, "little")

    def push(self, value: int) -> int:
        """Pushes a word; returns its address."""
        self.sp -= self.word
        self.poke(self.sp, value)
        return self.sp

    def push_all(self, values: Sequence[int]) -> int:
        """Pushes words, the last first; returns the address of the first."""
        for value in reversed(values):
            self.push(value)
        return self.sp


def run(text: Text, stack: Stack, chain: Sequence[str], rng: random.Random) -> list[StackFrame]:
    """Calls through ``chain`` (innermost first), up to the prologue of the innermost function.

    Returns the frames of all but the innermost function, innermost first. Some locals keep the
    old content of the stack, as on a real one.
    """
    frames: list[StackFrame] = []
    enter(text, stack, chain[-1], rng)
    for callee, caller in reversed(list(pairwise(chain))):
        pc = text.site(caller, callee)
        before = stack.sp
        slot = stack.push(pc)
        frames.append(StackFrame(pc, before, slot, caller))
        enter(text, stack, callee, rng)
    return frames[::-1]


def interrupt(stack: Stack, name: str, pc: int, frame: Sequence[int]) -> StackFrame:
    """An exception at ``pc`` that pushes ``frame``, its lowest word given first."""
    before = stack.sp
    stack.push_all(frame)
    return StackFrame(pc, before, None, name, interrupted=True)


def enter(text: Text, stack: Stack, name: str, rng: random.Random) -> None:
    """Applies a function's prologue."""
    function = text.functions.get(name)
    if function is None or function.frame is None:  # a label, or assembly
        return
    frame = function.frame
    for i, reg in enumerate(frame.pushes):
        stack.push(stack.registers.get(reg, 0))
        pointer = frame.pointer and i == 0
        stack.registers[reg] = stack.sp if pointer else _value(stack, rng)
    for _ in range(frame.locals // stack.word):
        stack.sp -= stack.word
        if rng.random() < 0.6:
            stack.poke(stack.sp, _value(stack, rng))


def _value(stack: Stack, rng: random.Random) -> int:
    """A plausible register: small, a pointer into the stack, or random."""
    choice = rng.random()
    if choice < 0.4:
        return rng.randrange(0, 64)
    if choice < 0.7:
        return rng.randrange(stack.low, stack.high, stack.word)
    return rng.getrandbits(8 * stack.word - 12)
