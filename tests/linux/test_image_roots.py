"""Work without a vmlinux is bounded by the number of roots, whatever the dump offers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.machine import PAGE, Machine
from xenkdump_fast._native import AbsentError, AddressSpace, Dump
from xenkdump_fast.limits import MAX_IMAGE_ROOTS
from xenkdump_fast.linux.boot import image_in_memory
from xenkdump_fast.linux.boot.roots import Root


def test_roots_are_limited(tmp_path: Path) -> None:
    made = Machine()
    made.write(0x20 * PAGE, bytes(PAGE))
    dump = Dump(made.save(tmp_path / "dump"))
    tried: list[int] = []

    def space(root: int, paging: str) -> AddressSpace:
        tried.append(root)
        return dump.virtual(0x20 * PAGE, paging)  # type: ignore[arg-type]

    def roots() -> Iterator[Root]:
        number = 0
        while True:
            number += 1
            yield Root(number * PAGE, "cr3")

    with pytest.raises(AbsentError, match="no kernel was found in memory"):
        next(image_in_memory.images(space, "dump", {}, roots()))
    assert len(set(tried)) == MAX_IMAGE_ROOTS
    assert len(tried) == 5 * MAX_IMAGE_ROOTS
