"""Gives drgn the memory of a domain."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from drgn import FaultError, Program

from ..._native import AddressSpace, MemoryFault
from ...limits import MAX_DRGN_SEGMENTS

if TYPE_CHECKING:
    from ...session.bare import BareMachine

PAGE = 4096
#: The largest size of a segment of memory.
_ALL = (1 << 64) - 1


def attach(program: Program, machine: "BareMachine") -> None:
    """Adds segments that replace those of the core file.

    drgn's own page-table walk, which it does for user memory, reads the same memory. What drgn
    searches are the segments of physical memory: each is memory that the dump holds.
    """
    runs = machine.runs()
    if len(runs) > MAX_DRGN_SEGMENTS:
        attach_spaces(program, machine.virtual, machine.memory)
        return
    program.add_memory_segment(0, _ALL, _reader(machine.virtual), physical=False)
    read = _reader(machine.memory)
    for first, count in runs.tolist():
        program.add_memory_segment(first * PAGE, count * PAGE, read, physical=True)


def attach_spaces(program: Program, virtual: AddressSpace, physical: AddressSpace) -> None:
    """Adds a segment of each kind of address."""
    program.add_memory_segment(0, _ALL, _reader(virtual), physical=False)
    program.add_memory_segment(0, _ALL, _reader(physical), physical=True)


def _reader(space: AddressSpace) -> Callable[[int, int, int, bool], bytes]:
    read = space.read

    def reader(address: int, count: int, _offset: int, _physical: bool) -> bytes:
        try:
            return read(address, count)
        except MemoryFault as fault:
            raise FaultError(fault.reason, address) from None

    return reader
