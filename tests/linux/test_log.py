"""The three formats of printk's ring buffer, with synthetic logs."""

import struct
import tracemalloc
from collections.abc import Callable, Iterable
from typing import ClassVar

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.commands.log import Log
from xenkdump_fast.linux import panic, printk
from xenkdump_fast.linux.printk.message import LogLine
from xenkdump_fast.output.document import document

from .fakes import FakeKernel, FakeMember, FakeTypes, words

BUFFER = 0x10000
VARIABLES = 0x2000


def read(kernel: FakeKernel) -> list[LogLine]:
    return list(printk.lines(kernel))


def test_no_log() -> None:
    with pytest.raises(AbsentError, match="no symbol prb or log_first_idx or log_buf"):
        read(FakeKernel({}))


class TestBytes:
    SYMBOLS: ClassVar = {
        "log_buf": VARIABLES,
        "log_buf_len": VARIABLES + 8,
        "log_end": VARIABLES + 16,
        "logged_chars": VARIABLES + 24,
    }

    def kernel(self, text: bytes, size: int, end: int | None = None) -> FakeKernel:
        """A kernel that printed ``text``, which ends at position ``end``."""
        kernel = FakeKernel(self.SYMBOLS)
        end = len(text) if end is None else end
        ring = bytearray(size)
        for i, byte in enumerate(text, end - len(text)):
            ring[i % size] = byte
        kernel.memory.write(BUFFER, bytes(ring))
        kernel.memory.write(
            VARIABLES, words(8, BUFFER, size, end & 0xFFFF_FFFF, min(len(text), size))
        )
        return kernel

    def test_levels_and_times(self) -> None:
        kernel = self.kernel(
            b"<6>Linux version 2.6.16.13-xen\n<4>[    1.000250] two\n<30>facility\n no prefix\n",
            4096,
        )
        assert [(line.time, line.level, line.text) for line in read(kernel)] == [
            (None, 6, "Linux version 2.6.16.13-xen"),
            (1_000_250_000, 4, "two"),
            (None, 6, "facility"),
            (None, None, " no prefix"),
        ]

    def test_a_line_may_start_with_a_digit(self) -> None:
        assert read(self.kernel(b"<6>1 cpu\n7 of them\n", 4096))[1].text == "7 of them"

    def test_wrapped(self) -> None:
        text = b"".join(b"<6>line %03d\n" % i for i in range(30))
        lines = read(self.kernel(text[-64:], 64, end=len(text)))
        assert lines[-1].text == "line 029"
        assert lines[0].text == text[-64:].split(b"\n")[0].decode()

    def test_log_end_wrapped_at_32_bits(self) -> None:
        text = b"<6>before\n<6>after\n".rjust(64, b"x")
        lines = read(self.kernel(text, 64, end=(1 << 32) + 10))
        assert [line.text for line in lines[1:]] == ["after"]

    def test_bytes_that_are_not_text(self) -> None:
        assert read(self.kernel(b"<6>\xff\x1b[2J\n", 4096))[0].text == "\\xff\x1b[2J"

    def test_a_size_out_of_bounds(self) -> None:
        kernel = self.kernel(b"", 64)
        kernel.memory.number(VARIABLES + 8, 0xFFFF_FFFF, 4)
        with pytest.raises(AbsentError, match="log_buf_len"):
            read(kernel)

    def test_a_ring_larger_than_the_dump(self) -> None:
        kernel = self.kernel(b"<6>line\n", 4096)
        kernel.memory_held = 4096
        assert len(read(kernel)) == 1
        kernel.memory_held = 4095
        with pytest.raises(AbsentError, match="more than the dump can hold"):
            read(kernel)

    def test_a_truncated_dump_smaller_than_the_ring(self) -> None:
        kernel = self.kernel(b"<6>line\n", 8)
        kernel.memory.number(VARIABLES + 8, 1 << 20, 4)
        kernel.memory_held = 1 << 16
        assert [line.text for line in read(kernel)] == ["line"]
        assert any("not in the dump" in text for text in kernel.warnings)

    def test_nothing_but_line_feeds(self) -> None:
        """A list of all messages took 150 times the size of the log, and more as JSON."""
        size = 1 << 16
        kernel = self.kernel(b"\n" * size, size)
        found = Log(0, printk.lines(kernel))
        consumers: tuple[Callable[[], Iterable[object]], ...] = (
            found.text,
            lambda: document("log", None, found.json(), list),
            lambda: panic.message(kernel) or (),
        )
        for consumer in consumers:
            tracemalloc.start()
            for _ in consumer():
                pass
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 12 * size
        assert len(read(kernel)) == size

    def test_empty(self) -> None:
        assert read(self.kernel(b"", 64)) == []


