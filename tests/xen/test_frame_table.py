"""The frames that a domain owns, compared with a simple scan of the frame table."""

import random
import struct

import pytest

from tests.fuzz.domain_list import BASES, MAX_PAGE, TABLE, memory_of
from tests.fuzz.inputs import PAGE
from xenkdump_fast.xen import frame_table

SIZE, OWNER, REFERENCES = 32, 16, 8
COUNT = PAGE // SIZE


@pytest.mark.parametrize("seed", range(20))
def test_runs_of_frames(seed: int) -> None:
    chance = random.Random(seed)
    base = BASES[8]
    owners = [chance.choice((0, 1, 2, 2, 3)) for _ in range(COUNT)]
    used = [chance.choice((0, 1, 1, 7, 1 << 26)) for _ in range(COUNT)]
    infos = b"".join(
        struct.pack("<8xQIIQ", count, owner, 0, 0)
        for owner, count in zip(owners, used, strict=True)
    )
    head = bytearray(PAGE)
    struct.pack_into("<Q", head, TABLE, base + 4 * PAGE)
    struct.pack_into("<Q", head, MAX_PAGE, COUNT)
    memory = memory_of(8, [bytes(head), *[bytes(PAGE)] * 3, infos])
    table = frame_table.Table.of(base + TABLE, base + MAX_PAGE, SIZE, OWNER, REFERENCES)
    # Two domains in one page, and one at an unmapped address. Owner 3 is not one of them.
    addresses = [base + PAGE, base + 2 * PAGE, base + 2 * PAGE + 64, base + 99 * PAGE]
    found = frame_table.frames_of(memory, table, addresses, COUNT)
    assert list(found) == addresses[:3]
    for address, runs in found.items():
        frames = [f for first, count in runs.tolist() for f in range(first, first + count)]
        own = (address - base) // PAGE
        assert frames == [i for i in range(COUNT) if owners[i] == own and used[i] & ((1 << 26) - 1)]
