"""``vcpus``: every vCPU of every domain."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError, Image, MemoryFault, Symbol, Symbols
from .._typing import NamedTuple, TypedDict
from ..isolation import isolated
from ..limits import MAX_BANNER
from ..output.escape import visible
from ..output.frames import registers_json
from ..output.json_types import Count, Hex, Registers
from ..output.table import table
from ..session import DumpFile
from ..session.locator import Locator
from ..session.platform import platform_of
from ..xen.domain import CoreDomain, XenDomain
from ..xen.vcpus import XenVcpu
from . import domains

_HEAD = ("", "DOM", "VCPU", "PCPU", "STATE", "CR3", "RIP", "SYMBOL", "REGISTERS FROM")
#: Columns that are numbers.
_NUMBERS = (1, 2, 3, 5, 6)


class Options(NamedTuple):
    """The vCPUs to list, and the sources of symbols."""

    #: Those of Xen's own domains too.
    all: bool = False
    #: Path of Xen's symbols; not needed.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False
    #: Paths of kernels; each gives symbols to the domains that run it.
    kernels: Sequence[str] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``vcpus``."""
    domains.add_options(parser)
    parser.add_argument(
        "--vmlinux",
        dest="kernels",
        action="append",
        default=[],
        metavar="VMLINUX",
        help="names symbols for the domains that run it; may be given more than once",
    )


class VcpuRow(NamedTuple):
    """One vCPU."""

    #: None for the domain of an xl dump-core or save file, which has no id.
    domain: int | None
    vcpu: XenVcpu
    #: The symbol that contains its pc, if a vmlinux of its kernel was given.
    symbol: str | None
    offset: int | None


def run(target: DumpFile, options: Options = Options()) -> "Vcpus":
    """Lists the vCPUs; AbsentError if the dump is not of a Xen host, or if none can be found."""
    images = [target.image(name) for name in options.kernels]
    found: Sequence[XenDomain]
    warnings: list[str] = []
    if target.is_domain_file:
        found = [CoreDomain(target.native)]
    else:
        xen = target.xen(options.xen_syms, force=options.force)
        found = xen.domains(all=options.all)
        if not found:
            raise domains.none_found(xen)
        warnings += xen.warnings
    rows: list[VcpuRow] = []
    used: set[str] = set()
    for domain in found:
        with isolated(f"vCPUs of domain {domain.id} are left out", warnings.append):
            number = None if isinstance(domain, CoreDomain) else domain.id
            image, names = _image(target, domain, images)
            if image is not None:
                used.add(image.path)
            for vcpu in domain.vcpus:
                symbol = _lookup(vcpu, names)
                offset = None if symbol is None else (_pc(vcpu) or 0) - symbol.address
                rows.append(VcpuRow(number, vcpu, symbol.name if symbol else None, offset))
        warnings += (f"domain {domain.id}: {text}" for text in domain.warnings)
    for image in images:
        if image.path not in used:
            warnings.append(f"{image.path} is not the kernel of any domain: it names no symbols")
    return Vcpus(rows, warnings)


def _pc(vcpu: XenVcpu) -> int | None:
    registers = vcpu.registers or {}
    return registers.get("rip", registers.get("eip"))


def _lookup(vcpu: XenVcpu, symbols: Symbols | None) -> Symbol | None:
    pc = _pc(vcpu)
    if symbols is None or pc is None:
        return None
    # The addresses of user space are in the lower half.
    return symbols.lookup(pc) if pc >> 63 or 0xC000_0000 <= pc < 1 << 32 else None


def _image(
    target: DumpFile, domain: XenDomain, images: Sequence[Image]
) -> tuple[Image | None, Symbols | None]:
    """The image whose banner is in the domain's memory, and its symbols where it is loaded."""
    for image in images:
        try:
            linked = image.symbols()
        except AbsentError:
            continue
        at = linked.get("linux_banner")
        if at is None or image.word != domain.word:
            continue
        slide = _slide(target, domain, image)
        for space in () if slide is None else domain.spaces():
            try:
                banner = image.read(at, MAX_BANNER).partition(b"\0")[0]
                if space.cstring(at + (slide or 0), MAX_BANNER) == banner:
                    return image, image.symbols(slide or 0)
            except (AbsentError, MemoryFault):
                continue
    return None, None


def _slide(target: DumpFile, domain: XenDomain, image: Image) -> int | None:
    """The KASLR offset; PV kernels have none. None if the kernel is not found."""
    if not domain.is_translated:
        return 0
    try:
        location = Locator(platform_of(target, domain.id), image).locate(None)
    except AbsentError:
        return None
    return None if location is None else location.slide


class VcpuJson(TypedDict):
    """A vCPU."""

    domain: Count | None
    id: Count
    vcpu: Hex | None
    pcpu: Count | None
    state: str
    running: bool
    cr3: Hex | None
    symbol: str | None
    offset: Count | None
    registers_from: str | None
    registers: Registers | None
    warnings: list[str]


class JSON(TypedDict):
    """What ``vcpus --json`` prints."""

    vcpus: list[VcpuJson]


class Vcpus(NamedTuple):
    """The vCPUs of a host."""

    rows: list[VcpuRow]
    warnings: list[str]

    def text(self) -> Iterator[str]:
        """A line per vCPU; ``>`` marks those that were running."""
        return table([_HEAD, *(tuple(_cells(row)) for row in self.rows)], _NUMBERS)

    def json(self) -> JSON:
        """Every vCPU."""
        return {"vcpus": [_row_json(row) for row in self.rows]}


def _cells(row: VcpuRow) -> Iterator[str]:
    vcpu = row.vcpu
    yield ">" if vcpu.running else ""
    yield "-" if row.domain is None else str(row.domain)
    yield str(vcpu.id)
    yield "-" if vcpu.pcpu is None else str(vcpu.pcpu)
    yield vcpu.state
    yield "-" if vcpu.root is None else f"{vcpu.root:x}"
    pc = _pc(vcpu)
    yield "-" if pc is None else f"{pc:0{(vcpu.word or 8) * 2}x}"
    yield "-" if row.symbol is None else f"{visible(row.symbol)}+{row.offset}"
    yield vcpu.where or "-"


def _row_json(row: VcpuRow) -> VcpuJson:
    vcpu = row.vcpu
    registers = vcpu.registers
    return {
        "domain": row.domain,
        "id": vcpu.id,
        "vcpu": None if vcpu.address is None else hex(vcpu.address),
        "pcpu": vcpu.pcpu,
        "state": vcpu.state,
        "running": vcpu.running,
        "cr3": None if vcpu.root is None else hex(vcpu.root),
        "symbol": row.symbol,
        "offset": row.offset,
        "registers_from": vcpu.where,
        "registers": None if registers is None else registers_json(registers),
        "warnings": list(vcpu.warnings),
    }
