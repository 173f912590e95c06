"""What Xen records of one domain beyond its vCPUs' registers and its memory."""

from collections.abc import Iterator

from .._native import AbsentError
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_CPU_MASK, MAX_DETAILS_READ
from . import locks
from .locks import Held
from .structs import CpuMask, Structs

if TYPE_CHECKING:
    from .host import HostDomain
    from .vcpus import XenVcpu

#: Why a domain was shut down, by ``domain.shutdown_code`` (public ABI, SHUTDOWN_*).
REASONS = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset")
#: Of a domain that was not shut down (SHUTDOWN_CODE_INVALID).
_NO_REASON = 0xFFFF_FFFF
#: ``domain.arch.paging.mode``: PG_refcounts to PG_external, PG_SH_enable, PG_HAP_enable,
#: PG_SH_forced. Their bits are the same from 3.1 on.
_MODES = (
    (1 << 20, "shadow"),
    (1 << 21, "hap"),
    (1 << 22, "shadow forced"),
    (1 << 11, "refcounts"),
    (1 << 12, "log_dirty"),
    (1 << 13, "translate"),
    (1 << 14, "external"),
)
_SHADOW = _MODES[0][0]
#: Flags of ``vcpu.pause_flags`` (VPF_*) by their bits. The first five have them in every version
#: with a sched_unit.
_PAUSED = ("blocked", "down", "blocked_in_xen", "migrating")
#: Bits of ``domain.vm_assist`` (public ABI, VMASST_TYPE_*).
_ASSISTS = {
    0: "4gb_segments",
    1: "4gb_segments_notify",
    2: "writable_pagetables",
    3: "pae_extended_cr3",
    4: "architectural_iopl",
    5: "runstate_update_flag",
    32: "m2p_strict",
}
#: ``vcpu.dirty_cpu`` if no pCPU has its state (VCPU_CPU_CLEAN).
_CLEAN = 0xFFFF_FFFF
#: ``domain.is_dying`` by its enumerators.
_DYING = ("DOMDYING_alive", "DOMDYING_dying", "DOMDYING_dead")


class VcpuDetails(NamedTuple):
    """A vCPU as the scheduler sees it. What is not known is None."""

    id: int
    address: int
    state: str
    pcpu: int | None
    online: bool | None
    #: Why it does not run.
    flags: list[str]
    #: How often it is paused.
    pause_count: int | None
    hard_affinity: CpuMask | None
    soft_affinity: CpuMask | None
    #: The event channel that it polls; 0 for none, -1 for several.
    polls: int | None
    #: Whether its events are pending and masked, by its vcpu_info.
    upcall_pending: bool | None
    upcall_masked: bool | None
    #: The pCPU that has its state; None if there is none.
    dirty_pcpu: int | None


class Details(NamedTuple):
    """A domain in full. What is not known is None."""

    #: "PV", "NPT", "EPT", "shadow"; None if it is not known.
    p2m: str | None
    #: The flags of its paging mode; empty for a PV guest in none.
    paging: list[str] | None
    privileged: bool | None
    #: The sum of the pauses of Xen and of the toolstack.
    pause_count: int | None
    #: "alive", "dying" or "dead".
    dying: str | None
    shutting_down: bool | None
    shut_down: bool | None
    #: "crash", "poweroff", ...; None if it was not shut down.
    shutdown_reason: str | None
    max_pages: int | None
    shared_pages: int | None
    outstanding_pages: int | None
    xenheap_pages: int | None
    max_vcpus: int | None
    #: "2-level" or "FIFO".
    event_channel_abi: str | None
    event_channels: int | None
    grant_version: int | None
    cpupool: int | None
    #: What refers to its struct.
    references: int | None
    #: The pCPUs that have state of it.
    dirty_pcpus: CpuMask | None
    #: The NUMA nodes that its memory is taken from first.
    nodes: CpuMask | None
    #: By name.
    vm_assists: list[str] | None
    vcpus: list[VcpuDetails]
    #: Its locks that are held; None if they are not known.
    locks: list[Held] | None
    warnings: list[str]

    @property
    def state(self) -> list[str]:
        """Its state in words; empty if nothing of it is known."""
        return list(self._state())

    def _state(self) -> Iterator[str]:
        if self.dying is None and self.pause_count is None:
            return
        found = False
        if self.dying not in (None, "alive"):
            found = True
            yield str(self.dying)
        if self.shut_down or self.shutting_down:
            found = True
            what = "shut down" if self.shut_down else "shutting down"
            yield "crashed" if self.shutdown_reason == "crash" else what
        if self.pause_count:
            found = True
            yield f"paused ({self.pause_count})"
        if not found:
            yield "alive"


