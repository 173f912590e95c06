"""Files that are compressed as a whole, by gzip, bzip2, xz or zstd: what they are, their contents.

Only zstd is decompressed by the extension module; for the others Python's library is as fast.
"""

import os
from collections.abc import Callable, Iterator

from .._typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, Protocol
from ..limits import MAX_DECODER_MEMORY, MAX_XZ_INDEX
from ..regular_files import open_regular

if TYPE_CHECKING:
    import bz2
    import lzma

#: Bytes that are read, and decompressed, at once.
_CHUNK = 256 << 10
PIECE = 1 << 20
#: Bytes at the start of a file that are needed to recognise it: magic numbers have up to six.
_MAGIC = 6
#: Compressed bytes that the first bytes of the contents take: a block of bzip2 has up to 900 KB.
_HEAD = 1 << 20


class Decoder(Protocol):
    """Decompresses a stream, or several one after the other."""

    def decode(self, data: bytes, size: int) -> tuple[bytes, bytes]:
        """The unused rest of ``data``, and up to ``size`` unpacked bytes.

        If there are ``size`` bytes, a call without data may return more. At the end of a stream,
        the rest may be from the data of earlier calls.
        """

    @property
    def at_end(self) -> bool:
        """Whether what was taken so far ends with a whole stream."""


class _Gzip:
    def __init__(self) -> None:
        self._new()

    def _new(self) -> None:
        import zlib

        # The header and the trailer are gzip's: 16; the window has 2^15 bytes.
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def decode(self, data: bytes, size: int) -> tuple[bytes, bytes]:
        if self._stream.eof:
            if not data:
                return b"", b""
            self._new()
        out = self._stream.decompress(data, size)
        return self._stream.unconsumed_tail or self._stream.unused_data, out

    @property
    def at_end(self) -> bool:
        return self._stream.eof


class _Buffering:
    """bzip2 and xz: their decoders keep what they do not need yet."""

    def __init__(self, new: "Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]") -> None:
        self._new = new
        self._stream = new()

    def decode(self, data: bytes, size: int) -> tuple[bytes, bytes]:
        if self._stream.eof:
            if not data:
                return b"", b""
            self._stream = self._new()
        out = self._stream.decompress(data, size)
        return self._stream.unused_data, out

    @property
    def at_end(self) -> bool:
        return self._stream.eof


def _bzip2() -> Decoder:
    import bz2

    return _Buffering(bz2.BZ2Decompressor)


def _xz() -> Decoder:
    import lzma

    return _Buffering(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_DECODER_MEMORY))


class _Zstd:
    def __init__(self) -> None:
        from .._native import ZstdDecoder

        self._decoder = ZstdDecoder()

    def decode(self, data: bytes, size: int) -> tuple[bytes, bytes]:
        taken, out = self._decoder.decode(data, size)
        return data[taken:], out

    @property
    def at_end(self) -> bool:
        return self._decoder.at_end


class Compression(NamedTuple):
    """A kind of compression."""

    name: str
    #: The command that decompresses a file.
    command: str
    decoder: Callable[[], Decoder]


_GZIP = Compression("gzip", "gzip -dc", _Gzip)
_BZIP2 = Compression("bzip2", "bzip2 -dc", _bzip2)
_XZ = Compression("xz", "xz -dc", _xz)
#: Without the option zstd refuses files that were compressed with it.
ZSTD = Compression("zstd", "zstd -dc --long=31", _Zstd)


def by_magic(start: bytes) -> Compression | None:
    """The compression of a file by its first bytes."""
    # The third byte is the method: 8, deflate, is the only one.
    if start.startswith(b"\x1f\x8b\x08"):
        return _GZIP
    # The fourth one is the size of a block, in 100 kB.
    if start.startswith(b"BZh") and start[3:4] in b"123456789":
        return _BZIP2
    if start.startswith(b"\xfd7zXZ\0"):
        return _XZ
    # pzstd and others write a skippable frame first: 0x184d2a50 to 0x184d2a5f.
    is_skippable = start[1:4] == b"\x2a\x4d\x18" and 0x50 <= start[0] <= 0x5F
    return ZSTD if start.startswith(b"\x28\xb5\x2f\xfd") or is_skippable else None


