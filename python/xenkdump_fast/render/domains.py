"""``domains`` as a table, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.domains import DomainRow, Domains
from .escape import visible
from .table import table

#: "PV 64" and so on: how people call the kinds.
_KINDS = {"hvm": "HVM", "pvh": "PVH", "hvm or pvh": "HVM/PVH", "system": "Xen", "unknown": "?"}
#: Xen's own domains (public ABI).
_RESERVED = {0x7FF1: "DOMID_IO", 0x7FF2: "DOMID_XEN", 0x7FF4: "DOMID_COW", 0x7FFF: "DOMID_IDLE"}


def lines(result: Domains) -> Iterator[str]:
    """A line a domain; ``>`` marks those of which a vCPU was running."""
    rows = [_HEAD, *(tuple(_row(row)) for row in result.rows)]
    return table(rows, _NUMBERS)


_HEAD = ("", "ID", "KIND", "VCPUS", "PAGES", "P2M", "UUID", "NODENAME", "RELEASE")
#: Columns that are numbers.
_NUMBERS = (1, 3, 4)


def kind(row: DomainRow) -> str:
    """``PV 64``, ``PV 32``, ``PVH``, ``HVM``."""
    return f"PV {row.word * 8}" if row.kind == "pv" else _KINDS.get(row.kind, row.kind)


def _row(row: DomainRow) -> Iterator[str]:
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
        yield f"[{_RESERVED[row.id]}]" if row.id in _RESERVED else "-"
        yield "-"


def json(result: Domains) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {
        "layout_by": result.layout,
        "domains": [_row_json(row) for row in result.rows],
    }


def _row_json(row: DomainRow) -> dict[str, Any]:
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