def read(domain: "HostDomain") -> Details:
    """The details; without the DWARF of xen-syms most are unknown, and a warning says so."""
    xen = domain.xen
    warnings: list[str] = []
    try:
        structs: Structs | None = xen.structs
    except AbsentError as error:
        warnings.append(str(error))
        structs = None
    # Searches with budgets of their own.
    mode = None
    if structs is not None:
        mode = structs.number("domain.arch.paging.mode", domain.address)
    elif domain.is_translated:
        at = xen.paging_mode_at
        mode = None if at is None else xen.memory.number(domain.address + at, 4)
        if mode is not None:
            warnings.append("the paging mode is inferred: the only one that fits every domain")
    p2m = _p2m(domain, mode, warnings)
    vcpus = domain.vcpus
    with xen.memory.budget("details of a domain", MAX_DETAILS_READ):
        found = _read(domain, structs, mode, warnings)
        held = None if structs is None else list(locks.Reader(xen).of_domain(domain))
        rows = [_vcpu(vcpu, structs) for vcpu in vcpus]
        return found._replace(p2m=p2m, vcpus=rows, locks=held)


def _read(
    domain: "HostDomain", structs: Structs | None, mode: int | None, warnings: list[str]
) -> Details:
    address = domain.address

    def field(name: str) -> int | None:
        return None if structs is None else structs.number(f"domain.{name}", address)

    def flag(name: str) -> bool | None:
        found = field(name)
        return None if found is None else bool(found)

    code = field("shutdown_code")
    reason = None
    if code not in (None, _NO_REASON):
        assert code is not None
        reason = REASONS[code] if code < len(REASONS) else f"code {code}"
    at = domain.xen.layout.get("domain.max_pages")
    max_pages = field("max_pages")
    if max_pages is None and at is not None:
        max_pages = domain.xen.memory.number(address + at, 4)
    pauses = [n for n in (field("pause_count"), field("controller_pause_count")) if n is not None]
    return Details(
        p2m=None,
        paging=None if mode is None else [name for bit, name in _MODES if mode & bit],
        privileged=flag("is_privileged"),
        # The toolstack's pauses are also in pause_count.
        pause_count=max(pauses, default=None),
        dying=_dying(structs, field("is_dying")),
        shutting_down=flag("is_shutting_down"),
        shut_down=flag("is_shut_down"),
        shutdown_reason=reason,
        max_pages=max_pages,
        shared_pages=field("shr_pages"),
        outstanding_pages=field("outstanding_pages"),
        xenheap_pages=field("xenheap_pages"),
        max_vcpus=field("max_vcpus"),
        event_channel_abi=event_channel_abi(structs, address),
        event_channels=field("active_evtchns"),
        grant_version=_grant_version(structs, address),
        cpupool=_cpupool(structs, address),
        references=field("refcnt.counter"),
        dirty_pcpus=None if structs is None else structs.mask("domain.dirty_cpumask", address),
        nodes=_nodes(structs, address),
        vm_assists=_assists(field("vm_assist")),
        vcpus=[],
        locks=None,
        warnings=warnings,
    )


def _nodes(structs: Structs | None, domain: int) -> CpuMask | None:
    path = "domain.node_affinity"
    if structs is None or not structs.has(path):
        return None
    member = structs.member(path)
    size = min(member.size, MAX_CPU_MASK)
    data = structs.memory.read(domain + member.offset, size)
    return None if data is None else CpuMask(int.from_bytes(data, "little"), size * 8)


