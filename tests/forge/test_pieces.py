"""C layouts, logs, load averages."""

import struct

import pytest

from xenkdump_forge.debuginfo.cparse import parse
from xenkdump_forge.debuginfo.ctype import I386, X86_64
from xenkdump_forge.kernels.facts import Facts
from xenkdump_forge.kernels.printk import Line, records, ring

TEXT = """
typedef unsigned long long u64;
struct inner { char tag; u64 wide; };
struct outer {
    struct inner one;
    union { int number; char bytes[6]; };
    unsigned int low : 5, high : 3;
    struct outer *next, **table[4];
    void (*call)(int, char *);
};
"""


def test_layouts_of_both_abis() -> None:
    narrow, wide = parse(TEXT, I386), parse(TEXT, X86_64)
    assert [narrow.sizeof("inner"), wide.sizeof("inner")] == [12, 16]
    assert [t.offset("outer.one.wide") for t in (narrow, wide)] == [4, 8]
    assert [t.offset("outer.bytes[3]") for t in (narrow, wide)] == [15, 19]
    assert [t.offset("outer.table[2]") for t in (narrow, wide)] == [36, 56]
    assert [t.sizeof("outer") for t in (narrow, wide)] == [48, 80]
    assert [wide.member(f"outer.{name}").bit_offset for name in ("low", "high")] == [192, 197]


def test_errors_name_unknown_types() -> None:
    with pytest.raises(ValueError, match="unknown type 'frob'"):
        parse("struct a { frob b; };", X86_64)


def lines(count: int) -> list[Line]:
    return [Line(n / 10, n % 8, f"message {n} " + "x" * (n * 7 % 90)) for n in range(count)]


def test_the_ring_keeps_the_newest() -> None:
    log = ring(lines(300), 7, 12)
    assert log.kept == lines(300)[-len(log.kept) :]
    assert 10 < len(log.kept) < 128
    texts = []
    for ident in range(log.tail_id, log.head_id + 1):
        slot = ident % 128
        state, begin, end = struct.unpack_from("<QQQ", log.descs, slot * 24)
        assert state == 2 << 62 | ident
        start = 0 if begin // 4096 != end // 4096 else begin % 4096
        assert struct.unpack_from("<Q", log.data, start)[0] == ident
        seq, _, size = struct.unpack_from("<QQH", log.infos, slot * 88)
        assert seq == 300 - 1 - (log.head_id - ident)
        texts.append(log.data[start + 8 : start + 8 + size].decode())
    assert texts == [line.text for line in log.kept]


def test_records_wrap_at_an_empty_header() -> None:
    log = records(lines(200), 4096, 4)
    assert log.kept == lines(200)[-len(log.kept) :]
    at, texts = log.first_idx, []
    for _ in range(log.first_seq, log.next_seq):
        if struct.unpack_from("<H", log.data, at + 8)[0] == 0:
            at = 0
        size, text = struct.unpack_from("<HH", log.data, at + 8)
        texts.append(log.data[at + 16 : at + 16 + text].decode())
        at += size
    assert texts == [line.text for line in log.kept]
    assert at == log.next_idx


def test_load_averages_print_as_given() -> None:
    for hundredths in range(0, 400, 7):
        load = hundredths / 100
        facts = Facts("host", 0, 0, (load, load, load), 0, 250, "", 0)
        value = facts.avenrun[0]
        assert value >> 11 == hundredths // 100
        assert (value & 2047) * 100 >> 11 == hundredths % 100
