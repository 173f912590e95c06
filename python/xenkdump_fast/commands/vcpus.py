"""Every vCPU of every domain."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._native import AbsentError, Dump, Image, MemoryFault, Symbol, Symbols
from ..hypervisor.domain import CoreDomain, XenDomain
from ..hypervisor.vcpus import XenVcpu
from ..hypervisor.xen import Xen, open_symbols
from ..isolation import isolated
from .domains import none_found


@dataclass(frozen=True, slots=True)
class VcpuRow:
    """One vCPU."""

    #: None for the domain of an xl dump-core file, which does not say.
    domain: int | None
    vcpu: XenVcpu
    #: The symbol that holds its pc, where a vmlinux of its kernel was given.
    symbol: str | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class Vcpus:
    """What ``xkdump vcpus`` found."""

    rows: list[VcpuRow]
    warnings: list[str]


def run(
    path: str,
    xen_syms: str | None = None,
    vmlinux: Sequence[str] = (),
    *,
    everyone: bool = False,
) -> Vcpus:
    """Lists the vCPUs; each of the ``vmlinux`` gives symbols to the domains that run it.

    AbsentError where the dump is not of a Xen host, or no domain of it can be found.
    """
    dump = Dump(path)
    images = [Image(name) for name in vmlinux]
    domains: Sequence[XenDomain]
    warnings = list(dump.warnings)
    if dump.format == "xl dump-core":
        domains = [CoreDomain(dump)]
    else:
        image, symbols = open_symbols(xen_syms) if xen_syms is not None else (None, None)
        xen = Xen(dump, image, symbols=symbols)
        domains = xen.domains(all=everyone)
        if not domains:
            raise none_found(xen)
        # The list's own complaints come once the domains were read.
        warnings += xen.warnings
    rows: list[VcpuRow] = []
    for domain in domains:
        with isolated(f"vCPUs of domain {domain.id} are left out", warnings.append):
            number = None if isinstance(domain, CoreDomain) else domain.id
            names = _symbols(domain, images)
            for vcpu in domain.vcpus:
                found = _lookup(vcpu, names)
                offset = None if found is None else _pc(vcpu, 0) - found.address
                rows.append(VcpuRow(number, vcpu, found.name if found else None, offset))
        warnings += (f"domain {domain.id}: {text}" for text in domain.warnings)
    return Vcpus(rows, warnings)


def _pc(vcpu: XenVcpu, default: int) -> int:
    registers = vcpu.registers or {}
    return registers.get("rip", registers.get("eip", default))


def _lookup(vcpu: XenVcpu, symbols: Symbols | None) -> Symbol | None:
    if symbols is None or vcpu.registers is None:
        return None
    pc = _pc(vcpu, 0)
    # User space has no symbols here: its addresses are in the lower half.
    return symbols.lookup(pc) if pc >> 63 or 0xC000_0000 <= pc < 1 << 32 else None


def _symbols(domain: XenDomain, images: Sequence[Image]) -> Symbols | None:
    """Those of the image whose banner is in the domain's memory; PV kernels are never moved."""
    for image in images:
        try:
            symbols = image.symbols()
        except AbsentError:
            continue
        at = symbols.get("linux_banner")
        if at is None or image.word != domain.word:
            continue
        for space in domain.spaces():
            try:
                if space.cstring(at, 512) == image.read(at, 512).partition(b"\0")[0]:
                    return symbols
            except (AbsentError, MemoryFault):
                continue
    return None
