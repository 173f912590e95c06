"""Writes the seed corpora: small inputs made from synthetic dumps.

python rust/xenkdump/fuzz/seeds.py rust/xenkdump/fuzz/corpus
"""

import struct
import sys
import tempfile
from pathlib import Path

import xenkdump_forge
from xenkdump_fast._native import Image
from xenkdump_forge.containers import save, save_v1
from xenkdump_forge.containers import write as write_container
from xenkdump_forge.containers.compression import CODECS
from xenkdump_forge.containers.saved_domain import SavedDomain, Vcpu
from xenkdump_forge.debuginfo import kallsyms

#: The size of a dump's prefix: its headers, notes and a few pages.
HEAD = 16 << 10
#: The maximum size of a seed: fuzzing larger ones is ineffective.
MAX_SEED = 128 << 10
TEXT = 0xFFFF_FFFF_8100_0000
#: Addresses for page walks: the limits of each format's address space.
ADDRESSES = (
    0,
    0x1000,
    0x20_0000,
    2**47,
    2**64 - 1,
    0xFFFF_8000_0000_0000,
    0x8080_6040_3000,
    1 << 40,
)


def piece(data: bytes) -> bytes:
    """A piece with a length prefix, as the targets decode it."""
    data = data[:0xFFFF]
    return struct.pack("<H", len(data)) + data


def tables(present: int) -> bytes:
    """Page tables: entries lead to the table itself, to the next one, and past the end."""
    pages = []
    for number in range(5):
        entries = [0] * 512
        entries[0] = (number + 1) << 12 | present
        entries[1] = number << 12 | present
        entries[2] = 0x0000_7000 | present
        entries[3] = 0xFFFF_FFFF_F000 | present
        entries[511] = 0x20_0000 | present | 0x80
        pages.append(struct.pack("<512Q", *entries))
    return b"".join(pages)


def stack(words: list[int]) -> bytes:
    """Registers, some code, and a stack of return addresses."""
    code = bytes.fromhex("5548 89e5 e800 0000 00c9 c390 4883 ec18 e8f0 ffff ff48 83c4 18c3") * 40
    return (
        struct.pack("<3Q", 0x105, 0x40, 0x80) + piece(code) + struct.pack(f"<{len(words)}Q", *words)
    )


def note(kind: int, desc: bytes) -> bytes:
    """One of Xen's notes."""
    return struct.pack("<3I4s", 4, len(desc), kind, b"Xen\0") + desc


def sections(index: int) -> bytes:
    """A file of `xl dump-core`: notes, the frame of each page, a vCPU, shared_info, pages."""
    notes = (
        note(0x200_0000, b"")
        + note(0x200_0001, struct.pack("<4Q", 0xF00F_EBED, 1, 2, 4096))
        + note(0x200_0002, b"4.17".ljust(1256, b"\0"))
        + note(0x200_0003, struct.pack("<Q", 1))
    )
    frames = struct.pack("<2Q", 0, 1) if index else struct.pack("<4Q", 0, 0x77, 1, 0x55)
    context = bytearray(5168)
    struct.pack_into("<Q", context, 5008, 0x5000)
    parts = [notes, frames, bytes(context), bytes(64)]
    return bytes([index]) + b"".join(map(piece, parts)) + bytes(8192)


def symtab(choice: int, word: int) -> bytes:
    """A string table and its symbols."""
    names, symbols = b"\0", b""
    start = 0xFFFF_FFFF_8100_0000 if word == 8 else 0xC010_0000
    for i, name in enumerate((b"_text", b"_stext", b"f", b"f", "ü".encode(), b"\xff", b"_end")):
        value, at = start + 0x40 * i, len(names)
        if word == 8:
            symbols += struct.pack("<IBBHQQ", at, 0x12, 0, 1, value, 0x30)
        else:
            symbols += struct.pack("<IIIBBH", at, value, 0x30, 0x12, 0, 1)
        names += name + b"\0"
    if choice == 2:
        symbols = b"".join(b"%016x T %s\n" % (start + 64 * i, b"f%d" % i) for i in range(8))
    return bytes([choice]) + piece(names) + symbols


