"""A xen-syms for ``xen64``: symbols, and DWARF of the structs of domains."""

from __future__ import annotations

from collections.abc import Iterable

from ..code.text import Text
from ..debuginfo import dwarf
from ..debuginfo.cparse import parse
from ..debuginfo.ctype import X86_64
from ..elf import format as elf
from . import translated as hvm
from . import xen64 as xen

#: Members by struct: offset, type, name.
_STRUCTS: dict[str, tuple[int, list[tuple[int, str, str, int]]]] = {
    "p2m_domain": (
        hvm.P2M_SIZE,
        [
            (hvm.P2M_DOMAIN, "struct domain *", "domain", 8),
            (hvm.P2M_CLASS, "unsigned int", "p2m_class", 4),
            (hvm.P2M_PHYS_TABLE, "unsigned long", "phys_table", 8),
        ],
    ),
    "hvm_vcpu": (512, [(0, "unsigned long", "guest_cr[5]", 40)]),
    "pv_vcpu": (512, [(416, "unsigned long", "gs_base_kernel", 8)]),
}


def _struct(name: str, size: int, members: Iterable[tuple[int, str, str, int]]) -> str:
    lines, at = [], 0
    for offset, type_, member, length in sorted(members):
        if offset > at:
            lines.append(f"char pad_{at}[{offset - at}];")
        lines.append(f"{type_} {member};")
        at = offset + length
    if size > at:
        lines.append(f"char pad_{at}[{size - at}];")
    return f"struct {name} {{ {' '.join(lines)} }};\n"


def _declarations() -> str:
    # Members of arch are in one struct in Xen, too; here it starts where the first of them is.
    arch = hvm.DOMAIN_EMULATION
    vcpu_arch = [
        (xen.VCPU_USER_REGS - xen.VCPU_ARCH, "unsigned long", "user_regs[25]", 200),
        (384, "union { struct hvm_vcpu hvm; struct pv_vcpu pv; }", "", 512),
        (xen.VCPU_CR3 - xen.VCPU_ARCH, "unsigned long", "cr3", 8),
    ]
    text = "".join(_struct(name, *rest) for name, rest in _STRUCTS.items())
    text += _struct("arch_vcpu", xen.VCPU_SIZE - xen.VCPU_ARCH, vcpu_arch)
    text += _struct(
        "arch_domain",
        xen.DOMAIN_HANDLE - arch,
        [
            (0, "unsigned int", "emulation_flags", 4),
            (hvm.DOMAIN_P2M - arch, "struct p2m_domain *", "p2m", 8),
            (hvm.DOMAIN_NESTED_P2M - arch, "struct p2m_domain *", "nested_p2m[10]", 80),
            (hvm.DOMAIN_ALTP2M - arch, "struct p2m_domain *", "altp2m_p2m[10]", 80),
        ],
    )
    text += _struct(
        "vcpu",
        xen.VCPU_SIZE,
        [
            (xen.VCPU_ID, "unsigned int", "vcpu_id", 4),
            (xen.VCPU_PROCESSOR, "unsigned int", "processor", 4),
            (xen.VCPU_INFO, "void *", "vcpu_info", 8),
            (xen.VCPU_DOMAIN, "struct domain *", "domain", 8),
            (xen.VCPU_NEXT, "struct vcpu *", "next_in_list", 8),
            (xen.VCPU_PAUSE_FLAGS, "unsigned long", "pause_flags", 8),
            (xen.VCPU_ARCH, "struct arch_vcpu", "arch", xen.VCPU_SIZE - xen.VCPU_ARCH),
        ],
    )
    return text + _struct(
        "domain",
        xen.DOMAIN_SIZE,
        [
            (xen.DOMAIN_ID, "unsigned short", "domain_id", 2),
            (xen.DOMAIN_MAX_VCPUS, "unsigned int", "max_vcpus", 4),
            (xen.DOMAIN_VCPU, "struct vcpu **", "vcpu", 8),
            (xen.DOMAIN_SHARED_INFO, "void *", "shared_info", 8),
            (xen.DOMAIN_TOT_PAGES, "unsigned int", "tot_pages", 4),
            (xen.DOMAIN_MAX_PAGES, "unsigned int", "max_pages", 4),
            (xen.DOMAIN_NEXT, "struct domain *", "next_in_list", 8),
            (xen.DOMAIN_OPTIONS, "unsigned int", "options", 4),
            (arch, "struct arch_domain", "arch", xen.DOMAIN_HANDLE - arch),
            (xen.DOMAIN_HANDLE, "unsigned char", "handle[16]", 16),
        ],
    )


def xen_syms(host: xen.Xen64, *, debug: bool) -> bytes:
    """The ELF image, with DWARF if ``debug``."""
    text = Text(host.text, b"\xcc" * 64, {}, {})
    names = {
        ("idle_pg_table" if name == "pgd_l4" else name): at for name, at in host.symbols.items()
    }
    symbols = [elf.Symbol(n, at, 8, elf.STT_OBJECT, ".data", True) for n, at in names.items()]
    flags = elf.SHF_ALLOC | elf.SHF_WRITE
    code = elf.SHF_ALLOC | elf.SHF_EXECINSTR
    sections = [
        elf.Section(".text", elf.SHT_PROGBITS, host.text, text.code, code, align=4096),
        elf.Section(".data", elf.SHT_NOBITS, host.data, b"", flags, align=4096, nobits=0x20000),
    ]
    if debug:
        sections += dwarf.sections(parse(_declarations(), X86_64), text, {}, 4)
    return elf.image(elf.ELF64, elf.EM_X86_64, sections, sorted(symbols, key=lambda s: s.address))
