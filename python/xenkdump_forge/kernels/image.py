"""The image of a kernel: its text, the addresses of its variables, its vmlinux file."""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..code import text
from ..code.asm import Row
from ..debuginfo import btf, cfi, dwarf, kallsyms, orc
from ..debuginfo.cparse import Types, Variable
from ..elf import format as elf
from ..elf import notes
from ..errors import SyntheticDumpError
from ..memory.machine import PAGE


@dataclass
class Spec:
    """Everything that defines an image: plain data, except for the handwritten functions."""

    release: str
    version: str
    banner: str
    types: Types
    layout: elf.Layout
    machine: int
    recipe: text.Recipe
    #: Virtual addresses of the sections. ``percpu`` is 0 if per-cpu symbols are offsets.
    rodata: int
    data: int
    percpu: int
    bss: int
    #: The start of the mapping of the kernel's image, and of the direct map.
    map_base: int
    page_offset: int
    aliases: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, int] = field(default_factory=dict)
    #: The version of DWARF, 0 for none; and whether there is a ``.debug_frame``.
    dwarf: int = 0
    debug_frame: bool = False
    has_btf: bool = False
    build_id: bool = False
    #: Addresses of functions in ``.init.text``, which is freed. They are behind all others.
    init_text: Mapping[str, int] = field(default_factory=dict)
    #: The generation of the table of symbols in memory; None for a kernel without one.
    kallsyms: str | None = None


@dataclass
class Placed:
    """A variable with its address."""

    variable: Variable
    address: int
    section: str

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.variable.type.size