def _assists(value: int | None) -> list[str] | None:
    if value is None:
        return None
    bits = [bit for bit in range(64) if value >> bit & 1]
    return [_ASSISTS.get(bit, f"assist {bit}") for bit in bits]


def event_channel_abi(structs: Structs | None, domain: int) -> str | None:
    """The ABI that the guest chose: FIFO since Xen 4.4, if it has set up its control block."""
    if structs is None:
        return None
    if not structs.has("domain.evtchn_fifo"):
        return "2-level"
    found = structs.number("domain.evtchn_fifo", domain)
    return None if found is None else "FIFO" if found else "2-level"


def _grant_version(structs: Structs | None, domain: int) -> int | None:
    table = None if structs is None else structs.pointer("domain.grant_table", domain)
    if structs is None or table is None:
        return None
    return structs.number("grant_table.gt_version", table)


def _cpupool(structs: Structs | None, domain: int) -> int | None:
    pool = None if structs is None else structs.pointer("domain.cpupool", domain)
    return None if structs is None or pool is None else structs.number("cpupool.cpupool_id", pool)


def _dying(structs: Structs | None, value: int | None) -> str | None:
    if structs is None or value is None:
        return None
    for name in _DYING:
        if structs.enumerator(name) == value:
            return name.removeprefix("DOMDYING_")
    return f"is_dying {value}"


def _p2m(domain: "HostDomain", mode: int | None, warnings: list[str]) -> str | None:
    """The kind of its P2M."""
    if domain.kind == "pv":
        return "PV"
    if not domain.is_translated:
        return None
    if mode is not None and mode & _SHADOW:
        return "shadow"
    try:
        form = domain.nested.p2m.nested_format or ""
    except AbsentError as error:
        warnings.append(str(error))
        return None
    kind = form[:3].upper()
    if mode is None and kind == "NPT":
        # Under shadow paging Xen keeps the P2M in the same format.
        warnings.append("NPT or shadow paging: the tables have the same format")
        return None
    return kind or None


def _vcpu(vcpu: "XenVcpu", structs: Structs | None) -> VcpuDetails:
    address = vcpu.address
    flags: list[str] = []
    online = pauses = hard = soft = None
    if structs is not None and address is not None:
        raw = structs.number("vcpu.pause_flags", address)
        if raw is not None:
            online = not raw >> _PAUSED.index("down") & 1
            flags = [name for bit, name in enumerate(_PAUSED) if raw >> bit & 1]
            rest = raw >> len(_PAUSED) << len(_PAUSED)
            flags += [hex(rest)] if rest else []
        pauses = structs.number("vcpu.pause_count", address)
        # Since 4.13 vCPUs are scheduled in units.
        unit = structs.pointer("vcpu.sched_unit", address)
        if unit is not None:
            hard = structs.mask("sched_unit.cpu_hard_affinity", unit)
            soft = structs.mask("sched_unit.cpu_soft_affinity", unit)
        else:
            hard = structs.mask("vcpu.cpu_hard_affinity", address)
            soft = structs.mask("vcpu.cpu_soft_affinity", address)
    polls = dirty = pending = masked = None
    if structs is not None and address is not None:
        polls = structs.number("vcpu.poll_evtchn", address)
        dirty = structs.number("vcpu.dirty_cpu", address)
        pending, masked = _upcall(structs, address)
    return VcpuDetails(
        vcpu.id,
        address or 0,
        vcpu.state,
        vcpu.pcpu,
        online,
        flags,
        pauses,
        hard,
        soft,
        polls,
        pending,
        masked,
        None if dirty == _CLEAN else dirty,
    )


def _upcall(structs: Structs, vcpu: int) -> tuple[bool | None, bool | None]:
    """evtchn_upcall_pending and evtchn_upcall_mask, which start a vcpu_info (public ABI)."""
    # vcpu_info_area is in 4.20.
    for path in ("vcpu.vcpu_info_area.map", "vcpu.vcpu_info"):
        info = structs.pointer(path, vcpu) if structs.has(path) else None
        flags = None if info is None else structs.memory.number(info, 2)
        if flags is not None:
            return bool(flags & 0xFF), bool(flags >> 8 & 0xFF)
    return None, None
