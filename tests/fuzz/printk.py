"""printk's three buffer formats, with arbitrary memory and variables."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests import rendering
from tests.linux.fakes import FakeKernel, Memory, words
from tests.linux.test_log import TestBytes, TestRecords, TestRingbuffer
from xenkdump_fast import AbsentError, MemoryFault
from xenkdump_fast.commands.log import Log
from xenkdump_fast.linux import printk
from xenkdump_fast.linux.printk import bytes_ring, lockless_ring, record_ring
from xenkdump_fast.linux.printk.message import Lines

from .inputs import PAGE, Input, pieces

VARIABLES, BUFFER = 0x2000, 0x10000
PRB, DESCS, INFOS, TEXT = 0x3000, 0x20000, 0x30000, 0x40000
#: Modules that ``log`` imports on demand; the fuzzer imports them in advance.
LATE = (bytes_ring, record_ring, lockless_ring)
#: By the first byte of an input: the kernel's symbols, layouts, and the address of each piece.
FORMATS: tuple[tuple[Mapping[str, int], dict[str, Any], tuple[int, ...]], ...] = (
    (TestBytes.SYMBOLS, {}, (VARIABLES, BUFFER)),
    (TestRecords.SYMBOLS, TestRecords.LAYOUT, (VARIABLES, BUFFER)),
    (
        {"prb": VARIABLES},
        TestRingbuffer.LAYOUT,
        (VARIABLES, PRB, DESCS, INFOS, TEXT),
    ),
)
#: The maximum claimed ring size. Each page outside the pieces may be read once.
READS = 1 << 19


class CountingMemory(Memory):
    """Memory that counts how often it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        return super().read(address, size)


def only_small_rings() -> None:
    """Makes the package reject large rings, whose missing pages would take most of the time."""
    for module, name, limit in (
        (bytes_ring, "MAX_LOG_SIZE", 1 << 14),
        (record_ring, "MAX_LOG_SIZE", 1 << 14),
        (lockless_ring, "MAX_LOG_SIZE", 1 << 14),
        (lockless_ring, "MAX_LOG_DESCRIPTORS", 1 << 9),
    ):
        setattr(module, name, limit)


def check(data: bytes) -> None:
    """Reads the log and prints it in both formats: clean text, or one of our exceptions."""
    given = Input(data)
    symbols, layouts, places = FORMATS[given.number(1) % len(FORMATS)]
    kernel = FakeKernel(symbols, layouts)
    kernel.memory_held = 1 << 32  # the claimed ring is searched, although it is missing
    memory = kernel.__dict__["memory"] = kernel.__dict__["virtual"] = CountingMemory()
    size = 0
    for place in places:
        piece = given.piece()
        memory.write(place, piece)
        size += len(piece)
    try:
        found = printk.lines(kernel)
    except (AbsentError, MemoryFault):
        found = Lines(lambda: iter(()))
    lines = list(found)
    assert memory.reads <= READS, f"{memory.reads} reads"
    assert len(lines) <= 2 * PAGE * len(places) + size
    assert len(kernel.warnings) <= 8
    result = Log(0, found)
    shown = rendering.text(result)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    shown.encode()
    assert json.dumps(rendering.json(result)).isascii()


def seeds() -> Iterator[bytes]:
    """An intact log of each format."""
    yield b"\0" + pieces(
        [
            words(8, BUFFER, 256, 60, 60),
            b"<6>Linux version 2.6.16.13-xen\n<4>[    1.000250] two\n".ljust(256, b"\0"),
        ]
    )
    records = TestRecords()
    ring = records.record(5, b"one") + records.record(6, b"two\nlines", 3, b"SUBSYSTEM=pci")
    yield b"\1" + pieces([words(8, BUFFER, 256, 0, len(ring), 100), ring.ljust(256, b"\0")])
    newest, oldest = records.record(7, b"newest"), records.record(5, b"oldest..")
    ring = newest.ljust(64, b"x") + oldest
    yield b"\1" + pieces([words(8, BUFFER, len(ring), 64, len(newest), 100), ring])
    ringbuffer = TestRingbuffer()
    for first, last in ((0, 7), ((1 << 62) - 2, 1)):
        kernel = ringbuffer.kernel(first, last)
        for i in range(8):
            number = (first + i) % (1 << 62)
            ringbuffer.put(kernel, number, b"line %d" % i, (i * 24, i * 24 + 24))
        parts = (VARIABLES, 8), (PRB, 96), (DESCS, 8 * 24), (INFOS, 8 * 88), (TEXT, 256)
        yield b"\2" + pieces([kernel.memory.read(*part) for part in parts])
