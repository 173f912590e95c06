"""A domain as the source of an exported file: its memory, its notes, its kernel's mappings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __name__ as package
from .._native import AbsentError, MemoryFault
from .._native import Dump as NativeDump
from ..limits import MAX_EXPORT_GROWTH, MAX_VCPUS
from . import levels, mapping, notes, segments
from .request import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..linux.system import Linux
    from ..session import Domain
    from ..session.bare import BareMachine

EM_386, EM_X86_64 = 3, 62
_4_GIB_PAGES = 1 << 20
_NO_UTSNAME = (b"", b"", b"", b"", b"", b"")


class Source(NamedTuple):
    """What a file is written from."""

    #: Its machine addresses are the physical ones of the file.
    native: NativeDump
    #: The dump in whose file that memory is.
    host: NativeDump
    #: First pfn and number of pages: all that is held, and what is written.
    all_pages: "NDArray[np.uint64]"
    pages: "NDArray[np.uint64]"
    #: Pages that the dump level leaves out, by kind.
    excluded: Mapping[str, int]
    #: The arguments of ``_native.export`` for the format.
    options: dict[str, Any]
    warnings: Sequence[str]
    #: The id of the domain; None is Xen.
    domain: int | None


def of_domain(domain: "Domain", request: Request) -> Source:
    """A domain. AbsentError if its memory cannot be read, or the dump level not be determined."""
    bare = domain.as_bare()
    kernel = _kernel(domain)
    warnings = list(bare.warnings)
    runs = bare.runs()
    _check_size(domain, runs)
    if kernel is None:
        warnings.append(
            "no Linux kernel was found: the file has the memory and the registers, without "
            "VMCOREINFO and without virtual addresses"
        )
    pages, excluded = runs, {}
    if request.level & ~levels.ZERO:
        if kernel is None:
            raise AbsentError(
                f"{domain.dump.path}: --dump-level {request.level} needs the kernel's page "
                "structs, and no Linux kernel was found (level 1 needs none)"
            )
        kept = levels.kept(kernel, bare, runs, request.level)
        pages, excluded = kept.pages, kept.excluded
        warnings += kept.warnings
    options = _options(domain, bare, kernel, request, runs, excluded)
    for image in options.get("others", ()):
        pages = segments.cut(pages, image)
    return Source(
        bare.native,
        domain.dump.native,
        runs,
        pages,
        excluded,
        options,
        warnings,
        domain.id,
    )


def _kernel(domain: "Domain") -> "Linux | None":
    """Its kernel; None if it does not run Linux."""
    try:
        return domain.kernel
    except AbsentError:
        return None


def _check_size(domain: "Domain", runs: "NDArray[np.uint64]") -> None:
    """AbsentError if many addresses are the same memory: the file would be of any size."""
    size = sum(map(int, runs[:, 1])) * mapping.PAGE
    held = domain.dump.native.memory_held
    if size > MAX_EXPORT_GROWTH * held:
        raise AbsentError(
            f"{domain.dump.path}: domain {domain.id} has {size} bytes of memory by its P2M, the "
            f"dump holds {held}: pages are mapped many times"
        )
    if not len(runs):
        raise AbsentError(f"{domain.dump.path}: the dump holds no memory of domain {domain.id}")


def _options(
    domain: "Domain",
    bare: "BareMachine",
    kernel: "Linux | None",
    request: Request,
    runs: "NDArray[np.uint64]",
    excluded: Mapping[str, int],
) -> dict[str, Any]:
    """The headers of the format."""
    if request.format in ("lime", "raw"):
        return {}
    word = bare.word
    is_bare = not (domain.dump.is_xen_host or domain.dump.is_domain_file)
    cpus, info, parts = _notes(domain, bare, kernel, is_bare)
    facts = _facts(domain, bare, request, cpus, excluded)
    parts.append(notes.own(facts))
    # ELF32 holds physical addresses and offsets below 4 GiB.
    end = int(runs[-1].sum())
    pages = int(runs[:, 1].sum())
    is_64 = word == 8 or max(end, pages + _4_GIB_PAGES // 16) >= _4_GIB_PAGES
    if request.format == "kdump":
        return {
            "is_64": word == 8,
            "compression": None if request.compression == "none" else request.compression,
            "level": request.level,
            "utsname": _utsname(kernel, word),
            "notes": b"".join(parts),
            "vmcoreinfo": notes.offset_of(parts, info),
            "phys_base": _phys_base(kernel, bare),
            "cpus": len(cpus),
        }
    direct = image = None
    if kernel is not None:
        direct = mapping.linear(kernel, bare.virtual, runs)
        image = mapping.image(kernel, bare.virtual) if word == 8 else None
    return {
        "machine": EM_X86_64 if word == 8 else EM_386,
        "is_64": is_64,
        "notes": b"".join(parts),
        "direct": direct,
        "others": [] if image is None else [image],
    }


def _notes(
    domain: "Domain", bare: "BareMachine", kernel: "Linux | None", is_bare: bool
) -> tuple[list[notes.Cpu], bytes, list[bytes]]:
    """The CPUs, the note VMCOREINFO, and all notes but our own."""
    if is_bare and domain.dump.notes:
        # Those of the source, which a kernel or QEMU wrote.
        parts, info = [], b""
        for each in domain.dump.notes:
            if each.kind == "export":
                continue
            parts.append(notes.note(each.name, each.type, each.data))
            if each.kind == "vmcoreinfo" and not info:
                info = parts[-1]
        return [notes.Cpu(*cpu) for cpu in bare.cpus], info, parts
    idt = _idt(kernel)
    text = bare.vmcoreinfo if is_bare else notes.without_crash_time(bare.vmcoreinfo)
    cpus = []
    is_pv = bare.tables is not None or domain.dump.native.domain_kind == "pv"
    for cpu in bare.cpus:
        if cpu.number >= MAX_VCPUS:
            # A note is written for every number below it.
            domain.dump.warn(
                f"the registers of vCPU {cpu.number} are left out: an impossible number"
            )
            continue
        shown = cpu.registers
        if is_pv:
            shown = notes.in_kernel_mode(shown, bare.word)
        cpus.append(
            notes.Cpu(cpu.number, shown, cpu.control, cpu.source, cpu.running, cpu.registers, idt)
        )
    info = notes.vmcoreinfo(text)
    return cpus, info, [notes.of_cpus(cpus, bare.word), info]


def _idt(kernel: "Linux | None") -> int:
    """The virtual address of the interrupt descriptor table, which is the same for all CPUs.

    0 if it is not known. idt_descr is what the kernel loads (2.6.0 on): its size and its address.
    """
    at = None if kernel is None else kernel.symbols.get("idt_descr")
    if kernel is None or at is None:
        return 0
    try:
        return kernel.virtual.word(at + 2, kernel.word)
    except MemoryFault:
        return 0


def _facts(
    domain: "Domain",
    bare: "BareMachine",
    request: Request,
    cpus: Sequence[notes.Cpu],
    excluded: Mapping[str, int],
) -> dict[str, object]:
    """The contents of our own note."""
    dump = domain.dump
    return {
        "tool": version(),
        "source": {
            "files": dump.paths,
            "format": dump.native.format,
            "size": dump.native.size,
            "domain": domain.id,
            "is_xen_host": dump.is_xen_host,
        },
        "cpus": [
            {
                "number": cpu.number,
                "running": cpu.running,
                "source": cpu.source,
                "registers": {name: hex(value) for name, value in cpu.known.items()},
                "unknown": cpu.unknown(bare.word),
            }
            for cpu in cpus
        ],
        "altered": [
            {
                "address": hex(word.address),
                "size": word.size,
                "original": hex(word.original),
                "value": hex(word.value),
                "reason": word.reason,
            }
            for word in bare.altered
        ],
        "page_tables": None if bare.tables is None else len(bare.tables),
        "dump_level": request.level,
        "excluded": dict(excluded),
    }


def version() -> str:
    """The name and the version of this tool."""
    from importlib import metadata

    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package


def _utsname(kernel: "Linux | None", word: int) -> list[bytes]:
    """The six fields; readers take the word size from the machine."""
    machine = b"x86_64" if word == 8 else b"i686"
    fields = dict(zip(_UTS, _NO_UTSNAME, strict=True))
    if kernel is not None:
        from ..linux import header

        try:
            fields |= {name: text.encode() for name, text in header.uts(kernel).items()}
        except AbsentError as error:
            kernel.warn(f"the header has no names of the kernel: {error}")
    return [*list(fields.values())[:4], machine, fields["domainname"]]


_UTS = ("sysname", "nodename", "release", "version", "machine", "domainname")


def _phys_base(kernel: "Linux | None", bare: "BareMachine") -> int:
    """The physical address of the kernel's image, less that it is linked for."""
    if kernel is None or bare.word == 4:
        return 0
    found = mapping.image(kernel, bare.virtual)
    if found is None:
        return 0
    start, first, _ = found
    return (first * mapping.PAGE - (start - 0xFFFF_FFFF_8000_0000)) & (1 << 64) - 1
