"""Real dumps of bare machines as translated guests: their memory moved, with page tables of Xen.

Parses and writes ELF and page tables independently of the package.
"""

import struct
from pathlib import Path

from tests.xen.patched import sparse_copy

PAGE = 4096
#: Machine frame of the root.
ROOT = 0x100
#: Flags of entries for tables, small pages and pages of 2 MiB, as Xen writes them.
FLAGS = {"npt": (0x67, 0x67, 0xE7), "ept": (0x7, 0x37, 0xB7)}


def move(source: Path, target: Path, shift: int, layout: str) -> None:
    """Copies a dump with all memory ``shift`` bytes up, and adds page tables that lead to it."""
    sparse_copy(source, target)
    with target.open("r+b") as file:
        ident = file.read(64)
        wide = ident[4] == 2
        (table,) = struct.unpack_from("<Q" if wide else "<I", ident, 32 if wide else 28)
        size, count = struct.unpack_from("<HH", ident, 54 if wide else 42)
        file.seek(table)
        headers = bytearray(file.read(size * count))
        form, first = ("<Q", 24) if wide else ("<I", 12)
        pages: set[int] = set()
        for at in range(0, len(headers), size):
            if struct.unpack_from("<I", headers, at)[0] != 1:
                continue
            (start,) = struct.unpack_from(form, headers, at + first)
            (length,) = struct.unpack_from(form, headers, at + first + (16 if wide else 8))
            pages.update(range(start // PAGE, -(-(start + length) // PAGE)))
            struct.pack_into(form, headers, at + first, start + shift)
        data = _tables(pages, shift // PAGE, FLAGS[layout])
        place = (file.seek(0, 2) + PAGE - 1) // PAGE * PAGE
        file.seek(place)
        file.write(data)
        if wide:
            fields = (1, 4, place, 0, ROOT * PAGE, len(data), len(data), 0)
            headers += struct.pack("<IIQQQQQQ", *fields)
        else:
            headers += struct.pack("<8I", 1, place, 0, ROOT * PAGE, len(data), len(data), 4, 0)
        end = file.tell()
        file.write(headers)
        file.seek(32 if wide else 28)
        file.write(struct.pack("<Q" if wide else "<I", end))
        file.seek(56 if wide else 44)
        file.write(struct.pack("<H", count + 1))


def _tables(pages: set[int], shift: int, flags: tuple[int, int, int]) -> bytes:
    """Tables that map each page to the one ``shift`` further; every other 2 MiB by a large page."""
    to_table, small, large = flags
    tables: list[list[int]] = [[0] * 512]
    known: dict[tuple[int, int], int] = {(4, 0): 0}

    def table(level: int, number: int) -> list[int]:
        found = known.get((level, number))
        if found is None:
            found = known[level, number] = len(tables)
            tables.append([0] * 512)
            table(level + 1, number >> 9)[number & 511] = (ROOT + found) * PAGE | to_table
        return tables[found]

    for page in sorted(pages):
        extent = page >> 9
        if extent % 2 and page % 512 and table(2, page >> 18)[extent & 511] & 0x80:
            continue
        if extent % 2 and page % 512 == 0 and pages.issuperset(range(page, page + 512)):
            table(2, page >> 18)[extent & 511] = (page + shift) * PAGE | large
        else:
            table(1, extent)[page & 511] = (page + shift) * PAGE | small
    return b"".join(struct.pack("<512Q", *entries) for entries in tables)
