"""Writes ELF files of both classes: kernel images and core files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

EM_386 = 3
EM_X86_64 = 62

ET_EXEC = 2
ET_CORE = 4

PT_LOAD = 1
PT_NOTE = 4
PN_XNUM = 0xFFFF

SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_STRTAB = 3
SHT_NOTE = 7
SHT_NOBITS = 8

SHF_WRITE = 1
SHF_ALLOC = 2
SHF_EXECINSTR = 4

SHN_ABS = 0xFFF1

STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2


@dataclass(frozen=True)
class Layout:
    """The record layouts of an ELF class."""

    elf_class: int
    ehdr: struct.Struct
    phdr: struct.Struct
    shdr: struct.Struct
    sym: struct.Struct

    def pack_phdr(self, seg: Segment) -> bytes:
        """Packs a program header; the position of ``p_flags`` depends on the class."""
        if self.elf_class == 1:
            return self.phdr.pack(
                seg.type,
                seg.offset,
                seg.vaddr & 0xFFFFFFFF,
                seg.paddr,
                seg.filesz,
                seg.memsz,
                seg.flags,
                seg.align,
            )
        return self.phdr.pack(
            seg.type,
            seg.flags,
            seg.offset,
            seg.vaddr & 0xFFFFFFFFFFFFFFFF,
            seg.paddr,
            seg.filesz,
            seg.memsz,
            seg.align,
        )

    def pack_sym(self, name: int, value: int, size: int, info: int, shndx: int) -> bytes:
        """Packs a symbol."""
        if self.elf_class == 1:
            return self.sym.pack(name, value, size, info, 0, shndx)
        return self.sym.pack(name, info, 0, shndx, value, size)

    def pack_ehdr(
        self,
        type_: int,
        machine: int,
        *,
        entry: int = 0,
        phoff: int = 0,
        phnum: int = 0,
        shoff: int = 0,
        shnum: int = 0,
        shstrndx: int = 0,
    ) -> bytes:
        """Packs the ELF header."""
        ident = b"\x7fELF" + bytes([self.elf_class, 1, 1]) + bytes(9)
        return ident + self.ehdr.pack(
            type_,
            machine,
            1,
            entry,
            phoff,
            shoff,
            0,
            16 + self.ehdr.size,
            self.phdr.size if phnum else 0,
            phnum,
            self.shdr.size if shnum else 0,
            shnum,
            shstrndx,
        )


ELF32 = Layout(
    1,
    struct.Struct("<HHIIIIIHHHHHH"),
    struct.Struct("<8I"),
    struct.Struct("<10I"),
    struct.Struct("<IIIBBH"),
)
ELF64 = Layout(
    2,
    struct.Struct("<HHIQQQIHHHHHH"),
    struct.Struct("<IIQQQQQQ"),
    struct.Struct("<IIQQQQIIQQ"),
    struct.Struct("<IBBHQQ"),
)


@dataclass
class Segment:
    """A program header."""

    type: int
    offset: int
    paddr: int
    filesz: int
    memsz: int
    vaddr: int = -1
    flags: int = 7
    align: int = 0


@dataclass
class Section:
    """A section of an image; ``nobits`` is the size of a section without bytes."""

    name: str
    type: int
    address: int = 0
    data: bytes = b""
    flags: int = 0
    align: int = 1
    entsize: int = 0
    link: str = ""
    info: int = 0
    nobits: int = 0

    @property
    def size(self) -> int:
        """Size in memory."""
        return self.nobits if self.type == SHT_NOBITS else len(self.data)


@dataclass(frozen=True)
class Symbol:
    """A symbol; ``section`` is the name of its section, "" for an absolute one."""

    name: str
    address: int
    size: int = 0
    type: int = STT_OBJECT
    section: str = ""
    is_global: bool = True


class Strings:
    """A string table that contains each string once."""

    def __init__(self) -> None:
        self.data = bytearray(1)
        self.offsets = {"": 0}

    def add(self, text: str) -> int:
        """Offset of ``text``."""
        if text not in self.offsets:
            self.offsets[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self.offsets[text]


def symbol_sections(
    layout: Layout, sections: Sequence[Section], symbols: Sequence[Symbol]
) -> list[Section]:
    """``.symtab`` and ``.strtab``; locals come first, as ELF requires."""
    index = {section.name: i + 1 for i, section in enumerate(sections)}
    strings = Strings()
    records = [bytes(layout.sym.size)]
    ordered = sorted(symbols, key=lambda s: s.is_global)
    for sym in ordered:
        info = (int(sym.is_global) << 4) | sym.type
        shndx = index[sym.section] if sym.section else SHN_ABS
        records.append(layout.pack_sym(strings.add(sym.name), sym.address, sym.size, info, shndx))
    first_global = 1 + sum(not s.is_global for s in symbols)
    return [
        Section(
            ".symtab",
            SHT_SYMTAB,
            data=b"".join(records),
            align=layout.elf_class * 4,
            entsize=layout.sym.size,
            link=".strtab",
            info=first_global,
        ),
        Section(".strtab", SHT_STRTAB, data=bytes(strings.data)),
    ]


def image(
    layout: Layout,
    machine: int,
    sections: Sequence[Section],
    symbols: Sequence[Symbol] | None,
    entry: int = 0,
) -> bytes:
    """A kernel image: sections and symbols, no segments. Without symbols it is stripped."""
    every = [*sections]
    if symbols is not None:
        every += symbol_sections(layout, sections, symbols)
    names = Strings()
    for section in every:
        names.add(section.name)
    names.add(".shstrtab")
    every.append(Section(".shstrtab", SHT_STRTAB, data=bytes(names.data)))
    index = {section.name: i + 1 for i, section in enumerate(every)}
    out = bytearray(16 + layout.ehdr.size)
    headers = [bytes(layout.shdr.size)]
    for section in every:
        out += bytes(-len(out) % min(max(section.align, 1), 4096))
        headers.append(
            layout.shdr.pack(
                names.add(section.name),
                section.type,
                section.flags,
                section.address,
                len(out),
                section.size,
                index.get(section.link, 0),
                section.info,
                section.align,
                section.entsize,
            )
        )
        if section.type != SHT_NOBITS:
            out += section.data
    out += bytes(-len(out) % 8)
    shoff = len(out)
    out += b"".join(headers)
    head = layout.pack_ehdr(
        ET_EXEC,
        machine,
        entry=entry,
        shoff=shoff,
        shnum=len(headers),
        shstrndx=index[".shstrtab"],
    )
    out[: len(head)] = head
    return bytes(out)


def core_head(layout: Layout, machine: int, segments: Sequence[Segment]) -> bytes:
    """ELF header and program headers; section 0 counts these if there are too many."""
    phoff = 16 + layout.ehdr.size
    many = len(segments) >= PN_XNUM
    shoff = phoff + layout.phdr.size * len(segments) if many else 0
    head = layout.pack_ehdr(
        ET_CORE,
        machine,
        phoff=phoff,
        phnum=PN_XNUM if many else len(segments),
        shoff=shoff,
        shnum=1 if many else 0,
    )
    parts = [head, *(layout.pack_phdr(segment) for segment in segments)]
    if many:
        parts.append(layout.shdr.pack(0, 0, 0, 0, 0, 0, 0, len(segments), 0, 0))
    return b"".join(parts)
