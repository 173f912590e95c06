"""Readers of kernel structs on memory with wrong words: they end, and only DumpError escapes.

The address space of an intact kernel is replaced by one that returns wrong words for a part of the
addresses: pointers to other structs, into the same one, to nowhere, and absurd counts.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast import DumpError
from xenkdump_fast.commands import irq, kmem, runq, timer, vm
from xenkdump_fast.session import Domain

pytestmark = pytest.mark.real

#: The reads of one command on an intact dump are some thousands.
_MOST_READS = 2_000_000


class Damaged:
    """An address space in which some words are wrong, always the same ones."""

    def __init__(self, space: Any, seed: int, one_in: int) -> None:
        self._space = space
        self._seed = seed
        self._one_in = one_in
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def _wrong(self, address: int, right: int, size: int) -> int:
        chance = random.Random(self._seed << 64 | address)
        if chance.randrange(self._one_in):
            return right
        return chance.choice(
            [
                0,
                right + 8,
                right ^ 1 << chance.randrange(8 * size),
                address,
                address & ~0xFFF,
                0xDEAD_0000,
                0xFFFF_FFFF_FFFF_FFFF,
                chance.getrandbits(16),
            ]
        ) & ((1 << 8 * size) - 1)

    def _damage(self, address: int, data: bytes) -> bytes:
        self.reads += 1
        assert self.reads < _MOST_READS
        found = bytearray(data)
        for at in range(-address % 8, len(data) - 7, 8):
            right = int.from_bytes(data[at : at + 8], "little")
            found[at : at + 8] = self._wrong(address + at, right, 8).to_bytes(8, "little")
        return bytes(found)

    def read(self, address: int, size: int) -> bytes:
        return self._damage(address, self._space.read(address, size))

    def word(self, address: int, size: int) -> int:
        self.reads += 1
        assert self.reads < _MOST_READS
        return self._wrong(address, self._space.word(address, size), size)

    def read_members(
        self, structs: Sequence[int], members: Sequence[tuple[int, int]]
    ) -> list[list[int | bytes | None]]:
        self.reads += len(structs)
        assert self.reads < _MOST_READS
        columns = self._space.read_members(structs, members)
        for (offset, size), column in zip(members, columns, strict=True):
            for i, (at, value) in enumerate(zip(structs, column, strict=True)):
                if isinstance(value, int):
                    column[i] = self._wrong(at + offset, value, size)
        found: list[list[int | bytes | None]] = columns
        return found


COMMANDS: dict[str, Callable[[Domain], Any]] = {
    "vm": lambda domain: vm.run(domain, vm.Options(all=True)),
    "runq": runq.run,
    "runq -t": lambda domain: runq.run(domain, runq.Options(timestamps=True)),
    "irq": irq.run,
    "irq -s": lambda domain: irq.run(domain, irq.Options(counts=True)),
    "irq -a": lambda domain: irq.run(domain, irq.Options(affinity=True)),
    "irq -b": lambda domain: irq.run(domain, irq.Options(softirqs=True)),
    "timer": timer.run,
    "timer -r": lambda domain: timer.run(domain, timer.Options(high_resolution=True)),
    "kmem -i": lambda domain: kmem.run(domain, kmem.Options(info=True)),
}


@pytest.mark.parametrize("one_in", [4, 40, 400])
@pytest.mark.parametrize("name", ["bare-x86_64", "linux73-bare"])
def test_wrong_words(name: str, one_in: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(0)
    kernel = domain.kernel
    _ = kernel.unwinder
    for command in COMMANDS.values():  # what is cached is read from intact memory
        list(command(domain).text())
    intact, printed = kernel.virtual, 0
    for seed in range(6):
        for command in COMMANDS.values():
            kernel.virtual = Damaged(intact, seed, one_in)  # type: ignore[assignment]
            try:
                result = command(domain)
                printed += len(list(result.text()))
                result.json()
            except DumpError:
                pass
            finally:
                kernel.virtual = intact
    assert printed
