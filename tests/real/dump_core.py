"""The kdump of a bare machine as ``xl dump-core`` writes the memory of an HVM guest.

See Xen's docs/misc/dump-core-format.txt. The format is written independently of the reader.
"""

import os
import struct
from pathlib import Path

from .copies import PAGE, PT_LOAD, Copy

SECTION = struct.Struct("<IIQQQQIIQQ")
SHT_PROGBITS, SHT_STRTAB, SHT_NOTE = 1, 3, 7
#: XEN_DUMPCORE_MAGIC_HVM, and sizes of vcpu_guest_context and of its members' offsets.
MAGIC_HVM = 0xF00FEBEE
CONTEXT, FLAGS, USER_REGS, CTRLREG = 5168, 512, 520, 4984
VGCF_ONLINE = 1 << 5
#: Offset of the registers in an NT_PRSTATUS note of x86_64.
PRSTATUS_REGS = 112


def note(kind: int, desc: bytes) -> bytes:
    """A note of the owner Xen."""
    return struct.pack("<III4s", 4, len(desc), kind, b"Xen") + desc


def context(prstatus: bytes, root: int) -> bytes:
    """A vCPU's vcpu_guest_context with the registers of a CPU."""
    registers = struct.unpack_from("<27Q", prstatus, PRSTATUS_REGS)
    found = bytearray(CONTEXT)
    # r15 to rdi; error code and vector; rip, cs, flags, rsp, ss.
    struct.pack_into("<15Q", found, USER_REGS, *registers[:15])
    rip, cs, flags, sp, ss = registers[16:21]
    struct.pack_into("<QQQQQQ", found, USER_REGS + 120, 0, rip, cs & 0xFFFF, flags, sp, ss & 0xFFFF)
    struct.pack_into("<Q", found, FLAGS, VGCF_ONLINE)
    struct.pack_into("<Q", found, CTRLREG + 3 * 8, root)
    return bytes(found)


def write(copy: Copy, path: Path, root: int) -> None:
    """Writes the memory and the CPUs of ``copy`` to ``path``, with this cr3."""
    pages: dict[int, int] = {}
    for segment in copy.segments:
        if segment.kind == PT_LOAD:
            first = -(-segment.address // PAGE)
            for pfn in range(first, (segment.address + segment.size) // PAGE):
                pages.setdefault(pfn, segment.offset + pfn * PAGE - segment.address)
    pfns = sorted(pages)
    notes = (
        note(0x200_0000, b"")
        + note(0x200_0001, struct.pack("<QQQQ", MAGIC_HVM, len(copy.cpus), len(pfns), PAGE))
        + note(0x200_0003, struct.pack("<Q", 1))
    )
    contexts = b"".join(context(cpu.desc, root) for cpu in copy.cpus)
    index = struct.pack(f"<{len(pfns)}Q", *pfns)
    sections: list[tuple[bytes, int, int, bytes | int]] = [
        (b".note.Xen", SHT_NOTE, 0, notes),
        (b".xen_prstatus", SHT_PROGBITS, CONTEXT, contexts),
        (b".xen_shared_info", SHT_PROGBITS, PAGE, bytes(PAGE)),
        (b".xen_pages", SHT_PROGBITS, PAGE, len(pfns) * PAGE),
        (b".xen_pfn", SHT_PROGBITS, 8, index),
    ]
    names = b"\0" + b"\0".join(name for name, *_ in sections) + b"\0.shstrtab\0"
    sections.append((b".shstrtab", SHT_STRTAB, 0, names))
    with path.open("wb") as file:
        at, headers = PAGE, bytes(SECTION.size)
        for name, kind, entry, data in sections:
            size = data if isinstance(data, int) else len(data)
            if isinstance(data, bytes):
                os.pwrite(file.fileno(), data, at)
            else:
                write_pages(copy, file.fileno(), at, [pages[pfn] for pfn in pfns])
            headers += SECTION.pack(names.index(name), kind, 0, 0, at, size, 0, 0, 8, entry)
            at = (at + size + PAGE - 1) & ~(PAGE - 1)
        header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
            "<HHIQQQIHHHHHH", 4, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, len(sections) + 1, len(sections)
        )
        os.pwrite(file.fileno(), header + headers, 0)


def write_pages(copy: Copy, file: int, at: int, offsets: list[int]) -> None:
    """Writes pages of the copy, those of zeros as holes."""
    with copy.path.open("rb") as source:
        for i, offset in enumerate(offsets):
            page = os.pread(source.fileno(), PAGE, offset)
            if page.count(0) != PAGE:
                os.pwrite(file, page, at + i * PAGE)
    os.ftruncate(file, at + len(offsets) * PAGE)