def write(corpus: Path, target: str, name: str, data: bytes) -> None:
    """One seed."""
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def synthetic(corpus: Path) -> None:
    """Seeds of the targets that read files or sections of an image."""
    with tempfile.TemporaryDirectory() as folder:
        for kind in xenkdump_forge.KINDS:
            files = xenkdump_forge.write_dump(Path(folder) / kind, kind, images=True)
            core = Path(files.vmcore).read_bytes()
            write(corpus, "dump", kind, core[:HEAD])
            write(corpus, "notes", kind, core[0x100:HEAD])
            containers(corpus, kind)
            plain = Path(files.vmlinux).read_bytes()
            if len(plain) <= MAX_SEED:
                write(corpus, "image", kind, plain)
            of_image(corpus, kind, Image(str(files.vmlinux)))
            for path in (files.directory / "images").iterdir():
                if path.suffix not in (".map", ".debug") and path.stat().st_size <= MAX_SEED:
                    write(corpus, "packed", f"{kind}-{path.name}", path.read_bytes())


def containers(corpus: Path, kind: str) -> None:
    """Seeds in other containers: headers, and the first pages."""
    parts = xenkdump_forge.build(kind)
    core = parts.core
    core.memory.frames = dict(sorted(core.memory.frames.items())[:12])
    core.touched_only = True
    core.segments = []
    with tempfile.TemporaryDirectory() as folder:
        for name in xenkdump_forge.FORMATS:
            if "-save" in name:
                continue  # all of a domain's pages: see saved_domains
            path = Path(folder) / name
            write_container(core, path, name)
            data = path.read_bytes()
            if len(data) <= MAX_SEED:
                write(corpus, "dump", f"{kind}-{name}", data)


def saved_domains(corpus: Path) -> None:
    """Save files of a domain of eleven pages, with an empty top page table."""
    frames = [*range(0x100, 0x10A), None]
    contents = [bytes([mfn & 0xFF]) * 4096 if mfn else b"" for mfn in frames]
    contents[0] = bytes(4096)
    for word in (8, 4):
        vcpus = [Vcpu(number, {"rip": TEXT, "eip": 0xC0100000}, 0x100) for number in (0, 2)]
        domain = SavedDomain(
            word, frames, lambda mfn: contents[mfn - 0x100], [0x100], vcpus, [4], bytes(4096)
        )
        for hvm in (False, True):
            newer = save.Options(hvm=hvm, checkpoints=1, batch=8)
            older = save_v1.Options(hvm=hvm, word=word)
            for name, parts in (
                ("v2", save.parts(domain, newer)),
                ("v1", save_v1.parts(domain, older)),
            ):
                write(corpus, "dump", f"save-{name}-{word}-{hvm}", b"".join(parts))


def kdump(choice: int) -> bytes:
    """Bitmaps, notes, page descriptors and data: see ``kdump`` in tests/hostile/files.rs."""
    data = b"".join(encode(bytes([i]) * 4096) for i, (_, encode) in enumerate(CODECS.values()))
    at, descriptors = 5 * 4096 + 24 * len(CODECS), b""
    for i, (flag, encode) in enumerate(CODECS.values()):
        size = len(encode(bytes([i]) * 4096))
        descriptors += struct.pack("<QIIQ", at, size, flag, 0)
        at += size
    bitmaps = piece(b"\xff" * 90) + piece(bytes(1) + b"\xe1")
    return (
        bytes([choice]) + bitmaps + piece(note(0x100_0001, bytes(80))) + piece(descriptors) + data
    )


def of_image(corpus: Path, kind: str, image: Image) -> None:
    """Seeds of the targets for types and unwinding."""
    present = {name for name, *_ in image.sections()}

    def section(name: str) -> bytes:
        return image.section(name) if name in present else b""

    words = [TEXT + 64 * i + 9 for i in range(1, 60)]
    words[3::5] = [0xFFFF_8880_0000_0100 + 8 * i for i in range(len(words[3::5]))]
    write(corpus, "stack", kind, b"\x08" + stack(words))
    if btf := section(".BTF"):
        write(corpus, "btf", kind, btf)
    if ip := section(".orc_unwind_ip"):
        rows = piece(section(".orc_unwind")[:1536])
        write(corpus, "orc", kind, b"\x08" + piece(ip[:1024]) + rows + stack(words))
    if frame := section(".debug_frame") or section(".eh_frame"):
        write(corpus, "cfi", kind, b"\x09\x00" + piece(frame[:4096]) + stack(words))
    if info := section(".debug_info"):
        parts = [section(n) for n in (".debug_abbrev", ".debug_str", ".debug_str_offsets")]
        write(corpus, "dwarf", kind, b"".join(map(piece, parts)) + info)
    if lines := section(".debug_line"):
        parts = [section(n) for n in (".debug_line_str", ".debug_abbrev", ".debug_info")]
        write(corpus, "lines", kind, b"".join(map(piece, parts)) + lines[: 64 << 10])


