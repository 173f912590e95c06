from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from xenkdump_fast._native import P2M, AddressSpace, Dump

from . import machine
from .machine import FRAME_LIST, PAGE, ROOT, Machine


@dataclass
class Guest:
    """The guest of machine.guest(), opened."""

    memory: Machine
    entries: list[int]
    dump: Dump
    p2m: P2M
    physical: AddressSpace
    virtual: AddressSpace

    def spaces(self) -> list[AddressSpace]:
        return [self.dump.machine, self.physical, self.virtual]


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    memory, entries = machine.guest()
    dump = Dump(memory.save(tmp_path / "vmcore"))
    p2m = P2M.frame_list(dump, FRAME_LIST, 8)
    virtual = dump.virtual(ROOT * PAGE, "x86_64")
    return Guest(memory, entries, dump, p2m, dump.physical(p2m), virtual)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Machine], Dump]:
    """Writes a machine and opens it."""
    folder = tmp_path_factory.mktemp("machines")
    number = 0

    def save(memory: Machine) -> Dump:
        nonlocal number
        number += 1
        return Dump(memory.save(folder / f"{number}"))

    return save
