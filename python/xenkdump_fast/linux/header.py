"""The values in the session header of crash: from KERNEL to STATE."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, TypeVar
from ..isolation import isolated
from ..limits import MAX_NODE_DATA
from . import clock, panic, percpu, tasks
from .kernel import Kernel
from .printk.message import LogLine
from .system import Linux

T = TypeVar("T")
#: include/linux/sched/loadavg.h: load averages are fixed-point numbers with an 11-bit fraction.
FSHIFT = 11
FIXED_1 = 1 << FSHIFT
#: struct new_utsname (2.6.0 to today): six arrays of 65 bytes.
UTS_LENGTH = 65
UTS_FIELDS = ("sysname", "nodename", "release", "version", "machine", "domainname")
PAGE = 4096


class Header(NamedTuple):
    """The values of the session header; None for those that the dump lacks."""

    cpus: int
    offline: int
    #: Seconds since 1970.
    date: int | None
    #: Seconds since boot.
    uptime: int | None
    #: Over 1, 5 and 15 minutes, times 2^11.
    load: tuple[int, int, int] | None
    task_count: int | None
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


def read(
    kernel: Linux,
    listed: Sequence[tasks.Task] | None = None,
    lines: Iterable[LogLine] | None = None,
) -> Header:
    """Reads all values; what is missing becomes None, with a warning.

    ``listed`` are all tasks and ``lines`` is the whole log, if they were read before.
    """

    def attempt(what: str, get: Callable[[Linux], T]) -> T | None:
        with isolated(f"{what} is not known", kernel.warn, AbsentError):
            return get(kernel)
        return None

    online = percpu.online(kernel)
    present = percpu.present(kernel)
    if listed is None:
        listed = attempt("TASKS", lambda kernel: kernel.tasks())
    message = attempt("PANIC", lambda kernel: panic.message(kernel, lines))
    panic_task = attempt("the panicking task", panic.task)
    return Header(
        cpus=max(len(present), len(online)),
        offline=len(set(present) - set(online)),
        date=attempt("DATE", clock.date),
        uptime=attempt("UPTIME", clock.uptime),
        load=attempt("LOAD AVERAGE", load_average),
        task_count=None if listed is None else len(listed),
        uts=attempt("RELEASE", uts) or {},
        mhz=attempt("the clock rate", mhz),
        memory=attempt("MEMORY", memory),
        panic=message,
        tainted=attempt("TAINTED_MASK", tainted),
        task=panic_task,
        state=None if panic_task is None else _state(panic_task, message),
        thread_info=None
        if panic_task is None
        else attempt("THREAD_INFO", lambda k: _thread_info(k, panic_task)),
    )


def load_average(kernel: Kernel) -> tuple[int, int, int]:
    """avenrun[3]."""
    at = kernel.symbol("avenrun")
    first, second, third = (kernel.pointer(at + i * kernel.word) for i in range(3))
    return first, second, third


def uts(kernel: Kernel) -> dict[str, str]:
    """The members of struct new_utsname."""
    at = kernel.symbol("uts")
    if "init_uts_ns" in kernel.symbols:
        # After the reference count: an atomic of 4 bytes until 5.11, 0 bytes since.
        at += kernel.offset("uts_namespace.name")
    return {
        field: kernel.string(at + i * UTS_LENGTH, UTS_LENGTH) for i, field in enumerate(UTS_FIELDS)
    }


def mhz(kernel: Kernel) -> int:
    """The clock rate of the processor as measured by the kernel, in MHz."""
    return kernel.variable("cpu_khz", 4) // 1000


def memory(kernel: Kernel) -> int:
    """Bytes of memory in the kernel's zones."""
    if kernel.has("pglist_data.node_present_pages"):
        pages = sum(kernel.read(node, "pglist_data.node_present_pages") for node in _nodes(kernel))
        if pages:
            return pages * PAGE
    return kernel.pointer(kernel.symbol("num_physpages")) * PAGE


def _nodes(kernel: Kernel) -> list[int]:
    """Every pglist_data: a static one, or an array of pointers with CONFIG_NUMA."""
    flat = kernel.symbols.get("contig_page_data")
    if flat is not None:
        return [flat]
    array = kernel.symbol("node_data")
    size = max([kernel.word, *(symbol.size for symbol in kernel.symbols.all("node_data"))])
    size = min(size, MAX_NODE_DATA)
    if "nr_node_ids" in kernel.symbols:  # since 2.6.18
        # The rest of the array is empty, and may not be in the dump if pages of zeros are left out.
        ids = kernel.number(kernel.symbol("nr_node_ids"), 4)
        size = min(size, max(ids, 1) * kernel.word)
    found = (kernel.pointer(array + at) for at in range(0, size, kernel.word))
    return [node for node in found if node]


def tainted(kernel: Kernel) -> int:
    """The mask of taint flags."""
    at = kernel.symbol("tainted")
    return kernel.pointer(at) if "tainted_mask" in kernel.symbols else kernel.number(at, 4)


def _state(task: tasks.Task, message: str | None) -> str:
    """The name of the state and the cause of the crash, in the wording of crash."""
    how = "SYSRQ" if message and message.lower().startswith("sysrq") else "PANIC"
    return f"{tasks.state_name(task)} ({how})"


def _thread_info(kernel: Kernel, task: tasks.Task) -> int:
    # In task_struct since 4.9 (c65eacbe290b), where crash prints the address of the task; before
    # that at the base of the stack.
    return task.address if kernel.has("task_struct.thread_info.flags") else task.stack