class TestRecords:
    SYMBOLS: ClassVar = {
        "log_buf": VARIABLES,
        "log_buf_len": VARIABLES + 8,
        "log_first_idx": VARIABLES + 16,
        "log_next_idx": VARIABLES + 24,
        "log_first_seq": VARIABLES + 32,
    }
    LAYOUT: ClassVar[dict[str, int | FakeMember]] = {
        "printk_log": 16,
        "printk_log.ts_nsec": FakeMember(0, 8),
        "printk_log.len": FakeMember(8, 2),
        "printk_log.text_len": FakeMember(10, 2),
        "printk_log.dict_len": FakeMember(12, 2),
        "printk_log.facility": FakeMember(14, 1),
        "printk_log.flags": FakeMember(15, 1, 0, 5),
        "printk_log.level": FakeMember(15, 1, 5, 3),
    }

    def record(self, time: int, text: bytes, level: int = 6, extra: bytes = b"") -> bytes:
        length = (16 + len(text) + len(extra) + 3) & ~3
        head = struct.pack("<QHHHBB", time, length, len(text), len(extra), 0, level << 5 | 2)
        return (head + text + extra).ljust(length, b"\0")

    def test_records_without_a_level(self) -> None:
        ring = self.record(7, b"hello")
        kernel = self.kernel(ring, 0, len(ring))
        layout = {path: at for path, at in self.LAYOUT.items() if path != "printk_log.level"}
        kernel.__dict__["types"] = FakeTypes(layout)
        assert [(line.level, line.text) for line in read(kernel)] == [(None, "hello")]
        assert kernel.warnings == [
            "the levels of messages are not known: struct printk_log has none"
        ]

    def kernel(self, ring: bytes, first: int, end: int, size: int = 4096) -> FakeKernel:
        kernel = FakeKernel(self.SYMBOLS, self.LAYOUT)
        kernel.memory.write(BUFFER, ring.ljust(size, b"\0"))
        kernel.memory.write(VARIABLES, words(8, BUFFER, size, first, end, 100))
        return kernel

    def test_records(self) -> None:
        ring = self.record(5, b"one") + self.record(6, b"two\nlines", 3, b"SUBSYSTEM=pci")
        lines = read(self.kernel(ring, 0, len(ring)))
        assert [(line.sequence, line.time, line.level, line.text) for line in lines] == [
            (100, 5, 6, "one"),
            (101, 6, 3, "two\nlines"),
        ]

    def test_wrapped(self) -> None:
        newest, oldest = self.record(7, b"newest"), self.record(5, b"oldest")
        ring = newest.ljust(64, b"x") + oldest + bytes(64)
        lines = read(self.kernel(ring, 64, len(newest), size=256))
        assert [line.text for line in lines] == ["oldest", "newest"]

    def test_a_ring_larger_than_the_dump(self) -> None:
        kernel = self.kernel(b"", 64, 64)
        assert read(kernel) == []
        kernel.memory_held = 4095
        with pytest.raises(AbsentError, match="more than the dump can hold"):
            read(kernel)

    def test_wrapped_without_space_for_a_mark(self) -> None:
        newest, oldest = self.record(7, b"newest"), self.record(5, b"oldest..")
        ring = newest.ljust(64, b"x") + oldest
        lines = read(self.kernel(ring, 64, len(newest), size=len(ring)))
        assert [line.text for line in lines] == ["oldest..", "newest"]

    @pytest.mark.parametrize("length", [0, 1, 15, 5000, 0xFFFF])
    def test_a_damaged_record_ends_the_log(self, length: int) -> None:
        good, bad = self.record(5, b"good"), bytearray(self.record(6, b"bad"))
        bad[8:10] = length.to_bytes(2, "little")
        kernel = self.kernel(good + bytes(bad), 0, len(good) + len(bad))
        assert [line.text for line in read(kernel)] == ["good"]
        assert len(kernel.warnings) == 1

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize(
        "wrong",
        [
            {"printk_log": 0},  # records of size 0 were read without end
            {"printk_log": 15},
            {"printk_log": -16},
            {"printk_log.len": FakeMember(15, 2)},
            {"printk_log.ts_nsec": FakeMember(-1, 8)},
        ],
    )
    def test_an_invalid_layout(self, wrong: dict[str, int | FakeMember]) -> None:
        ring = self.record(5, b"one") + bytes(16)
        kernel = self.kernel(ring, 0, len(ring))
        kernel.__dict__["types"] = FakeTypes(self.LAYOUT | wrong)
        with pytest.raises(AbsentError, match="struct printk_log"):
            read(kernel)

    def test_a_ring_of_zeros_that_claims_to_wrap(self) -> None:
        kernel = self.kernel(b"", 64, 32)
        assert read(kernel) == []
        assert len(kernel.warnings) == 1

    def test_a_missing_page(self) -> None:
        record = self.record(5, b"text")
        ring = record * (8192 // len(record))
        kernel = self.kernel(ring, 0, len(ring), size=len(ring))
        kernel.memory.drop(BUFFER + 4096)
        assert len(read(kernel)) == 4096 // len(record) + (4096 % len(record) > 0)
        assert "not in the dump" in kernel.warnings[0]


class TestRingbuffer:
    PRB = 0x3000
    DESCS, INFOS, TEXT = 0x20000, 0x30000, 0x40000
    LAYOUT: ClassVar[dict[str, int | FakeMember]] = {
        "printk_ringbuffer.desc_ring": 0,
        "printk_ringbuffer.text_data_ring": 48,
        "prb_desc_ring.count_bits": 0,
        "prb_desc_ring.descs": 8,
        "prb_desc_ring.infos": 16,
        "prb_desc_ring.head_id": 24,
        "prb_desc_ring.tail_id": 32,
        "prb_desc": 24,
        "prb_desc.state_var": 0,
        "prb_desc.text_blk_lpos": 8,
        "prb_data_blk_lpos.begin": 0,
        "prb_data_blk_lpos.next": 8,
        "printk_info": 88,
        "printk_info.seq": 0,
        "printk_info.ts_nsec": 8,
        "printk_info.text_len": 16,
        "printk_info.level": FakeMember(19, 1, bit_offset=5, bit_size=3),
        "printk_info.caller_id": 20,
        "prb_data_ring.size_bits": 0,
        "prb_data_ring.data": 8,
        "atomic_long_t.counter": 0,
    }
    FINALIZED, COMMITTED, RESERVED, REUSABLE = 2, 1, 0, 3
    SIZE = 256

    def kernel(self, first: int = 0, last: int = 7) -> FakeKernel:
        """An empty ring of 8 descriptors and 256 bytes of text."""
        kernel = FakeKernel({"prb": VARIABLES}, self.LAYOUT)
        memory = kernel.memory
        memory.number(VARIABLES, self.PRB, 8)
        memory.write(self.PRB, words(8, 3, self.DESCS, self.INFOS, last, first, 0))
        memory.write(self.PRB + 48, words(8, 8, self.TEXT, 0, 0))
        memory.write(self.DESCS, bytes(8 * 24))
        memory.write(self.INFOS, bytes(8 * 88))
        memory.write(self.TEXT, bytes(self.SIZE))
        return kernel

    def put(
        self, kernel: FakeKernel, number: int, text: bytes, lpos: tuple[int, int], state: int = 2
    ) -> None:
        slot = number % 8
        begin, end = lpos
        kernel.memory.write(self.DESCS + slot * 24, words(8, state << 62 | number, begin, end))
        info = struct.pack(
            "<QQHBBI", number % 1000 + 1000, number % 1000 * 7, len(text), 0, 5 << 5, 0x8000_0001
        )
        kernel.memory.write(self.INFOS + slot * 88, info)
        at = begin % self.SIZE if begin // self.SIZE == (end - 1) // self.SIZE else 0
        if begin != end:
            kernel.memory.write(self.TEXT + at, words(8, number) + text)

    def test_a_line(self) -> None:
        kernel = self.kernel(0, 0)
        self.put(kernel, 0, b"hello", (0, 16))
        assert read(kernel) == [LogLine(1000, 0, "C1", 5, "hello")]

    def test_unfinished_records_are_skipped(self) -> None:
        kernel = self.kernel(0, 3)
        states = (self.FINALIZED, self.COMMITTED, self.RESERVED, self.REUSABLE)
        for number, state in enumerate(states):
            self.put(kernel, number, b"%d" % number, (number * 16, number * 16 + 16), state)
        assert [line.text for line in read(kernel)] == ["0", "1"]

    def test_ids_and_text_wrap(self) -> None:
        last = (1 << 62) - 1
        kernel = self.kernel(last - 1, 0)
        self.put(kernel, last - 1, b"before", (0x1F0, 0x210))  # starts at 0
        self.put(kernel, last, b"last", (0x210, 0x220))
        self.put(kernel, 0, b"first", (0x220, 0x230))
        assert [line.text for line in read(kernel)] == ["before", "last", "first"]

    def test_a_block_that_ends_with_the_ring(self) -> None:
        kernel = self.kernel(0, 0)
        self.put(kernel, 0, b"to the end", (0xE0, 0x100))
        assert read(kernel)[0].text == "to the end"

    def test_lines_without_text(self) -> None:
        kernel = self.kernel(0, 1)
        self.put(kernel, 0, b"", (3, 3))
        self.put(kernel, 1, b"failed", (1, 1))
        assert [(line.text, line.lost) for line in read(kernel)] == [("", False), ("", True)]

    def test_a_length_beyond_its_block(self) -> None:
        kernel = self.kernel(0, 0)
        self.put(kernel, 0, b"truncated", (0, 12))
        assert read(kernel)[0].text == "trun"

    def test_all_records_are_read_if_the_head_is_damaged(self) -> None:
        kernel = self.kernel(0, 0x1234_5678)
        for number in range(8):
            self.put(kernel, number, b"%d" % number, (number * 16, number * 16 + 16))
        assert [line.text for line in read(kernel)] == list("01234567")
        assert len(kernel.warnings) == 1

    @pytest.mark.parametrize("at", [0, 48])
    def test_sizes_out_of_bounds(self, at: int) -> None:
        kernel = self.kernel()
        kernel.memory.number(self.PRB + at, 63, 4)
        with pytest.raises(AbsentError, match="overwritten"):
            read(kernel)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"prb_desc": 0},  # a ZeroDivisionError if pages of the ring were missing
            {"prb_desc": -24},
            {"prb_desc": 1 << 20},
            {"printk_info": 1 << 45},
            {"prb_desc.state_var": 24},
            {"printk_info.text_len": -8},
            {"printk_info.caller_id": 85},
        ],
    )
    def test_an_invalid_layout(self, wrong: dict[str, int | FakeMember]) -> None:
        kernel = self.kernel()
        kernel.__dict__["types"] = FakeTypes(self.LAYOUT | wrong)
        with pytest.raises(AbsentError, match="invalid layout of printk_info"):
            read(kernel)

    def test_a_ring_larger_than_the_dump(self) -> None:
        kernel = self.kernel()
        kernel.memory_held = 1 << 16
        assert read(kernel) == []
        kernel.memory_held = 100
        with pytest.raises(AbsentError, match="more than the dump can hold"):
            read(kernel)

    def test_records_that_share_a_text(self) -> None:
        """Records of 24 bytes may all refer to the same 64 KiB of text."""
        kernel = self.kernel()
        for number in range(8):
            self.put(kernel, number, b"x" * 100, (0, 112))
        lines = read(kernel)
        assert [(len(line.text), line.lost) for line in lines] == [(100, False)] * 2 + [
            (0, True)
        ] * 6
        assert kernel.warnings == [
            "the kernel's log does not have a known format: of 8 records, 8 are finished, and 7 of "
            "those are inconsistent; messages may be wrong or missing",
            "messages of the kernel's log overlap: text of later ones is lost",
        ]

    @pytest.mark.parametrize(
        ("change", "state", "complaint"),
        [
            ({}, 2, None),
            # States with other numbers; members that moved although their names are the same.
            ({}, 3, "8 records, 0 are finished"),
            ({"printk_info.seq": 8, "printk_info.ts_nsec": 0}, 2, "6 of those are inconsistent"),
            ({"prb_data_blk_lpos.begin": 8, "prb_data_blk_lpos.next": 0}, 2, "inconsistent"),
        ],
    )
    def test_a_later_format(
        self, change: dict[str, int | FakeMember], state: int, complaint: str | None
    ) -> None:
        kernel = self.kernel(0, 7)
        for number in range(8):
            self.put(kernel, number, b"%d" % number, (number * 16, number * 16 + 16), state)
        kernel.__dict__["types"] = FakeTypes(self.LAYOUT | change)
        read(kernel)
        assert len(kernel.warnings) == (complaint is not None)
        assert complaint is None or complaint in kernel.warnings[0]

    def test_a_level_that_moved(self) -> None:
        kernel = self.kernel(0, 0)
        self.put(kernel, 0, b"hello", (0, 16))
        level = FakeMember(16, 2, bit_offset=12, bit_size=3)
        kernel.__dict__["types"] = FakeTypes(self.LAYOUT | {"printk_info.level": level})
        kernel.memory.number(self.INFOS + 16, 5 | 6 << 12, 2)
        kernel.memory.number(self.INFOS + 18, 0, 2)
        kernel.__dict__["types"].layouts["printk_info.text_len"] = 40
        kernel.memory.number(self.INFOS + 40, 5, 2)
        assert [line.level for line in read(kernel)] == [6]
        del kernel.__dict__["types"].layouts["printk_info.level"]
        kernel._members.clear()
        assert [line.level for line in read(kernel)] == [None]
        assert kernel.warnings == ["the levels of messages are not known: printk_info has none"]

    def test_missing_text(self) -> None:
        kernel = self.kernel(0, 0)
        self.put(kernel, 0, b"gone", (0, 16))
        kernel.memory.drop(self.TEXT)
        (line,) = read(kernel)
        assert (line.text, line.lost) == ("", True)
        assert len(kernel.warnings) == 1