def line_table() -> bytes:
    """The line table of a unit of 64 bytes, in DWARF 4, with the unit and its abbreviation."""
    # DW_TAG_compile_unit with DW_AT_name, DW_AT_stmt_list, DW_AT_low_pc and DW_AT_high_pc.
    abbrev = bytes.fromhex("01 11 00 0308 1017 1101 1206 0000 00")
    entry = struct.pack("<HIBB4sIQI", 4, 0, 8, 1, b"a.c", 0, 0, 64)
    lengths = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))
    names = b"\0a.c\0\0\0\0\0"
    header = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + lengths + names
    # DW_LNE_set_address, rows by special opcodes, DW_LNS_advance_pc, DW_LNE_end_sequence.
    program = b"\0\x09\x02" + bytes(8) + bytes((0x14, 0x4C, 0x83, 0x02, 32, 0x01)) + b"\0\x01\x01"
    table = struct.pack("<HI", 4, len(header)) + header + program
    units = [struct.pack("<I", len(unit)) + unit for unit in (entry, table)]
    return b"".join(map(piece, (b"", abbrev, units[0]))) + units[1]


def made(corpus: Path) -> None:
    """Seeds that need no dump."""
    saved_domains(corpus)
    write(corpus, "lines", "one-unit", line_table())
    for index in range(2):
        write(corpus, "sections", str(index), sections(index))
    for choice in (0x18, 0x19, 0x38, 0x0C, 0x06, 0x58, 0xDC):
        write(corpus, "kdump", f"{choice:x}", kdump(choice))
    for choice in (1, 3, 4, 7, 12):
        core = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHI", 4, 62, 1)
        data = bytes([choice]) + piece(b"\x04\x10") + piece(b"") + core.ljust(3000, b"\xa5")
        write(corpus, "zstd", str(choice), data)
    for choice in range(4):
        write(corpus, "symtab", str(choice), symtab(choice, 4 if choice == 3 else 8))
    for generation in kallsyms.GENERATIONS:
        symbols = [kallsyms.Symbol(TEXT + 16 * i, "t", f"function_{i}") for i in range(300)]
        symbols.append(kallsyms.Symbol(TEXT, "R", "linux_banner"))
        table = kallsyms.table(symbols, generation, 8, TEXT + 0x40)
        write(corpus, "kallsyms", generation, b"Linux version 1 #1\n".ljust(0x40) + table.data)
    for kind in range(5):
        for choice in range(8):
            head = struct.pack("<BBQQQ", kind, choice, 0 if kind == 0 else 0x1000, 0x1000, 5000)
            pfns = struct.pack("<6Q", 0, 511, 512, 4999, 5000, 2**64 - 1)
            write(corpus, "p2m", f"{kind}-{choice}", head + pfns + tables(0x7 * (kind > 0)))
    for layout in range(4):
        head = struct.pack("<BBQQ", layout, 2, 1, 0x1000)
        pfns = struct.pack("<6Q", 0, 511, 512, 1 << 18, 1 << 35, 2**64 - 1)
        for flags in (0x7, 0x67):
            write(corpus, "nested", f"{layout}-{flags}", head + pfns + tables(flags))
    for format_ in range(4):
        # Three roots; address, element size and type offset of the frame table; an altered word.
        head = struct.pack("<BB7Q", 0, format_, 0, 0x1000, 0x2000, 0x1000, 32, 16, 0x3008)
        pairs = struct.pack("<16Q", *(pfn << 32 | pfn for pfn in range(16)))
        write(corpus, "bare", str(format_), head + pairs + tables(0x67))
    for format_ in range(4):
        head = struct.pack(f"<BQ{len(ADDRESSES)}Q", format_, 0, *ADDRESSES)
        write(corpus, "walk", str(format_), head + tables(0x67))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    synthetic(folder)
    made(folder)
