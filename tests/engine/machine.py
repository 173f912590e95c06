"""A machine's memory in plain Python: written as a vmcore, and walked according to the manuals.

It shares no code with the package, so that both cannot have the same error.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

PAGE = 4096
ADDRESS = 0x000F_FFFF_FFFF_F000
INVALID = 2**64 - 1


class Machine:
    """Frames by their mfn."""

    def __init__(self) -> None:
        self.frames: dict[int, bytearray] = {}

    def write(self, address: int, data: bytes) -> None:
        """Writes bytes at an address and adds frames as needed."""
        for i, byte in enumerate(data):
            mfn, offset = divmod(address + i, PAGE)
            self.frames.setdefault(mfn, bytearray(PAGE))[offset] = byte

    def words(self, mfn: int, words: Iterable[int], first: int = 0, size: int = 8) -> None:
        """Writes words to a frame, from the index ``first`` on."""
        data = b"".join(word.to_bytes(size, "little") for word in words)
        self.write(mfn * PAGE + first * size, data)

    def number(self, address: int, size: int) -> int | None:
        """A little-endian number that does not cross a page."""
        mfn, offset = divmod(address, PAGE)
        frame = self.frames.get(mfn)
        return None if frame is None else int.from_bytes(frame[offset : offset + size], "little")

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes, or None if some are missing."""
        data = bytearray()
        for at in range(address, address + size):
            frame = self.frames.get(at // PAGE)
            if frame is None:
                return None
            data.append(frame[at % PAGE])
        return bytes(data)

    def walk(self, paging: str, root: int, address: int) -> int | None:
        """The translation of a virtual address by the page tables in this memory."""
        match paging:
            case "x86":
                return self._walk_x86(root, address)
            case "x86-pae":
                levels, root, valid = [30, 21, 12], root & ~31, address < 1 << 32
            case "x86_64":
                levels, root, valid = [39, 30, 21, 12], root & ADDRESS, canonical(address, 48)
            case _:
                levels, root, valid = [48, 39, 30, 21, 12], root & ADDRESS, canonical(address, 57)
        if not valid:
            return None
        table = root
        for shift in levels:
            index = address >> shift & (3 if paging == "x86-pae" and shift == 30 else 511)
            entry = self.number(table + index * 8, 8)
            if entry is None or not entry & 1:
                return None
            large = bool(entry & 0x80) and not (paging == "x86-pae" and shift == 30)
            if shift == 12 or (large and shift in (21, 30)):
                offset = (1 << shift) - 1
                if shift > 12 and entry & offset & ~0x1FFF:
                    return None
                return entry & ADDRESS & ~offset | address & offset
            if large:
                return None
            table = entry & ADDRESS
        raise AssertionError("the walk did not end at the last level")

    def _walk_x86(self, root: int, address: int) -> int | None:
        if address >> 32:
            return None
        entry = self.number((root & ~0xFFF) + (address >> 22) * 4, 4)
        if entry is None or not entry & 1:
            return None
        if entry & 0x80:
            if entry & 1 << 21:
                return None
            return (entry >> 13 & 0xFF) << 32 | entry & 0xFFC0_0000 | address & 0x3F_FFFF
        entry = self.number((entry & ~0xFFF) + (address >> 12 & 0x3FF) * 4, 4)
        if entry is None or not entry & 1:
            return None
        return entry & ~0xFFF | address & 0xFFF

    def save(self, path: Path) -> str:
        """Writes an ELF64 vmcore with a PT_LOAD for every run of frames."""
        runs: list[list[int]] = []
        for mfn in sorted(self.frames):
            if runs and runs[-1][-1] + 1 == mfn:
                runs[-1].append(mfn)
            else:
                runs.append([mfn])
        note = struct.pack("<3I8s", 5, 0, 0, b"TEST\0\0\0")
        headers = 64 + 56 * (len(runs) + 1)
        at = (headers + len(note) + PAGE - 1) // PAGE * PAGE
        ident = b"\x7fELF\x02\x01\x01" + bytes(9)
        count = len(runs) + 1
        out = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
        out += struct.pack("<IIQQQQQQ", 4, 0, headers, 0, 0, len(note), len(note), 0)
        body = b""
        for run in runs:
            size = len(run) * PAGE
            out += struct.pack("<IIQQQQQQ", 1, 7, at + len(body), 0, run[0] * PAGE, size, size, 0)
            body += b"".join(bytes(self.frames[mfn]) for mfn in run)
        path.write_bytes((out + note).ljust(at, b"\0") + body)
        return str(path)


def canonical(address: int, width: int) -> bool:
    """Whether the address is canonical: sign-extended from its width."""
    top = address >> (width - 1)
    return top in (0, (1 << (65 - width)) - 1)


#: The addresses in the guest of :func:`guest`.
FRAME_LIST = 0x10
ROOT = 0x20
VIRTUAL = 0xFFFF_8880_0000_0000
PAGES = 1024


def guest() -> tuple[Machine, list[int]]:
    """A PV guest with 1024 pfns, mapped from VIRTUAL on: its memory and its P2M entries.

    pfn 5 is invalid, 6 foreign, 7 identity. The frames are every third mfn from 0x1000 on. Those
    of pfns 900 to 909 are not in the dump.
    """
    machine = Machine()
    entries = [0x1000 + 3 * pfn for pfn in range(PAGES)]
    entries[5:8] = [INVALID, 1 << 63 | 0x77, 1 << 62 | 7]
    machine.words(FRAME_LIST, [0x11])
    machine.words(0x11, [0x12, 0x13])
    machine.words(0x12, entries[:512])
    machine.words(0x13, entries[512:])
    machine.words(ROOT, [0x21 << 12 | 0x67], VIRTUAL >> 39 & 511)
    machine.words(0x21, [0x22 << 12 | 0x67])
    machine.words(0x22, [0x23 << 12 | 0x67, 0x24 << 12 | 0x67])
    for page, table in ((0, 0x23), (512, 0x24)):
        mapped = [e << 12 | 0x67 if e < 1 << 40 else 0 for e in entries[page : page + 512]]
        machine.words(table, mapped)
    for pfn, entry in enumerate(entries):
        if entry < 1 << 40 and not 900 <= pfn < 910:
            machine.frames[entry] = bytearray(pfn.to_bytes(4, "little") * (PAGE // 4))
    return machine, entries
