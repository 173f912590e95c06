"""Packets in a stream of bytes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenkdump_fast.bridges.gdb import packets
from xenkdump_fast.bridges.gdb.packets import Decoder, Signal
from xenkdump_fast.limits import MAX_GDB_PACKET


def test_the_documentation_s_example() -> None:
    assert packets.framed(b"m4015bc,2") == b"$m4015bc,2#5a"


@pytest.mark.parametrize(
    ("received", "found"),
    [
        (b"$g#67", [b"g"]),
        (b"+$g#67", [b"g"]),
        (b"$?#3F", [b"?"]),
        (b"$g#67$?#3f", [b"g", b"?"]),
        (b"$#00", [b""]),
        (b"-", [Signal.RESEND]),
        (b"\x03", [Signal.INTERRUPT]),
        (b"$g#68", [Signal.DAMAGED]),
        (b"$g#zz$?#3f", [Signal.DAMAGED, b"?"]),
        # The first packet was cut off.
        (b"$g$?#3f", [b"?"]),
        (b"noise#67$?#3f", [b"?"]),
        # Within a packet these bytes have no meaning.
        (packets.framed(b"a-b\x03+"), [b"a-b\x03+"]),
        (packets.framed(b"a" * MAX_GDB_PACKET), [b"a" * MAX_GDB_PACKET]),
        (packets.framed(b"a" * (MAX_GDB_PACKET + 1)) + b"$?#3f", [Signal.DAMAGED, b"?"]),
    ],
)
def test_decoding(received: bytes, found: list[bytes | Signal]) -> None:
    assert list(Decoder().feed(received)) == found
    decoder = Decoder()
    parts = [received[i : i + 1] for i in range(len(received))]
    assert [item for part in parts for item in decoder.feed(part)] == found


@given(st.binary())
def test_escaping(data: bytes) -> None:
    escaped = packets.escaped(data)
    assert re.search(rb"[$#*]", escaped) is None
    plain = re.sub(rb"\}(.)", lambda found: bytes((found[1][0] ^ 0x20,)), escaped, flags=re.S)
    assert plain == data
    (decoded,) = Decoder().feed(packets.framed(escaped))
    assert decoded == escaped


@given(st.lists(st.binary()))
def test_a_packet_after_any_bytes(parts: list[bytes]) -> None:
    decoder = Decoder()
    for part in parts:
        list(decoder.feed(part))
    # A checksum that had begun may have taken the first two bytes.
    found = [*decoder.feed(b"##00"), *decoder.feed(b"$?#3f")]
    assert found[-1] == b"?"
