"""Every domain of a host."""

from dataclasses import dataclass

from .._native import AbsentError, Dump
from ..hypervisor.domain import CoreDomain, XenDomain
from ..hypervisor.guests import GuestKernel
from ..hypervisor.xen import HostDomain, Xen, open_symbols
from ..isolation import isolated
from ..progress import each

#: The kernels of as many domains before are looked for where they were.
_HINTS = 16


@dataclass(frozen=True, slots=True)
class DomainRow:
    """One domain."""

    #: None for the one of an xl dump-core file, which does not say.
    id: int | None
    #: "pv", "hvm", "pvh", "hvm or pvh", "system", "unknown".
    kind: str
    #: Word size of the guest.
    word: int
    #: Xen's address of its ``struct domain``; None in an xl dump-core file.
    address: int | None
    vcpus: int
    #: How many of them were running.
    running: int
    pages: int | None
    max_pfn: int | None
    #: Names of the sources of its P2M.
    sources: list[str]
    uuid: str | None
    kernel: GuestKernel | None
    #: Machine address of its shared_info.
    shared_info: int | None
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Domains:
    """What ``xkdump domains`` found."""

    rows: list[DomainRow]
    #: How the layout of Xen's structs was found; None where it was not needed.
    layout: str | None
    warnings: list[str]


def run(path: str, xen_syms: str | None = None, *, everyone: bool = False) -> Domains:
    """Lists the domains of the dump at ``path``; AbsentError if it is not of a Xen host, or if no
    domain can be found.
    """
    dump = Dump(path)
    if dump.format == "xl dump-core":
        domain = CoreDomain(dump)
        row = _row(domain, [])
        return Domains([row], None, [*dump.warnings, *domain.warnings])
    image, symbols = open_symbols(xen_syms) if xen_syms is not None else (None, None)
    xen = Xen(dump, image, symbols=symbols)
    rows: list[DomainRow] = []
    hints: list[int] = []
    for host_domain in each(xen.domains(all=everyone), "domain"):
        with isolated(f"domain {host_domain.id} is left out", xen.warnings.append):
            rows.append(_row(host_domain, hints))
            kernel = rows[-1].kernel
            if kernel is not None and kernel.address and kernel.address not in hints:
                hints.append(kernel.address)
                del hints[:-_HINTS]
    if not rows:
        raise none_found(xen)
    warnings = [f"domain {row.id}: {text}" for row in rows for text in row.warnings]
    return Domains(rows, xen.layout.how, [*dump.warnings, *xen.warnings, *warnings])


def none_found(xen: Xen) -> AbsentError:
    """The error for a host of which no domain is left; each has had at least dom0."""
    why = "; ".join(xen.warnings) or "Xen's list of them is empty"
    return AbsentError(f"{xen.dump.path}: no domain can be found: {why}")


def _row(domain: XenDomain, hints: list[int]) -> DomainRow:
    kernel = domain.kernel(hints)
    host = domain if isinstance(domain, HostDomain) else None
    return DomainRow(
        id=domain.id if host else None,
        kind=domain.kind,
        word=domain.word,
        address=host.address if host else None,
        vcpus=len(domain.vcpus),
        running=sum(vcpu.running for vcpu in domain.vcpus),
        pages=domain.pages,
        max_pfn=domain.max_pfn,
        sources=[source.name for source in domain.sources],
        uuid=str(domain.uuid) if domain.uuid else None,
        kernel=kernel,
        shared_info=domain.shared_info_address,
        warnings=list(domain.warnings),
    )
