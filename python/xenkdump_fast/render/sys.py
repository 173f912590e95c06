"""``sys`` as crash's session header, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.sys import System
from ..linux.header import FIXED_1, date_text
from .escape import visible

_UNKNOWN = "(unknown)"


def lines(result: System) -> Iterator[str]:
    """A line a field, the labels right-aligned."""
    return (f"{label:>12}: {visible(value)}" for label, value in _rows(result))


def _rows(result: System) -> Iterator[tuple[str, str]]:
    header = result.header
    tainted = "  [TAINTED]" if header.tainted else ""
    yield "KERNEL", result.kernel + tainted
    yield "DUMPFILE", result.dump
    yield "CPUS", f"{header.cpus}" + (f" [OFFLINE: {header.offline}]" if header.offline else "")
    yield "DATE", _UNKNOWN if header.date is None else date_text(header.date)
    yield "UPTIME", _UNKNOWN if header.uptime is None else uptime(header.uptime)
    yield "LOAD AVERAGE", _UNKNOWN if header.load is None else ", ".join(map(load, header.load))
    yield "TASKS", str(header.task_count)
    yield "NODENAME", header.uts.get("nodename", _UNKNOWN)
    yield "RELEASE", header.uts.get("release", _UNKNOWN)
    yield "VERSION", header.uts.get("version", _UNKNOWN)
    rate = "" if header.mhz is None else f"  ({header.mhz} Mhz)"
    yield "MACHINE", header.uts.get("machine", _UNKNOWN) + rate
    yield "MEMORY", _UNKNOWN if header.memory is None else size(header.memory)
    yield "PANIC", "" if header.panic is None else f'"{header.panic}"'
    task = header.task
    if task is not None:
        yield "PID", str(task.pid)
        yield "COMMAND", f'"{task.comm}"'
        where = "" if header.thread_info is None else f"  [THREAD_INFO: {header.thread_info:x}]"
        yield "TASK", f"{task.address:x}{where}"
        yield "CPU", str(task.cpu)
        yield "STATE", header.state or _UNKNOWN


def uptime(seconds: int) -> str:
    """``00:01:42``, with days in front where there are any."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} days, {clock}" if days else clock


def load(average: int) -> str:
    """A load average with two decimals, rounded as /proc/loadavg rounds."""
    rounded = average + FIXED_1 // 200
    return f"{rounded // FIXED_1}.{rounded % FIXED_1 * 100 // FIXED_1:02}"


def size(octets: int) -> str:
    """``320 MB``, ``887.4 MB``, ``1.5 GB``: one decimal, none where it would be 0."""
    unit, name = (1 << 30, "GB") if octets >= 1 << 30 else (1 << 20, "MB")
    return f"{octets / unit:.1f}".removesuffix(".0") + f" {name}"


def json(result: System) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    header = result.header
    task = header.task
    return {
        "domain": result.domain,
        "kernel": result.kernel,
        "p2m_source": result.p2m_source,
        "cpus": header.cpus,
        "offline": header.offline,
        "date": header.date,
        "uptime": header.uptime,
        "load_average": None if header.load is None else [float(load(a)) for a in header.load],
        "tasks": header.task_count,
        **{name: header.uts.get(name) for name in ("nodename", "release", "version", "machine")},
        "mhz": header.mhz,
        "memory": header.memory,
        "panic": header.panic,
        "tainted": header.tainted,
        "pid": None if task is None else task.pid,
        "comm": None if task is None else task.comm,
        "task": None if task is None else hex(task.address),
        "cpu": None if task is None else task.cpu,
        "state": header.state,
    }