def of_file(path: str) -> Compression | None:
    """The compression of a file; None if there is none, or if the file cannot be read."""
    try:
        with open_regular(path) as file:
            return by_magic(file.read(_MAGIC))
    except (OSError, ValueError):
        return None


def contents_head(path: str, compression: Compression, size: int) -> bytes:
    """The first bytes of the contents of a compressed file; empty if it is corrupt."""
    with open_regular(path) as file:
        data = file.read(_HEAD)
    out = b""
    decoder = compression.decoder()
    try:
        while len(out) < size:
            data, piece = decoder.decode(data, size - len(out))
            out += piece
            if not piece:
                break
    except _errors():
        pass
    return out


def _errors() -> tuple[type[Exception], ...]:
    """What the decoders raise for corrupt data."""
    import lzma
    import zlib

    # bzip2's decoder raises OSError, zstd's ValueError.
    return (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


class Stream:
    """The contents of a compressed file, in pieces; then how they ended."""

    def __init__(self, file: BinaryIO, compression: Compression) -> None:
        self._file = file
        self._compression = compression
        #: Bytes of the file that were read.
        self.consumed = 0
        #: After the last piece: all of it is there, the file ended too soon, or it is corrupt.
        self.end: Literal["whole", "cut", "damaged"] = "whole"
        #: What is wrong.
        self.problem = ""

    def __iter__(self) -> Iterator[bytes]:
        decoder = self._compression.decoder()
        errors = _errors()
        data, is_full = self._read(), False
        while True:
            if not data and not is_full:
                data = self._read()
                if not data:
                    break
            if decoder.at_end:
                data = self._next_stream(data)
                if not data:
                    continue
                if by_magic(data) is not self._compression:
                    self.end, self.problem = "damaged", "it has other data after its end"
                    return
            before = len(data)
            try:
                data, piece = decoder.decode(data, PIECE)
            except errors as error:
                self.end, self.problem = "damaged", str(error)
                return
            if before and len(data) == before and not piece and not decoder.at_end:
                self.end, self.problem = "damaged", "it cannot be decompressed any further"
                return
            is_full = len(piece) == PIECE
            if piece:
                yield piece
        if not decoder.at_end:
            self.end, self.problem = "cut", "the file ends before the end of its contents"

    def _read(self) -> bytes:
        data = self._file.read(_CHUNK)
        self.consumed += len(data)
        return data

    def _next_stream(self, data: bytes) -> bytes:
        """``data`` from the next stream on, without the zeros that tapes and xz have before it."""
        data = data.lstrip(b"\0")
        while 0 < len(data) < _MAGIC:
            more = self._read()
            if not more:
                break
            data += more
        return data


def contents_size(file: BinaryIO, compression: Compression) -> int | None:
    """How many bytes the contents have at least, as the file says; None if it does not."""
    if compression is ZSTD:
        from .._native import zstd_content_size

        return zstd_content_size(os.pread(file.fileno(), 18, 0))
    return _xz_size(file.fileno()) if compression is _XZ else None


def _xz_size(fd: int) -> int | None:
    """The size in the index of the last stream."""
    end = os.fstat(fd).st_size
    # The CRC, the size of the index in words less one, flags, and a magic number.
    footer = os.pread(fd, 12, max(end - 12, 0))
    if len(footer) < 12 or footer[10:] != b"YZ":
        return None
    size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    if size > min(end - 12, MAX_XZ_INDEX):
        return None
    index = os.pread(fd, size, end - 12 - size)
    numbers = _numbers(index[1:])
    count = next(numbers, 0)
    total = 0
    # Of each block: its size in the file, and that of its contents.
    for _ in range(min(count, len(index))):
        if next(numbers, None) is None:
            return None
        total += next(numbers, 0)
    return total if total < 1 << 63 else None


def _numbers(data: bytes) -> Iterator[int]:
    """The integers of an index of xz: seven bits in each byte, and whether another one follows."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 or shift >= 63:
            yield value
            value = shift = 0