class Image:
    """A kernel's image, to be loaded by a domain or written as a vmlinux."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.types = spec.types
        self.text = text.assemble(spec.recipe)
        self.variables: dict[str, Placed] = {}
        self.ends = {
            ".rodata": spec.rodata,
            ".data": spec.data,
            ".data..percpu": spec.percpu,
            ".bss": spec.bss,
        }
        self.starts = dict(self.ends)
        for variable in spec.types.variables:
            self._place(variable)
        # Variables at given addresses may be after the others.
        for placed in self.variables.values():
            if placed.section in self.ends:
                end = placed.address + placed.size
                self.ends[placed.section] = max(self.ends[placed.section], end)
        self.rodata = bytearray(self.ends[".rodata"] - spec.rodata)
        if "linux_banner" in self.variables:
            at = self.variables["linux_banner"].address - spec.rodata
            raw = spec.banner.encode() + b"\0"
            self.rodata[at : at + len(raw)] = raw
        self.build_id = hashlib.sha1(spec.banner.encode() + self.text.code).digest()
        self.extra: list[elf.Section] = []
        self.marks: dict[str, int] = {}
        #: The address and the bytes of the table of symbols in memory.
        self._kallsyms: tuple[int, bytes] | None = None
        self._tables()
        self.symbols = self._symbols()
        if spec.kallsyms is not None:
            self._add_kallsyms(spec.kallsyms)
        in_text = [s for s in self.symbols if s.section == ".text" and not s.name.startswith("_t")]
        marks = ("_stext", "_etext", "_sinittext", "_einittext")
        in_text = [s for s in in_text if s.name not in marks]
        self._text_addresses = [s.address for s in in_text]
        self._text_names = [s.name for s in in_text]
        self._by_name = {symbol.name: symbol.address for symbol in self.symbols}

    def _place(self, variable: Variable) -> None:
        section = ".bss"
        for mark, name in (
            ("__rodata", ".rodata"),
            ("__data", ".data"),
            ("__percpu", ".data..percpu"),
        ):
            if mark in variable.marks:
                section = name
        align = max(variable.type.align, variable.marks.get("__aligned", 1), 8)
        at = self.spec.addresses.get(variable.name)
        if at is None:
            at = -(-self.ends[section] // align) * align
            size = variable.type.size
            for name, fixed in self.spec.addresses.items():
                taken = self._size_of(name)
                if fixed < at + size and at < fixed + taken:
                    at = -(-(fixed + taken) // align) * align
            self.ends[section] = at + size
        self.variables[variable.name] = Placed(variable, at, section)

    def _size_of(self, name: str) -> int:
        return next((v.type.size for v in self.types.variables if v.name == name), 0)

    def _tables(self) -> None:
        """Adds the notes, BTF and ORC, which follow the read-only data in memory."""
        spec = self.spec
        at = -(-self.ends[".rodata"] // 64) * 64

        def add(name: str, type_: int, data: bytes, start: str, stop: str) -> None:
            nonlocal at
            self.extra.append(elf.Section(name, type_, at, data, elf.SHF_ALLOC, 4))
            self.marks[start], self.marks[stop] = at, at + len(data)
            at = -(-(at + len(data)) // 8) * 8

        if spec.build_id:
            raw = notes.Note("Linux", 0x101, b"\0\0\0\0").pack()
            raw += notes.Note("GNU", notes.NT_GNU_BUILD_ID, self.build_id).pack()
            add(".notes", elf.SHT_NOTE, raw, "__start_notes", "__stop_notes")
        if spec.has_btf:
            data = btf.section(self.types)
            add(".BTF", elf.SHT_PROGBITS, data, "__start_BTF", "__stop_BTF")
            rows = [row for f in self.text.functions.values() for row in f.rows]
            rows.append((self.text.base + len(self.text.code), Row(kind="none")))
            ips, entries = orc.tables(rows, at)
            names = ("__start_orc_unwind_ip", "__stop_orc_unwind_ip")
            add(".orc_unwind_ip", elf.SHT_PROGBITS, ips, *names)
            names = ("__start_orc_unwind", "__stop_orc_unwind")
            add(".orc_unwind", elf.SHT_PROGBITS, entries, *names)
        self.ends[".rodata"] = at
        self.rodata = self.rodata.ljust(at - spec.rodata, b"\0")
        for section in self.extra:
            offset = section.address - spec.rodata
            self.rodata[offset : offset + len(section.data)] = section.data

    def _add_kallsyms(self, generation: str) -> None:
        """Adds the table of symbols behind the other read-only data, where the vmlinux has none."""
        at = -(-self.ends[".rodata"] // 64) * 64
        symbols = [kallsyms.Symbol(*symbol) for symbol in self._lettered()]
        word = self.types.abi.word
        table = kallsyms.table(symbols, generation, word, at, absolute_percpu=word == 8)
        self._kallsyms = at, table.data
        self.ends[".rodata"] = at + len(table.data)
        if self.spec.rodata < self.spec.data < self.ends[".rodata"]:
            raise SyntheticDumpError("the read-only data overlaps the data")
        self.rodata = self.rodata.ljust(at - self.spec.rodata, b"\0") + table.data

    def _lettered(self) -> list[tuple[int, str, str]]:
        """The address, the letter of nm and the name of each symbol."""
        letters = {".text": "t", ".rodata": "r", ".data": "d", ".bss": "b", ".data..percpu": "d"}
        lettered = []
        for symbol in self.symbols:
            percpu = symbol.section == ".data..percpu" and self.spec.percpu == 0
            letter = "A" if percpu else letters[symbol.section]
            letter = letter.upper() if symbol.is_global else letter
            lettered.append((symbol.address, letter, symbol.name))
        return lettered

    def _symbols(self) -> list[elf.Symbol]:
        out = [
            elf.Symbol(f.name, f.address, f.size, elf.STT_FUNC, ".text", f.is_global)
            for f in self.text.functions.values()
        ]
        for name, (at, size) in self.text.labels.items():
            kind = elf.STT_FUNC if size else elf.STT_NOTYPE
            if not name.startswith("."):  # local to the assembler
                out.append(elf.Symbol(name, at, size, kind, ".text"))
        for name, p in self.variables.items():
            local = "__local" not in p.variable.marks
            out.append(elf.Symbol(name, p.address, p.size, elf.STT_OBJECT, p.section, local))
        for alias, name in self.spec.aliases.items():
            p = self.variables[name]
            out.append(elf.Symbol(alias, p.address, p.size, elf.STT_OBJECT, p.section))
        starts, ends = self.starts, self.ends
        etext = self.init_start
        for name, at, section in (
            ("_text", self.text.base, ".text"),
            ("_stext", self.text.base, ".text"),
            ("_etext", etext, ".text"),
            ("_sinittext", etext, ".text"),
            ("_einittext", self.text.base + len(self.text.code), ".text"),
            ("_sdata", starts[".data"], ".data"),
            ("_edata", ends[".data"], ".data"),
            ("__per_cpu_start", starts[".data..percpu"], ".data..percpu"),
            ("__per_cpu_end", ends[".data..percpu"], ".data..percpu"),
            ("__bss_start", starts[".bss"], ".bss"),
            ("__bss_stop", ends[".bss"], ".bss"),
            ("_end", -(-ends[".bss"] // PAGE) * PAGE, ".bss"),
        ):
            out.append(elf.Symbol(name, at, 0, elf.STT_NOTYPE, section))
        out += [
            elf.Symbol(name, at, 0, elf.STT_NOTYPE, ".rodata") for name, at in self.marks.items()
        ]
        return sorted(out, key=lambda s: (s.address, s.name))

    def symbol(self, name: str) -> int:
        """The address of a variable, function, label or alias."""
        return self._by_name[name]

    def nearest(self, pc: int) -> str | None:
        """The text symbol at or below an address, as crash names it."""
        at = bisect.bisect_right(self._text_addresses, pc) - 1
        return self._text_names[at] if at >= 0 else None

    @property
    def init_start(self) -> int:
        """The start of ``.init.text``, which ends with the text."""
        return min(self.spec.init_text.values(), default=self.text.base + len(self.text.code))

    @property
    def end(self) -> int:
        """The first page after the image."""
        return -(-max(self.ends[".bss"], self.ends[".data"]) // PAGE) * PAGE

    def vmlinux(self) -> bytes:
        """The content of the vmlinux file."""
        sections = [*self._loaded(), *self._debug()]
        return self._file(sections, self.symbols)

    def stripped(self, debug: tuple[str, bytes] | None = None) -> bytes:
        """The file without symbols and debugging information, but with the kernel's own table.

        ``debug`` is the name and the content of the file that ``.gnu_debuglink`` leads to.
        """
        sections = self._loaded()
        if self._kallsyms is not None:
            at, data = self._kallsyms
            # In a real file it is a part of .rodata.
            sections.append(elf.Section(".kallsyms", elf.SHT_PROGBITS, at, data, elf.SHF_ALLOC))
        if debug is not None:
            name, content = debug
            link = name.encode() + b"\0"
            link += bytes(-len(link) % 4) + zlib.crc32(content).to_bytes(4, "little")
            sections.append(elf.Section(".gnu_debuglink", elf.SHT_PROGBITS, data=link))
        return self._file(sections, None)

    def debug_file(self) -> bytes:
        """As ``objcopy --only-keep-debug`` makes it: loaded sections have no bytes."""
        loaded = [
            section
            if section.type == elf.SHT_NOTE
            else replace(section, type=elf.SHT_NOBITS, data=b"", nobits=section.size)
            for section in self._loaded()
        ]
        return self._file([*loaded, *self._debug()], self.symbols)

    def system_map(self) -> bytes:
        """The symbols as ``nm -n`` shows them."""
        lines = (
            f"{at:0{self.types.abi.word * 2}x} {letter} {name}\n"
            for at, letter, name in self._lettered()
        )
        return "".join(lines).encode()

    def _file(self, sections: list[elf.Section], symbols: list[elf.Symbol] | None) -> bytes:
        spec = self.spec
        return elf.image(spec.layout, spec.machine, sections, symbols, self.text.base)

    def _loaded(self) -> list[elf.Section]:
        spec = self.spec
        code = elf.SHF_ALLOC | elf.SHF_EXECINSTR
        rw = elf.SHF_ALLOC | elf.SHF_WRITE
        # The tables at the end of .rodata are separate sections.
        end = self.spec.rodata + len(self.rodata)
        first = min((s.address for s in self.extra), default=end)
        percpu = self.ends[".data..percpu"] - self.starts[".data..percpu"]
        return [
            elf.Section(
                ".text", elf.SHT_PROGBITS, self.text.base, self.text.code, code, align=PAGE
            ),
            elf.Section(
                ".rodata",
                elf.SHT_PROGBITS,
                spec.rodata,
                bytes(self.rodata[: first - spec.rodata]),
                elf.SHF_ALLOC,
                align=PAGE,
            ),
            *self.extra,
            *(
                elf.Section(name, elf.SHT_NOBITS, start, b"", rw, align=PAGE, nobits=size)
                for name, start, size in (
                    (".data", spec.data, self.ends[".data"] - spec.data),
                    (".data..percpu", spec.percpu, percpu),
                    (".bss", spec.bss, self.ends[".bss"] - spec.bss),
                )
            ),
        ]

    def _debug(self) -> list[elf.Section]:
        spec = self.spec
        sections: list[elf.Section] = []
        if spec.dwarf:
            addresses = {name: placed.address for name, placed in self.variables.items()}
            sections += dwarf.sections(self.types, self.text, addresses, spec.dwarf)
        if spec.debug_frame:
            sections.append(cfi.section(self.text, self.types.abi.word))
        return sections
