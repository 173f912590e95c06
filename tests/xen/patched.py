"""Dumps with temporary changes of some bytes of memory."""

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def sparse_copy(source: Path, target: Path) -> None:
    """Copies a file with its holes."""
    size = source.stat().st_size
    with source.open("rb") as reader, target.open("wb") as writer:
        writer.truncate(size)
        at = 0
        while at < size:
            try:
                start = os.lseek(reader.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            reader.seek(start)
            writer.seek(start)
            while start < at:
                block = reader.read(min(1 << 20, at - start))
                start += len(block)
                # Unpacked files may have zeros where holes could be.
                if block.count(0) == len(block):
                    writer.seek(start)
                else:
                    writer.write(block)


@contextmanager
def patched(vmcore: Path, changes: Mapping[int, bytes]) -> Iterator[None]:
    """Writes bytes at machine addresses of an ELF dump, and restores the old ones."""
    with vmcore.open("r+b") as file:
        header = file.read(64)
        if header[4] == 2:
            (table,) = struct.unpack_from("<Q", header, 32)
            (count,) = struct.unpack_from("<H", header, 56)
            entry, skipped = "<IIQQQQQQ", 1
        else:
            (table,) = struct.unpack_from("<I", header, 28)
            (count,) = struct.unpack_from("<H", header, 44)
            entry, skipped = "<IIIIIIII", 0
        file.seek(table)
        length = struct.calcsize(entry)
        headers = [struct.unpack(entry, file.read(length)) for _ in range(count)]

        def place(address: int) -> int:
            for kind, *rest in headers:
                # ELF64 has p_flags between p_type and p_offset.
                offset, _, start, size = rest[skipped : skipped + 4]
                if kind == 1 and start <= address < start + size:
                    return int(offset + address - start)
            raise ValueError(f"no segment holds {address:#x}")

        before = []
        for address, data in changes.items():
            file.seek(place(address))
            before.append((place(address), file.read(len(data))))
            file.seek(place(address))
            file.write(data)
    try:
        yield
    finally:
        with vmcore.open("r+b") as file:
            for offset, data in before:
                file.seek(offset)
                file.write(data)
