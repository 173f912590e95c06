"""``pcpus``: every pCPU of a Xen host."""

import argparse
from collections.abc import Iterator

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..output.table import table
from ..session import DumpFile
from ..xen import locks, pcpu_details, timers
from ..xen.locks import Locks
from ..xen.pcpu_details import PcpuDetails, VcpuName
from ..xen.timers import Timer, Timers
from . import held_locks, host_domains
from .held_locks import LockJson

_HEAD = ("PCPU", "APIC", "RUNS", "CR3", "XEN STACK", "PER-CPU", "IDLE VCPU", "SOFTIRQS")
#: Columns that are numbers.
_NUMBERS = (0, 1, 3)
_TIMERS = ("EXPIRES", "IN", "TIMER", "WHERE", "FUNCTION", "DATA")


class Options(NamedTuple):
    """The sources of symbols."""

    #: Lists the timers of each pCPU, as Xen's debug key a.
    timers: bool = False
    #: Lists the locks that are held: Xen's, of pCPUs and of domains.
    locks: bool = False
    #: Path of Xen's symbols.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``pcpus``."""
    parser.add_argument("--timers", action="store_true", help="each pCPU's timers by their expiry")
    parser.add_argument(
        "--locks", action="store_true", help="held locks of Xen, of pCPUs and of domains"
    )
    host_domains.add_options(parser)


def run(target: DumpFile, options: Options = Options()) -> "Pcpus":
    """Lists the pCPUs; AbsentError if the dump is not of a Xen host, or if none are known."""
    xen = host_domains.host(target, options.xen_syms, force=options.force)
    rows, warnings = pcpu_details.read(xen)
    if not rows:
        raise AbsentError(f"{target.path}: no note of a pCPU, and no xen-syms that leads to them")
    found = timers.read(xen) if options.timers else None
    held = locks.read(xen) if options.locks else None
    more = [] if found is None else found.warnings
    more += [] if held is None else held.warnings
    return Pcpus(rows, [*xen.warnings, *warnings, *more], found, held)


class VcpuJson(TypedDict):
    """A vCPU."""

    vcpu: Hex
    domain: Count | None
    id: Count | None


class TimerJson(TypedDict):
    """A timer that is set. ``expires`` is a system time in ns."""

    expires: int
    timer: Hex
    where: str
    function: Hex
    symbol: str | None
    offset: Count
    data: Hex
    problem: str | None


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
    timers: NotRequired[list[TimerJson]]
    locks: NotRequired[list[LockJson]]


class TimeJson(TypedDict):
    """The latest system time that Xen has recorded, in ns, and what recorded it."""

    ns: Count
    by: str


class DomainLocksJson(TypedDict):
    """The held locks of a domain."""

    domain: Count
    locks: list[LockJson]


class JSON(TypedDict):
    """What ``pcpus --json`` prints. ``time`` with ``--timers``, if it is known; the held locks of
    Xen and of domains with ``--locks``.
    """

    pcpus: list[PcpuJson]
    time: NotRequired[TimeJson]
    locks: NotRequired[list[LockJson]]
    domains: NotRequired[list[DomainLocksJson]]


class Pcpus(NamedTuple):
    """The pCPUs of a host."""

    rows: list[PcpuDetails]
    warnings: list[str]
    #: Their timers, if they are asked for.
    timers: Timers | None = None
    #: The held locks, if they are asked for.
    locks: Locks | None = None

    def text(self) -> Iterator[str]:
        """A line per pCPU, then its timers."""
        yield from table([_HEAD, *(tuple(_cells(row)) for row in self.rows)], _NUMBERS)
        if self.timers is not None:
            yield from _timers(self.timers)
        if self.locks is not None:
            yield from _locks(self.locks)

    def json(self) -> JSON:
        """Every pCPU."""
        found: JSON = {"pcpus": [_json(row) for row in self.rows]}
        if self.timers is not None:
            by_pcpu = {row.pcpu: row.timers for row in self.timers.rows}
            for one in found["pcpus"]:
                one["timers"] = [_timer_json(timer) for timer in by_pcpu.get(one["pcpu"], [])]
            if self.timers.time is not None and self.timers.time_by is not None:
                found["time"] = {"ns": self.timers.time, "by": self.timers.time_by}
        held = self.locks
        if held is not None:
            for one in found["pcpus"]:
                one["locks"] = list(map(held_locks.to_json, held.of_pcpus.get(one["pcpu"], [])))
            found["locks"] = list(map(held_locks.to_json, held.of_xen))
            found["domains"] = [
                {"domain": domain, "locks": list(map(held_locks.to_json, own))}
                for domain, own in held.of_domains.items()
            ]
        return found


def _locks(found: Locks) -> Iterator[str]:
    """A line for each lock that is held."""
    yield ""
    rows = [("Xen", one) for one in found.of_xen]
    rows += [(f"pCPU {number}", one) for number, own in found.of_pcpus.items() for one in own]
    rows += [(f"domain {number}", one) for number, own in found.of_domains.items() for one in own]
    none = "none" if found.complete else "none of the global ones"
    yield f"HELD LOCKS: {len(rows) or none}; {found.note}"
    for what, one in rows:
        yield f"    {what}: {one} at {one.address:x}"


def _timers(found: Timers) -> Iterator[str]:
    time = found.time
    yield ""
    if time is None:
        yield "TIME: not known"
    else:
        yield f"TIME: {_seconds(time)} s or later (by the {found.time_by})"
    for row in found.rows:
        yield ""
        yield f"pCPU {row.pcpu}: {len(row.timers)} timer{'' if len(row.timers) == 1 else 's'}"
        if row.timers:
            rows = [tuple(_timer(timer, time)) for timer in row.timers]
            yield from table([_TIMERS, *rows], (0, 1, 2))


def _seconds(ns: int) -> str:
    sign, ns = ("-" if ns < 0 else ""), abs(ns)
    return f"{sign}{ns // 10**9}.{ns % 10**9 // 1000:06}"


def _timer(timer: Timer, time: int | None) -> Iterator[str]:
    yield _seconds(timer.expires)
    # As in the output of the debug key.
    yield "-" if time is None else f"{(timer.expires - time) // 1000} us"
    yield f"{timer.address:x}"
    yield timer.where + (" [damaged]" if timer.problem else "")
    offset = f"+{timer.offset:#x}" if timer.offset else ""
    name = None if timer.symbol is None else visible(timer.symbol) + offset
    yield name or f"{timer.function:x}"
    yield f"{timer.data:x}"


def _timer_json(timer: Timer) -> TimerJson:
    return {
        "expires": timer.expires,
        "timer": hex(timer.address),
        "where": timer.where,
        "function": hex(timer.function),
        "symbol": timer.symbol,
        "offset": timer.offset,
        "data": hex(timer.data),
        "problem": timer.problem,
    }


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
