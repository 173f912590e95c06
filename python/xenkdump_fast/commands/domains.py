"""``domains``: every domain of a host."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from .._native import AbsentError
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

#: Names of the kinds in the table.
_KINDS = {"hvm": "HVM", "pvh": "PVH", "hvm or pvh": "HVM/PVH", "system": "Xen", "unknown": "?"}
_HEAD = ("", "ID", "KIND", "VCPUS", "PAGES", "P2M", "UUID", "NODENAME", "RELEASE")
#: Columns that are numbers.
_NUMBERS = (1, 3, 4)


class Options(NamedTuple):
    """The domains to list."""

    #: Xen's own domains too.
    all: bool = False
    #: Path of Xen's symbols; not needed.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``domains``."""
    parser.add_argument("--all", action="store_true", help="Xen's own domains too")
    parser.add_argument("--xen-syms", metavar="XEN-SYMS", help="Xen's symbols, not needed")
    parser.add_argument("--force", action="store_true", help="accept a xen-syms of another build")


@dataclass(frozen=True, slots=True)
class DomainRow:
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


def run(target: DumpFile, options: Options = Options()) -> "Domains":
    """Lists the domains; AbsentError if the dump is not of a Xen host, or if none can be found."""
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


def none_found(xen: XenHost) -> AbsentError:
    """The error for a host without any domain that can be found. Every host has dom0."""
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

    def text(self) -> Iterator[str]:
        """A line per domain; ``>`` marks those with a vCPU that was running."""
        return table([_HEAD, *(tuple(_cells(row)) for row in self.rows)], _NUMBERS)

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


def _row_json(row: DomainRow) -> DomainJson:
    kernel = row.kernel
    return {
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


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)
