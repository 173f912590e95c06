"""``domains``: every domain of a host, or some of them in full."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..isolation import isolated
from ..limits import MAX_KERNEL_HINTS
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..output.table import table
from ..progress import each
from ..session import DumpFile
from ..xen.domain import CoreDomain, XenDomain
from ..xen.domains import RESERVED
from ..xen.guests import GuestKernel
from ..xen.host import HostDomain, XenHost
from . import held_locks, host_domains
from .contract import UsageError
from .held_locks import LockJson

if TYPE_CHECKING:
    from ..xen.domain_details import Details, VcpuDetails

OPERANDS = host_domains.OPERANDS
#: Names of the kinds in the table.
_KINDS = {"hvm": "HVM", "pvh": "PVH", "hvm or pvh": "HVM/PVH", "system": "Xen", "unknown": "?"}
_HEAD = ("", "ID", "KIND", "VCPUS", "PAGES", "P2M", "UUID", "NODENAME", "RELEASE")
#: Columns that are numbers.
_NUMBERS = (1, 3, 4)


class Options(NamedTuple):
    """The domains to list."""

    #: Those to show in full; a line for each of all domains if empty.
    operands: Sequence[str] = ()
    #: Xen's own domains too.
    all: bool = False
    #: Path of Xen's symbols; not needed.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``domains``."""
    parser.add_argument("--all", action="store_true", help="Xen's own domains too")
    parser.add_argument(
        "--xen-syms",
        metavar="XEN-SYMS",
        help="Xen's symbols, not needed for the list; with DWARF for a domain in full",
    )
    parser.add_argument("--force", action="store_true", help="accept a xen-syms of another build")


class DomainRow(NamedTuple):
    """One domain."""

    #: None for that of an xl dump-core or save file, which has no id.
    id: int | None
    #: "pv", "hvm", "pvh", "hvm or pvh", "system", "unknown".
    kind: str
    #: Word size of the guest.
    word: int
    #: Xen's address of its ``struct domain``; None in the file of a domain.
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
    #: Only of a domain that was asked for.
    details: "Details | None" = None


def run(target: DumpFile, options: Options = Options()) -> "Domains":
    """Lists the domains, or shows some in full.

    AbsentError if the dump is not of a Xen host, or if none can be found.
    """
    if options.operands:
        return _in_full(target, options)
    if target.is_domain_file:
        domain = CoreDomain(target.native)
        return Domains([_row(domain, [])], None, domain.warnings)
    xen = target.xen(options.xen_syms, force=options.force)
    rows: list[DomainRow] = []
    hints: list[int] = []
    for host_domain in each(xen.domains(all=options.all), "domain"):
        with isolated(f"domain {host_domain.id} is left out", xen.warnings.append):
            rows.append(_row(host_domain, hints))
            kernel = rows[-1].kernel
            offset = None if kernel is None else kernel.offset
            if offset is not None and offset not in hints:
                hints.append(offset)
                del hints[:-MAX_KERNEL_HINTS]
    if not rows:
        raise none_found(xen)
    warnings = [f"domain {row.id}: {text}" for row in rows for text in row.warnings]
    return Domains(rows, xen.layout.how, [*xen.warnings, *warnings])


def _in_full(target: DumpFile, options: Options) -> "Domains":
    from ..xen import domain_details

    if options.all:
        raise UsageError("argument --all: not with domains that are shown in full")
    xen = host_domains.host(target, options.xen_syms, force=options.force)
    found, failure = host_domains.select(target, xen, options.operands)
    rows: list[DomainRow] = []
    for domain in found:
        with isolated(f"domain {domain.id} is left out", xen.warnings.append):
            details = domain_details.read(domain)
            rows.append(_row(domain, [], details))
    # One text if all lack the same.
    texts = [text for row in rows if row.details for text in row.details.warnings]
    own = [f"domain {row.id}: {text}" for row in rows for text in row.warnings]
    return Domains(rows, xen.layout.how, [*xen.warnings, *dict.fromkeys(texts), *own], failure)


def none_found(xen: XenHost) -> AbsentError:
    """The error for a host without any domain that can be found. Every host has dom0."""
    why = "; ".join(xen.warnings) or "Xen's list of them is empty"
    return AbsentError(f"{xen.dump.path}: no domain can be found: {why}")


def _row(domain: XenDomain, hints: list[int], details: "Details | None" = None) -> DomainRow:
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
        details=details,
    )


