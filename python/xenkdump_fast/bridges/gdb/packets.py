"""Packets of gdb's remote serial protocol in a stream of bytes.

A packet is ``$DATA#CC``, with the sum of the bytes of DATA modulo 256 in hex. Bytes that have a
meaning of their own are escaped in DATA.
"""

from collections.abc import Iterator
from enum import Enum, auto

from ...limits import MAX_GDB_PACKET

_ESCAPE = ord("}")
#: ``*`` starts a run-length encoding in what gdb receives.
_SPECIAL = frozenset(b"$#}*")


class Signal(Enum):
    """What a stream has besides intact packets."""

    #: The last packet has to be sent again.
    RESEND = auto()
    #: Ctrl-C in gdb.
    INTERRUPT = auto()
    #: A packet that is too long, or has a wrong checksum.
    DAMAGED = auto()


def framed(data: bytes) -> bytes:
    """The packet with these data, which are escaped already."""
    return b"$%b#%02x" % (data, sum(data) & 0xFF)


def escaped(data: bytes) -> bytes:
    """Binary data, escaped for a packet."""
    if not _SPECIAL.intersection(data):
        return data
    return b"".join(
        bytes((_ESCAPE, byte ^ 0x20)) if byte in _SPECIAL else bytes((byte,)) for byte in data
    )


def text(words: str) -> bytes:
    """Text as data of a packet."""
    return escaped(words.encode("utf-8", "backslashreplace"))


class Decoder:
    """Finds the packets in what is received. Data remain escaped: only writes have binary data."""

    def __init__(self) -> None:
        self._data = bytearray()
        #: Whether a packet has begun.
        self._is_open = False
        self._is_too_long = False
        #: Digits of the checksum; None within the data.
        self._checksum: bytearray | None = None

    def feed(self, received: bytes) -> Iterator[bytes | Signal]:
        """The data of each packet that is complete now, and signals between packets."""
        for byte in received:
            found = self._take(byte)
            if found is not None:
                yield found

    def _take(self, byte: int) -> bytes | Signal | None:
        if self._checksum is not None:
            self._checksum.append(byte)
            return None if len(self._checksum) < 2 else self._finish(self._checksum)
        if byte == ord("$"):  # within a packet: what has been received of it was cut off
            self._begin()
        elif not self._is_open:
            return {ord("-"): Signal.RESEND, 3: Signal.INTERRUPT}.get(byte)
        elif byte == ord("#"):
            self._checksum = bytearray()
        elif len(self._data) < MAX_GDB_PACKET:
            self._data.append(byte)
        else:
            self._is_too_long = True
        return None

    def _begin(self) -> None:
        self._data.clear()
        self._is_open, self._is_too_long = True, False

    def _finish(self, digits: bytearray) -> bytes | Signal:
        self._is_open, self._checksum = False, None
        data = bytes(self._data)
        is_intact = digits.lower() == b"%02x" % (sum(data) & 0xFF)
        return data if is_intact and not self._is_too_long else Signal.DAMAGED
