"""Who owns frames, by frame tables of both layouts of types and states."""

import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fuzz.domain_list import BASES, MAX_PAGE, TABLE, memory_of
from tests.fuzz.inputs import PAGE
from xenkdump_fast._native import AddressSpace, MemoryFault
from xenkdump_fast.xen import frame_owners, frame_table

SIZE, OWNER, REFERENCES = 32, 24, 8
FREE, XEN, UNKNOWN = frame_owners.FREE, frame_owners.XEN, frame_owners.UNKNOWN


class Rows:
    """Virtual memory whose rows are read one by one."""

    def __init__(self, virtual: AddressSpace) -> None:
        self._virtual = virtual

    def __getattr__(self, name: str) -> Any:
        return getattr(self._virtual, name)

    def read_many(
        self, addresses: NDArray[Any], size: int, *, status: NDArray[Any]
    ) -> NDArray[np.uint8]:
        found = np.zeros((len(addresses), size), np.uint8)
        for i, address in enumerate(addresses.tolist()):
            try:
                found[i] = np.frombuffer(self._virtual.read(address, size), np.uint8)
                status[i] = 0
            except MemoryFault:
                status[i] = 1
        return found


def info(count: int, kind: int = 0, owner: int = 0) -> bytes:
    """A page_info: count_info, type_info, _domain."""
    return struct.pack("<8xQQII", count, kind, owner, 0)


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("state", [3 << 55, 3 << 58])
def test_owners(bits: int, state: int) -> None:
    def typed(level: int, count: int = 1) -> int:
        return level << (64 - bits) | count

    used = 1 << 63 | 1
    rows = [
        (info(0), XEN, False),
        (info(used, typed(4), 7), 7, True),
        (info(used, typed(1), 7), 7, True),
        (info(used, typed(1, 0), 7), 7, False),  # was one before
        (info(used, typed(7), 7), 7, False),
        (info(used, typed(3), 8), 8, True),
        (info(state, typed(1), 9), FREE, False),  # what is in the union then is no owner
        (info(state | 1 << 63), FREE, False),  # to be scrubbed
        (info(1 << 62), XEN, False),
    ]
    base = BASES[8]
    head = bytearray(PAGE)
    struct.pack_into("<Q", head, TABLE, base + 4 * PAGE)
    struct.pack_into("<Q", head, MAX_PAGE, len(rows) + 200)
    infos = b"".join(row for row, _, _ in rows).ljust(PAGE, b"\0")
    memory = memory_of(8, [bytes(head), *[bytes(PAGE)] * 3, infos])
    memory.virtual = Rows(memory.virtual)  # type: ignore[assignment]
    table = frame_table.Table.of(base + TABLE, base + MAX_PAGE, SIZE, OWNER, REFERENCES)
    # The last one is beyond the page that is mapped.
    mfns = np.array([*range(len(rows)), PAGE // SIZE], np.uint64)
    found = frame_owners.of(memory, table, mfns, np.array([1], np.uint64))
    assert found is not None
    assert found.owners.tolist() == [*(owner for _, owner, _ in rows), UNKNOWN]
    assert found.tables.tolist() == [*(is_table for _, _, is_table in rows), False]
    assert found.has_free
    assert found.has_tables
    # Without a root nothing tells how types are encoded.
    blind = frame_owners.of(memory, table, mfns, np.array([0], np.uint64))
    assert blind is not None
    assert not blind.has_tables
    assert not blind.tables.any()


def test_no_table() -> None:
    memory = memory_of(8, [bytes(PAGE)])
    nothing = np.empty(0, np.uint64)
    assert frame_owners.of(memory, None, nothing, nothing) is None