class VcpuDetailsJson(TypedDict):
    """A vCPU of a domain in full."""

    id: Count
    vcpu: Hex
    pcpu: Count | None
    state: str
    online: bool | None
    pause_flags: list[str]
    pause_count: int | None
    hard_affinity: str | None
    soft_affinity: str | None
    polls: int | None
    upcall_pending: bool | None
    upcall_masked: bool | None
    dirty_pcpu: Count | None


class DetailsJson(TypedDict):
    """A domain in full."""

    p2m: str | None
    paging: list[str] | None
    privileged: bool | None
    pause_count: int | None
    dying: str | None
    shutting_down: bool | None
    shut_down: bool | None
    shutdown_reason: str | None
    max_pages: Count | None
    shared_pages: int | None
    outstanding_pages: Count | None
    xenheap_pages: Count | None
    max_vcpus: Count | None
    event_channel_abi: str | None
    event_channels: Count | None
    grant_version: Count | None
    cpupool: Count | None
    locks: list[LockJson] | None
    references: int | None
    dirty_pcpus: str | None
    nodes: str | None
    vm_assists: list[str] | None
    vcpus: list[VcpuDetailsJson]


class DomainJson(TypedDict):
    """A domain."""

    id: Count | None
    kind: str
    word: Count
    domain: Hex | None
    vcpus: Count
    running_vcpus: Count
    pages: Count | None
    max_pfn: Count | None
    p2m_sources: list[str]
    shared_info: Hex | None
    uuid: str | None
    nodename: str | None
    release: str | None
    version: str | None
    machine: str | None
    warnings: list[str]
    #: Only of domains that were asked for.
    details: NotRequired[DetailsJson]


class JSON(TypedDict):
    """What ``domains --json`` prints."""

    layout_by: str | None
    domains: list[DomainJson]


class Domains(NamedTuple):
    """The domains of a host."""

    rows: list[DomainRow]
    #: How the layout of Xen's structs was found; None if it was not needed.
    layout: str | None
    warnings: list[str]
    #: Why domains that were asked for are missing.
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """A line per domain; ``>`` marks those with a vCPU that was running."""
        if any(row.details is not None for row in self.rows):
            for i, row in enumerate(self.rows):
                if i:
                    yield ""
                yield from _full(row)
            return
        yield from table([_HEAD, *(tuple(_cells(row)) for row in self.rows)], _NUMBERS)

    def json(self) -> JSON:
        """Every domain."""
        return {"layout_by": self.layout, "domains": [_row_json(row) for row in self.rows]}


def kind(row: DomainRow) -> str:
    """``PV 64``, ``PV 32``, ``PVH``, ``HVM``."""
    return f"PV {row.word * 8}" if row.kind == "pv" else _KINDS.get(row.kind, row.kind)


def _cells(row: DomainRow) -> Iterator[str]:
    yield ">" if row.running else ""
    yield "-" if row.id is None else str(row.id)
    yield kind(row)
    yield str(row.vcpus)
    yield "-" if row.pages is None else str(row.pages)
    yield ",".join(row.sources) or "-"
    yield row.uuid or "-"
    if row.kernel is not None:
        yield visible(row.kernel.nodename)
        yield visible(row.kernel.release)
    else:
        yield f"[{RESERVED[row.id]}]" if row.id in RESERVED else "-"
        yield "-"


def _full(row: DomainRow) -> Iterator[str]:
    """One domain, as ``sys`` shows a kernel."""
    details = row.details
    assert details is not None
    kernel = row.kernel
    facts: list[tuple[str, object]] = [
        ("DOMAIN", row.id),
        ("STRUCT", _hex(row.address)),
        ("KIND", kind(row) + (", privileged" if details.privileged else "")),
        ("STATE", ", ".join(details.state) or None),
        ("SHUTDOWN", details.shutdown_reason),
        ("P2M", details.p2m),
        ("PAGING", None if details.paging is None else ", ".join(details.paging) or "none"),
        ("UUID", row.uuid),
        ("NODENAME", None if kernel is None else visible(kernel.nodename)),
        ("RELEASE", None if kernel is None else visible(kernel.release)),
        ("VERSION", None if kernel is None else visible(kernel.version)),
        ("PAGES", row.pages),
        ("MAX PAGES", details.max_pages),
        ("SHARED", details.shared_pages),
        ("OUTSTANDING", details.outstanding_pages),
        ("XENHEAP", details.xenheap_pages),
        ("MAX PFN", row.max_pfn),
        ("SHARED INFO", _hex(row.shared_info)),
        ("EVENT CHANNELS", details.event_channels),
        ("EVENT ABI", details.event_channel_abi),
        ("GRANT TABLE", details.grant_version and f"v{details.grant_version}"),
        ("CPU POOL", details.cpupool),
        ("MAX VCPUS", details.max_vcpus),
        ("REFERENCES", details.references),
        ("DIRTY PCPUS", details.dirty_pcpus),
        ("NODES", details.nodes),
        ("VM ASSIST", ", ".join(details.vm_assists or []) or None),
        ("HELD LOCKS", ", ".join(map(str, details.locks or [])) or None),
    ]
    for name, value in facts:
        if value is not None:
            yield f"{name:>14}: {value}"
    rows = [_VCPUS, *(tuple(_vcpu_cells(vcpu)) for vcpu in details.vcpus)]
    yield from table(rows, (0, 1))


