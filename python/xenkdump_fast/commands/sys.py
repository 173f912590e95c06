"""``sys``: the session header, of a kernel or of Xen."""

from collections.abc import Iterator

from .._typing import TYPE_CHECKING, NamedTuple, TypedDict, cast, overload
from ..linux import header
from ..linux.clock import date_text
from ..linux.header import FIXED_1
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..session import Domain

if TYPE_CHECKING:
    from .._native import Image, Types
    from ..xen.header import Header as XenHeader
    from ..xen.host import XenHost

_UNKNOWN = "(unknown)"


class Options(NamedTuple):
    """``sys`` has no options."""


@overload
def run(target: Domain, options: Options = ...) -> "System": ...


@overload
def run(target: "XenHost", options: Options = ...) -> "XenSystem": ...


def run(target: "Domain | XenHost", options: Options = Options()) -> "System | XenSystem":
    """Reads the header of a domain's kernel, or of Xen."""
    if isinstance(target, Domain):
        return System(
            kernel=_image_name(target),
            dump=target.dump.path,
            dump_level=target.dump.native.dump_level,
            domain=target.id,
            is_xen=target.dump.is_xen_host,
            p2m_source=target.p2m.source if target.has_p2m else None,
            header=header.read(target.kernel),
        )
    from ..xen import header as xen_header

    return XenSystem(target.symbols_path, target.dump.path, xen_header.read(target))


def _image_name(target: Domain) -> str:
    """Where the kernel's symbols and types are from."""
    image = target.kernel.image
    types = target.kernel.types.native
    if image.symbol_source == "map":
        return f"{image.path} ({'no types' if types is None else 'types from memory'})"
    if image.is_memory:
        return f"(symbols{'' if types is None else ' and types'} from memory)"
    if target.found_vmlinux:
        return f"{image.path} (found by its build id)"
    if image.symbol_source == "kallsyms":
        return f"{image.path} (symbols from its kallsyms{_types(image, types)})"
    if image.debug_path is not None:
        return f"{image.path} (with {image.debug_path})"
    return image.path


def _types(image: "Image", types: "Types | None") -> str:
    """Where the types of a kernel without a symbol table are from."""
    if types is None:
        return ""
    has_btf = any(name == ".BTF" for name, *_ in image.sections())
    return f", types from its {types.source}" if has_btf else ", types from memory"


class JSON(TypedDict):
    """What ``sys --json`` prints. ``dump_level`` is as makedumpfile's option -d, if recorded."""

    domain: Count
    kernel: str
    p2m_source: str | None
    dump_level: int | None
    cpus: Count
    offline: Count
    date: int | None
    uptime: int | None
    load_average: tuple[float, float, float] | None
    tasks: Count | None
    nodename: str | None
    release: str | None
    version: str | None
    machine: str | None
    mhz: Count | None
    memory: Count | None
    panic: str | None
    tainted: Count | None
    pid: int | None
    comm: str | None
    task: Hex | None
    cpu: Count | None
    state: str | None


class System(NamedTuple):
    """The session header of a kernel."""

    #: Paths as given, as crash prints them.
    kernel: str
    dump: str
    #: Which kinds of pages makedumpfile excluded; None if the dump does not record it.
    dump_level: int | None
    domain: int
    #: Whether the dump has several domains.
    is_xen: bool
    p2m_source: str | None
    header: header.Header

    def text(self) -> Iterator[str]:
        """One line per field, the labels right-aligned as in crash, and the domain under Xen."""
        return _aligned(_rows(self))

    def json(self) -> JSON:
        """Every field."""
        header = self.header
        task = header.task
        return {
            "domain": self.domain,
            "kernel": self.kernel,
            "p2m_source": self.p2m_source,
            "dump_level": self.dump_level,
            "cpus": header.cpus,
            "offline": header.offline,
            "date": header.date,
            "uptime": header.uptime,
            "load_average": None if header.load is None else _loads(header.load),
            "tasks": header.task_count,
            "nodename": header.uts.get("nodename"),
            "release": header.uts.get("release"),
            "version": header.uts.get("version"),
            "machine": header.uts.get("machine"),
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


def _rows(result: System) -> Iterator[tuple[str, str]]:
    header = result.header
    tainted = "  [TAINTED]" if header.tainted else ""
    yield "KERNEL", result.kernel + tainted
    # As crash, which takes a negative level for none.
    partial = "  [PARTIAL DUMP]" if (result.dump_level or 0) > 0 else ""
    yield "DUMPFILE", result.dump + partial
    if result.is_xen:
        yield "DOMAIN", str(result.domain)
    yield "CPUS", f"{header.cpus}" + (f" [OFFLINE: {header.offline}]" if header.offline else "")
    yield "DATE", _UNKNOWN if header.date is None else date_text(header.date)
    yield "UPTIME", _UNKNOWN if header.uptime is None else uptime(header.uptime)
    yield "LOAD AVERAGE", _UNKNOWN if header.load is None else ", ".join(map(load, header.load))
    yield "TASKS", _UNKNOWN if header.task_count is None else str(header.task_count)
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


class HYPERVISOR_JSON(TypedDict):  # noqa: N801 - see the contract
    """What ``sys --hypervisor --json`` prints."""

    kernel: str | None
    version: str | None
    changeset: str | None
    compiler: str | None
    compiled: str | None
    command_line: str | None
    pcpus: list[Count]
    domains: Count
    date: int | None
    uptime: int | None
    memory: Count
    memory_is_minimum: bool
    machine: str
    mhz: Count | None
    crashed_on: Count | None
    reason: str | None
    layout: str


class XenSystem(NamedTuple):
    """The facts of the hypervisor."""

    #: The file with Xen's symbols; None without one.
    kernel: str | None
    dump: str
    header: "XenHeader"

    def text(self) -> Iterator[str]:
        """One line per field, as in crash's hypervisor session."""
        return _aligned(_xen_rows(self))

    def json(self) -> HYPERVISOR_JSON:
        """Every field."""
        return cast(HYPERVISOR_JSON, {"kernel": self.kernel, **self.header._asdict()})


def _xen_rows(result: XenSystem) -> Iterator[tuple[str, str]]:
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
    yield "MEMORY", ("at least " if header.memory_is_minimum else "") + size(header.memory)
    yield "PANIC", _UNKNOWN if header.reason is None else f'"{header.reason}"'
    yield "PCPU", _UNKNOWN if header.crashed_on is None else str(header.crashed_on)
    yield "LAYOUT BY", header.layout


def _aligned(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    return (f"{label:>12}: {visible(value)}" for label, value in rows)


def uptime(seconds: int) -> str:
    """``00:01:42``, preceded by days if there are any."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} days, {clock}" if days else clock


def load(average: int) -> str:
    """A load average with two decimals, rounded as in /proc/loadavg."""
    rounded = average + FIXED_1 // 200
    return f"{rounded // FIXED_1}.{rounded % FIXED_1 * 100 // FIXED_1:02}"


def _loads(averages: tuple[int, int, int]) -> tuple[float, float, float]:
    first, second, third = (float(load(average)) for average in averages)
    return first, second, third


def size(octets: int) -> str:
    """``320 MB``, ``887.4 MB``, ``1.5 GB``: one decimal, unless it is 0."""
    unit, name = (1 << 30, "GB") if octets >= 1 << 30 else (1 << 20, "MB")
    return f"{octets / unit:.1f}".removesuffix(".0") + f" {name}"
