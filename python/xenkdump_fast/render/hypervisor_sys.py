"""``sys --hypervisor`` in the manner of crash's hypervisor session, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..commands.hypervisor import XenSystem
from ..linux.header import date_text
from .escape import visible
from .sys import size, uptime

_UNKNOWN = "(unknown)"


def lines(result: XenSystem) -> Iterator[str]:
    """A line a field, the labels right-aligned."""
    return (f"{label:>12}: {visible(value)}" for label, value in _rows(result))


def _rows(result: XenSystem) -> Iterator[tuple[str, str]]:
    header = result.header
    yield "KERNEL", result.kernel or "(no xen-syms)"
    yield "DUMPFILE", result.dump
    yield "CPUS", str(len(header.pcpus))
    yield "DOMAINS", str(header.domains)
    yield "DATE", _UNKNOWN if header.date is None else date_text(header.date)
    yield "UPTIME", _UNKNOWN if header.uptime is None else uptime(header.uptime)
    yield "RELEASE", header.version or _UNKNOWN
    yield "CHANGESET", header.changeset or _UNKNOWN
    yield "COMPILED", header.compiled or _UNKNOWN
    yield "COMPILER", header.compiler or _UNKNOWN
    yield "COMMAND LINE", _UNKNOWN if header.command_line is None else header.command_line
    rate = "unknown" if header.mhz is None else header.mhz
    yield "MACHINE", f"{header.machine}  ({rate} Mhz)"
    yield "MEMORY", _UNKNOWN if header.memory is None else size(header.memory)
    yield "PANIC", _UNKNOWN if header.reason is None else f'"{header.reason}"'
    yield "PCPU", _UNKNOWN if header.crashed_on is None else str(header.crashed_on)
    yield "LAYOUT BY", header.layout


def json(result: XenSystem) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"kernel": result.kernel, **asdict(result.header)}