#: The heading of the vCPUs of a domain in full.
_VCPUS = (
    "VCPU",
    "PCPU",
    "STRUCT",
    "STATE",
    "PAUSED",
    "HARD AFFINITY",
    "SOFT AFFINITY",
    "DIRTY",
    "UPCALL",
    "POLLS",
)


def _vcpu_cells(vcpu: "VcpuDetails") -> Iterator[str]:
    yield str(vcpu.id)
    yield "-" if vcpu.pcpu is None else str(vcpu.pcpu)
    yield f"{vcpu.address:x}"
    yield vcpu.state
    paused = [*vcpu.flags, *([f"{vcpu.pause_count} times"] if vcpu.pause_count else [])]
    yield ",".join(paused) or ("-" if vcpu.online is None else "no")
    yield "-" if vcpu.hard_affinity is None else str(vcpu.hard_affinity)
    yield "-" if vcpu.soft_affinity is None else str(vcpu.soft_affinity)
    yield "-" if vcpu.dirty_pcpu is None else str(vcpu.dirty_pcpu)
    upcall = [*(["pending"] if vcpu.upcall_pending else [])]
    upcall += ["masked"] if vcpu.upcall_masked else []
    yield ",".join(upcall) or "-"
    yield "-" if not vcpu.polls else "several" if vcpu.polls < 0 else str(vcpu.polls)


def _details_json(details: "Details") -> DetailsJson:
    return {
        "p2m": details.p2m,
        "paging": details.paging,
        "privileged": details.privileged,
        "pause_count": details.pause_count,
        "dying": details.dying,
        "shutting_down": details.shutting_down,
        "shut_down": details.shut_down,
        "shutdown_reason": details.shutdown_reason,
        "max_pages": details.max_pages,
        "shared_pages": details.shared_pages,
        "outstanding_pages": details.outstanding_pages,
        "xenheap_pages": details.xenheap_pages,
        "max_vcpus": details.max_vcpus,
        "event_channel_abi": details.event_channel_abi,
        "event_channels": details.event_channels,
        "grant_version": details.grant_version,
        "cpupool": details.cpupool,
        "references": details.references,
        "dirty_pcpus": None if details.dirty_pcpus is None else str(details.dirty_pcpus),
        "nodes": None if details.nodes is None else str(details.nodes),
        "vm_assists": details.vm_assists,
        "locks": None if details.locks is None else list(map(held_locks.to_json, details.locks)),
        "vcpus": [
            {
                "id": vcpu.id,
                "vcpu": hex(vcpu.address),
                "pcpu": vcpu.pcpu,
                "state": vcpu.state,
                "online": vcpu.online,
                "pause_flags": vcpu.flags,
                "pause_count": vcpu.pause_count,
                "hard_affinity": None if vcpu.hard_affinity is None else str(vcpu.hard_affinity),
                "soft_affinity": None if vcpu.soft_affinity is None else str(vcpu.soft_affinity),
                "polls": vcpu.polls,
                "upcall_pending": vcpu.upcall_pending,
                "upcall_masked": vcpu.upcall_masked,
                "dirty_pcpu": vcpu.dirty_pcpu,
            }
            for vcpu in details.vcpus
        ],
    }


def _row_json(row: DomainRow) -> DomainJson:
    kernel = row.kernel
    found: DomainJson = {
        "id": row.id,
        "kind": row.kind,
        "word": row.word,
        "domain": _hex(row.address),
        "vcpus": row.vcpus,
        "running_vcpus": row.running,
        "pages": row.pages,
        "max_pfn": row.max_pfn,
        "p2m_sources": row.sources,
        "shared_info": _hex(row.shared_info),
        "uuid": row.uuid,
        "nodename": kernel.nodename if kernel else None,
        "release": kernel.release if kernel else None,
        "version": kernel.version if kernel else None,
        "machine": kernel.machine if kernel else None,
        "warnings": row.warnings,
    }
    if row.details is not None:
        found["details"] = _details_json(row.details)
    return found


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)
