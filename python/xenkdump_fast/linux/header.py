"""The facts of crash's session header: from KERNEL to STATE."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from .._native import AbsentError
from ..isolation import isolated
from . import names, panic, percpu, tasks
from .kernel import Kernel
from .system import Linux

T = TypeVar("T")
#: include/linux/sched/loadavg.h: load averages are fixed-point numbers with 11 bits of fraction.
FSHIFT = 11
FIXED_1 = 1 << FSHIFT
#: struct new_utsname (2.6.0 to today): six arrays of 65 bytes.
UTS_LENGTH = 65
UTS_FIELDS = ("sysname", "nodename", "release", "version", "machine", "domainname")
PAGE = 4096
#: The end of the year 9999. The kernel's own clock ends in 2262, when 63 bits of nanoseconds do.
LAST_SECOND = 253_402_300_799


class Header(NamedTuple):
    """What the kernel says of itself; None where the dump does not hold it."""

    cpus: int
    offline: int
    #: Seconds since 1970.
    date: int | None
    #: Seconds since boot.
    uptime: int | None
    #: Over 1, 5 and 15 minutes, times 2^11.
    load: tuple[int, int, int] | None
    task_count: int
    uts: Mapping[str, str]
    mhz: int | None
    #: Bytes.
    memory: int | None
    panic: str | None
    tainted: int | None
    #: The panicking task.
    task: tasks.Task | None
    #: The name of its state.
    state: str | None
    #: Address of its thread_info.
    thread_info: int | None


def read(kernel: Linux) -> Header:
    """Reads every fact; what is missing becomes None, and a warning says why."""

    def attempt(what: str, get: Callable[[Linux], T]) -> T | None:
        with isolated(f"{what} is not known", kernel.warn, AbsentError):
            return get(kernel)
        return None

    online = percpu.online(kernel)
    present = percpu.present(kernel)
    message = attempt("PANIC", panic.message)
    culprit = attempt("the panicking task", panic.task)
    return Header(
        cpus=max(len(present), len(online)),
        offline=len(set(present) - set(online)),
        date=attempt("DATE", date),
        uptime=attempt("UPTIME", uptime),
        load=attempt("LOAD AVERAGE", load_average),
        task_count=len(attempt("TASKS", tasks.tasks) or ()),
        uts=attempt("RELEASE", uts) or {},
        mhz=attempt("the clock rate", mhz),
        memory=attempt("MEMORY", memory),
        panic=message,
        tainted=attempt("TAINTED_MASK", tainted),
        task=culprit,
        state=None if culprit is None else _state(culprit, message),
        thread_info=None
        if culprit is None
        else attempt("THREAD_INFO", lambda k: _thread_info(k, culprit)),
    )


def date(kernel: Kernel) -> int:
    """The wall clock, in seconds since 1970; AbsentError if no calendar has its time."""
    seconds = _wall_clock(kernel)
    if not 0 <= seconds <= LAST_SECOND:
        raise AbsentError(f"the wall clock says {seconds} seconds")
    return seconds


def _wall_clock(kernel: Kernel) -> int:
    if "xtime" in kernel.symbols:
        # A timespec, until 3.3; since 2.6.33 there was a struct timekeeper of other things beside.
        return kernel.pointer(kernel.symbols["xtime"])
    at = kernel.symbol("timekeeper")
    if "tk_data" in kernel.types:  # 6.13 on
        at += kernel.offset("tk_data.timekeeper")
    else:
        # tk_core was an unnamed struct: a seqcount, then the timekeeper, which fills the rest.
        sizes = [
            symbol.size
            for name in names.SYMBOLS["timekeeper"]
            for symbol in kernel.symbols.all(name)
        ]
        at += max(0, max(sizes, default=0) - kernel.types.sizeof("timekeeper"))
    return kernel.read(at, "timekeeper.seconds")


def hertz(kernel: Kernel) -> int:
    """HZ, which no symbol tells: tick_nsec is a second divided by it, give or take its rounding."""
    tick = kernel.pointer(kernel.symbol("tick_nsec"))
    if not 0 < tick <= 1_000_000_000:
        raise AbsentError(f"tick_nsec is {tick}")
    return round(1_000_000_000 / tick)


def uptime(kernel: Kernel) -> int:
    """Seconds since boot: jiffies_64 starts five minutes before 32 bits wrap (INITIAL_JIFFIES)."""
    hz = hertz(kernel)
    jiffies = kernel.variable("jiffies_64", 8)
    initial = (1 << 32) - 300 * hz
    return (jiffies - initial if jiffies >= initial else jiffies) // hz


def load_average(kernel: Kernel) -> tuple[int, int, int]:
    """avenrun[3]."""
    at = kernel.symbol("avenrun")
    first, second, third = (kernel.pointer(at + i * kernel.word) for i in range(3))
    return first, second, third


def uts(kernel: Kernel) -> dict[str, str]:
    """The names of the machine and its kernel."""
    at = kernel.symbol("uts")
    if "init_uts_ns" in kernel.symbols:
        # Behind the reference count: an atomic of 4 bytes until 5.11, 0 bytes since.
        at += kernel.offset("uts_namespace.name")
    return {
        field: kernel.string(at + i * UTS_LENGTH, UTS_LENGTH) for i, field in enumerate(UTS_FIELDS)
    }


def mhz(kernel: Kernel) -> int:
    """The processor's clock rate as the kernel measured it."""
    return kernel.variable("cpu_khz", 4) // 1000


def memory(kernel: Kernel) -> int:
    """Bytes of memory in the kernel's zones."""
    if kernel.has("pglist_data.node_present_pages"):
        pages = sum(kernel.read(node, "pglist_data.node_present_pages") for node in _nodes(kernel))
        if pages:
            return pages * PAGE
    return kernel.pointer(kernel.symbol("num_physpages")) * PAGE


def _nodes(kernel: Kernel) -> list[int]:
    """Every pglist_data: one static one, or an array of pointers with CONFIG_NUMA."""
    flat = kernel.symbols.get("contig_page_data")
    if flat is not None:
        return [flat]
    array = kernel.symbol("node_data")
    size = max([kernel.word, *(symbol.size for symbol in kernel.symbols.all("node_data"))])
    found = (kernel.pointer(array + at) for at in range(0, min(size, 8192), kernel.word))
    return [node for node in found if node]


def tainted(kernel: Kernel) -> int:
    """What the kernel is tainted by."""
    at = kernel.symbol("tainted")
    return kernel.pointer(at) if "tainted_mask" in kernel.symbols else kernel.number(at, 4)


def _state(task: tasks.Task, message: str | None) -> str:
    """The state's name, and in what way the task ended the kernel, as crash words it."""
    how = "SYSRQ" if message and message.lower().startswith("sysrq") else "PANIC"
    return f"{tasks.state_name(task)} ({how})"


def _thread_info(kernel: Kernel, task: tasks.Task) -> int:
    # In task_struct since 4.9 (c65eacbe290b), where crash shows the task's own address; before that
    # at the foot of the stack.
    return task.address if kernel.has("task_struct.thread_info.flags") else task.stack


def date_text(seconds: int) -> str:
    """As crash prints it: ``Sun Nov 22 19:57:03 UTC 2026``."""
    return time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(seconds))
