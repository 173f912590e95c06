"""Facts of the hypervisor: version, build, command line, uptime, memory, reason of the crash."""

import re
from collections.abc import Callable, Iterable, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, TypeVar
from ..isolation import isolated
from ..limits import MAX_XEN_COMMAND_LINE
from ..parsing import number
from . import compat, console, crash_info, frame_table, shared_info
from .console_ring import Console
from .host import XenHost
from .memory import PAGE

T = TypeVar("T")
#: Xen's messages about the reason of a crash.
_REASONS = tuple(compat.values("reason"))
#: A guest prints its own command line to the same ring, after "(d1) ".
#: "(XEN) Xen version 4.17.5 (Debian 4.17.5-1) (user@host) (gcc ...) ...".
_VERSION = r"^\(XEN\) (?:\[[^]]*\] )?Xen version (\d+\.\d+\S*(?: \([^()@]*\))?)"
_COMMAND_LINE = r"^\(XEN\) (?:\[[^]]*\] )?Command line: (.*)"


class Header(NamedTuple):
    """The facts of a hypervisor; None for one that is not known."""

    #: "4.17.7 (Debian ...)": major, minor and xen_extra_version.
    version: str | None
    changeset: str | None
    compiler: str | None
    #: xen_compile_date and xen_compile_time.
    compiled: str | None
    command_line: str | None
    #: Numbers of the pCPUs that have notes.
    pcpus: list[int]
    domains: int
    #: The time of the crash in seconds since the epoch, and the seconds since Xen started.
    date: int | None
    uptime: int | None
    #: Bytes of memory that Xen manages; without xen-syms the size in the dump's headers.
    memory: int
    #: Whether it may be more: the dump's headers leave out what Xen did not dump.
    memory_is_minimum: bool
    machine: str
    mhz: int | None
    #: The crashing pCPU's number, and the reason that Xen printed last.
    crashed_on: int | None
    reason: str | None
    #: How the layout of Xen's structs was found.
    layout: str


def read(xen: XenHost, ring: Console | None = None) -> Header:
    """Collects the facts from the notes, from Xen's variables and from its console.

    ``ring`` is the console, if it was read before.
    """

    def attempt(what: str, get: Callable[[XenHost], T]) -> T | None:
        with isolated(f"{what} is not known", xen.warnings.append):
            return get(xen)
        return None

    info = crash_info.read(xen.dump)
    if ring is None:
        ring = _console(xen)
    uptime = attempt("UPTIME", _uptime)
    booted = attempt("DATE", _booted)
    reason, cpu = _reason(ring)
    compiled, clock = info.get("xen_compile_date") or "", info.get("xen_compile_time") or ""
    if clock not in compiled:
        # In current versions xen_compile_date includes the time.
        compiled = f"{compiled} {clock}"
    memory = attempt("MEMORY", _memory)
    return Header(
        version=crash_info.version(info) or _version(ring),
        changeset=info.get("xen_changeset"),
        compiler=info.get("xen_compiler"),
        compiled=compiled or None,
        machine="x86_64" if xen.word == 8 else "i686",
        command_line=_command_line(xen, ring),
        pcpus=[pcpu.number for pcpu in xen.pcpus],
        domains=len(xen.domains()),
        date=None if booted is None or uptime is None else (booted + uptime) // 10**9,
        uptime=None if uptime is None else uptime // 10**9,
        memory=xen.dump.memory_size if memory is None else memory,
        memory_is_minimum=memory is None,
        mhz=attempt("the clock rate", _mhz),
        crashed_on=cpu,
        reason=reason,
        layout=xen.layout.how,
    )


def _console(xen: XenHost) -> Console | None:
    try:
        return console.read(xen)
    except AbsentError:
        return None


def _uptime(xen: XenHost) -> int | None:
    """Nanoseconds from the start of Xen to the last change of any vCPU's state.

    Xen does not store the time of a crash, but vCPUs change their state many times a second.
    """
    at = xen.layout.get("vcpu.runstate")
    if at is None:
        return None
    # state, then state_entry_time: 64-bit numbers are aligned to 4 on 32-bit x86.
    at += 8 if xen.word == 8 else 4
    times = (
        xen.memory.number(vcpu.address + at, 8)
        for domain in xen.domains()
        for vcpu in domain.vcpus
        if vcpu.address is not None and not vcpu.warnings
    )
    return max((time for time in times if time is not None), default=None)


def _booted(xen: XenHost) -> int | None:
    """The time of day at which Xen's clock started, in nanoseconds, from any shared_info."""
    for domain in xen.domains():
        page = domain.shared_page
        if page is None:
            continue
        seconds, nanoseconds = shared_info.wallclock(page, domain.word)
        if seconds > 1 << 30 and nanoseconds < 10**9:
            return seconds * 10**9 + nanoseconds
    return None


def _memory(xen: XenHost) -> int | None:
    """Bytes according to ``total_pages``; None without xen-syms."""
    at = xen.symbols.get("total_pages") if xen.symbols is not None else None
    pages = xen.memory.pointer(at) if at is not None else None
    limit = frame_table.max_page(xen.memory, xen.facts.frames)
    return pages * PAGE if pages and (limit is None or pages <= limit) else None


def _mhz(xen: XenHost) -> int | None:
    at = xen.symbols.get("cpu_khz") if xen.symbols is not None else None
    khz = xen.memory.pointer(at) if at is not None else None
    return khz // 1000 if khz and khz < 10**8 else None


def _command_line(xen: XenHost, ring: Console | None) -> str | None:
    """``saved_cmdline``; else the line that Xen prints to its console."""
    at = xen.symbols.get("saved_cmdline") if xen.symbols is not None else None
    data = xen.memory.read(at, MAX_XEN_COMMAND_LINE) if at is not None else None
    if data is not None:
        return data.partition(b"\0")[0].decode("utf-8", "backslashreplace").strip()
    for line in ring.lines if ring else ():
        found = re.match(_COMMAND_LINE, line)
        if found:
            return found[1].strip()
    return None


def _version(ring: Console | None) -> str | None:
    """The version in the first line that Xen printed, if the ring still has it."""
    for line in ring.lines if ring else ():
        found = re.match(_VERSION, line)
        if found:
            return found[1]
    return None


def _reason(ring: Console | None) -> tuple[str | None, int | None]:
    """The reason that Xen printed last, and the pCPU in it."""
    lines = ring.lines if ring else []
    for i in range(len(lines) - 1, -1, -1):
        for pattern in _REASONS:
            found = re.search(pattern, lines[i])
            if found:
                text = found[0]
                if text.endswith(":"):
                    # The reason itself is on the lines after "Panic on CPU 0:".
                    text = " ".join([text, *_messages(lines[i + 1 : i + 3])])
                cpu = re.search(r"(?:CPU|cpu) ?(\d+)", text)
                return text, number(cpu[1]) if cpu else None
    return None, None


def _messages(lines: Sequence[str]) -> Iterable[str]:
    for line in lines:
        text = line.removeprefix("(XEN) ").strip()
        if text and not text.startswith("****"):
            yield text
