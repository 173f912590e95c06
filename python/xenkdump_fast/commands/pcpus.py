"""``pcpus``: every pCPU of a Xen host."""

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

from .._native import AbsentError
from ..output.json_types import Count, Hex
from ..output.table import table
from ..session import DumpFile
from ..xen import pcpu_details
from ..xen.pcpu_details import PcpuDetails, VcpuName
from . import host_domains

_HEAD = ("PCPU", "APIC", "RUNS", "CR3", "XEN STACK", "PER-CPU", "IDLE VCPU", "SOFTIRQS")
#: Columns that are numbers.
_NUMBERS = (0, 1, 3)


class Options(NamedTuple):
    """The sources of symbols."""

    #: Path of Xen's symbols.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


add_options = host_domains.add_options


def run(target: DumpFile, options: Options = Options()) -> "Pcpus":
    """Lists the pCPUs; AbsentError if the dump is not of a Xen host, or if none are known."""
    xen = host_domains.host(target, options.xen_syms, force=options.force)
    rows, warnings = pcpu_details.read(xen)
    if not rows:
        raise AbsentError(f"{target.path}: no note of a pCPU, and no xen-syms that leads to them")
    return Pcpus(rows, [*xen.warnings, *warnings])


class VcpuJson(TypedDict):
    """A vCPU."""

    vcpu: Hex
    domain: Count | None
    id: Count | None


class PcpuJson(TypedDict):
    """A pCPU."""

    pcpu: Count
    online: bool | None
    apic_id: Count | None
    current: VcpuJson | None
    loaded: VcpuJson | None
    idle: VcpuJson | None
    is_idle: bool | None
    cr3: Hex | None
    stack: list[Hex] | None
    per_cpu: Hex | None
    softirqs: Hex | None
    softirq_names: list[str]


class JSON(TypedDict):
    """What ``pcpus --json`` prints."""

    pcpus: list[PcpuJson]


class Pcpus(NamedTuple):
    """The pCPUs of a host."""

    rows: list[PcpuDetails]
    warnings: list[str]

    def text(self) -> Iterator[str]:
        """A line per pCPU."""
        return table([_HEAD, *(tuple(_cells(row)) for row in self.rows)], _NUMBERS)

    def json(self) -> JSON:
        """Every pCPU."""
        return {"pcpus": [_json(row) for row in self.rows]}


def _cells(row: PcpuDetails) -> Iterator[str]:
    pcpu = row.pcpu
    yield str(row.number)
    yield "-" if row.apic_id is None else str(row.apic_id)
    runs = "-" if row.current is None else str(row.current)
    if row.online is False:
        runs += " (offline)"
    yield runs if row.loaded is None else f"{runs} ({row.loaded} loaded)"
    yield "-" if pcpu is None or pcpu.cr3 is None else f"{pcpu.cr3:x}"
    stack = row.stack
    yield "-" if stack is None else f"{stack[0]:x}-{stack[1]:x}"
    yield "-" if row.per_cpu is None else f"{row.per_cpu:x}"
    yield "-" if row.idle is None else f"{row.idle.address:x}"
    if row.softirqs is None:
        yield "-"
    else:
        yield ",".join(name.removesuffix("_SOFTIRQ") for name in row.softirq_names) or "none"


def _vcpu(vcpu: VcpuName | None) -> VcpuJson | None:
    if vcpu is None:
        return None
    return {"vcpu": hex(vcpu.address), "domain": vcpu.domain, "id": vcpu.id}


def _json(row: PcpuDetails) -> PcpuJson:
    pcpu = row.pcpu
    stack = row.stack
    return {
        "pcpu": row.number,
        "online": row.online,
        "apic_id": row.apic_id,
        "current": _vcpu(row.current),
        "loaded": _vcpu(row.loaded),
        "idle": _vcpu(row.idle),
        "is_idle": None if row.current is None else row.current.is_idle,
        "cr3": None if pcpu is None or pcpu.cr3 is None else hex(pcpu.cr3),
        "stack": None if stack is None else [hex(stack[0]), hex(stack[1])],
        "per_cpu": None if row.per_cpu is None else hex(row.per_cpu),
        "softirqs": None if row.softirqs is None else hex(row.softirqs),
        "softirq_names": row.softirq_names,
    }
