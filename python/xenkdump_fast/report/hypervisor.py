"""Xen as plain data: its version, its pCPUs with their stacks, its console."""

import re
from typing import TYPE_CHECKING, NamedTuple

from .._native import AbsentError
from ..isolation import isolated
from ..xen import console, header, pcpu_details, stacks
from . import crashes
from .frames import frames, registers, short
from .model import Crash, Log, Pcpu, Xen

if TYPE_CHECKING:
    from ..xen.console_ring import Console
    from ..xen.header import Header
    from ..xen.host import XenHost
    from ..xen.pcpu_details import PcpuDetails
    from ..xen.stacks import PcpuTrace
    from .sizes import Sizes

#: Lines that Xen prints at the levels of errors and warnings: its ring does not keep levels.
_SEVERE = (
    (0, r"Panic on CPU|FATAL|\*{8}"),
    (3, r"(?i)\berror\b|\bfail(ed|ure)?\b|\bBUG\b|crashed"),
    (4, r"(?i)\bwarn(ing)?\b"),
)


class Gathered(NamedTuple):
    """What was gathered of Xen."""

    xen: Xen
    header: "Header"
    crash: Crash | None


def gather(host: "XenHost", sizes: "Sizes") -> Gathered:
    """The facts of the hypervisor."""
    ring: Console | None = None
    try:
        ring = console.read(host)
    except AbsentError as error:
        host.warnings.append(str(error))
    facts = header.read(host, ring)
    lines = [] if ring is None else ring.lines
    traces: list[PcpuTrace] = []
    with isolated("the stacks of pCPUs are not known", host.warnings.append):
        traces = stacks.traces(host)
    rows: list[PcpuDetails] = []
    with isolated("the pCPUs are not known", host.warnings.append):
        rows, warnings = pcpu_details.read(host)
        host.warnings += warnings
    shown = lines[-sizes.log_lines :]
    log: Log = {
        "lines": [{"time_ns": None, "level": _level(line), "text": short(line)} for line in shown],
        "omitted": len(lines) - len(shown),
    }
    found: Xen = {
        "version": facts.version,
        "changeset": facts.changeset,
        "compiler": facts.compiler,
        "compiled": facts.compiled,
        "command_line": facts.command_line,
        "date": facts.date,
        "uptime": facts.uptime,
        "memory": facts.memory,
        "memory_is_minimum": facts.memory_is_minimum,
        "mhz": facts.mhz,
        "layout": facts.layout,
        "symbols": host.symbols_path,
        "pcpus": [_pcpu(row, traces, sizes) for row in rows],
        "log": log if lines else None,
    }
    crash = None
    with isolated("where Xen failed is not known", host.warnings.append):
        crash = crashes.of_xen(host, facts.reason, lines, traces, facts.crashed_on)
    return Gathered(found, facts, crash)


def _level(line: str) -> int | None:
    if not line.startswith("(XEN)"):
        return None
    return next((level for level, pattern in _SEVERE if re.search(pattern, line)), 6)


def _pcpu(row: "PcpuDetails", traces: "list[PcpuTrace]", sizes: "Sizes") -> Pcpu:
    trace = next((one for one in traces if one.pcpu.number == row.number), None)
    pcpu = row.pcpu
    return {
        "pcpu": row.number,
        "online": row.online,
        "runs": None if row.current is None else str(row.current),
        "cr3": None if pcpu is None or pcpu.cr3 is None else hex(pcpu.cr3),
        "stack": None if row.stack is None else [hex(row.stack[0]), hex(row.stack[1])],
        "softirqs": row.softirq_names,
        "registers": registers(None if pcpu is None else pcpu.registers),
        "frames": [] if trace is None else frames(trace.frames, sizes.frames),
        "why": None if trace is None else trace.stopped,
    }
