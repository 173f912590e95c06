"""What a report says, as plain data: every format is written from it, and ``--json`` prints it."""

from typing import Literal, TypedDict

from ..output.json_types import Count, Hex, Registers


class Problem(TypedDict):
    """What the dump lacks, or what an answer rests on without being verified."""

    #: "dump", "Xen", or a domain as in ``name_of``.
    where: str
    kind: Literal["missing", "uncertain"]
    text: str


class Frame(TypedDict):
    """A frame of a stack."""

    pc: Hex
    symbol: str | None
    offset: Count
    module: str | None
    #: Found by likelihood, not by unwind data.
    guess: bool
    #: ``pc`` is the instruction that was interrupted.
    interrupted: bool
    #: User space; of a Xen stack the guest.
    user: bool


class Task(TypedDict):
    """A task."""

    pid: int
    task: Hex
    cpu: Count
    comm: str
    state: str


class Instruction(TypedDict):
    """An instruction. ``marked`` if it is the faulting one, or the call that did not return."""

    address: Hex
    bytes: str
    text: str
    marked: bool


class Code(TypedDict):
    """Disassembled code around the place where it failed."""

    #: Where the bytes are from: memory, or a line of the log.
    source: str
    symbol: str | None
    instructions: list[Instruction]
    #: Whether memory has the bytes of the log; None if that is not known.
    agrees: bool | None


class Oops(TypedDict):
    """Where code failed, with the registers that it had."""

    #: "log" or "memory".
    source: str
    #: What happened: its first line in the log.
    title: str | None
    #: The error code of a page fault, in words.
    error: str | None
    pc: Hex | None
    symbol: str | None
    offset: Count | None
    module: str | None
    registers: Registers
    code: list[Code]


class Crash(TypedDict):
    """One kernel, or Xen, that has crashed."""

    who: Literal["hypervisor", "dom0", "domain", "kernel"]
    domain: Count | None
    #: "panic", "oops", "sysrq", "nmi", "watchdog", "hung task", "machine check", "out of memory",
    #: "init", "shutdown" or "requested".
    kind: str
    #: The message of the panic.
    message: str | None
    #: Lines of the log that say why.
    lines: list[str]
    #: The CPU of the kernel, or the pCPU of Xen.
    cpu: Count | None
    task: Task | None
    frames: list[Frame]
    oops: Oops | None


class Died(TypedDict):
    """What died, and why."""

    who: Literal["hypervisor", "dom0", "domain", "kernel", "unknown"]
    domain: Count | None
    kind: str
    summary: str
    #: What shows it.
    evidence: list[str]
    doubts: list[str]
    #: The signature of the crash, by which the same crash is recognised in other dumps.
    signature: str | None
    crash: Crash | None
    #: Other kernels that have crashed.
    others: list[Crash]


class LogLine(TypedDict):
    """A message. ``level`` is 0 (emergency) to 7 (debug); None if it is not known."""

    time_ns: Count | None
    level: Count | None
    text: str


class Log(TypedDict):
    """The last messages."""

    lines: list[LogLine]
    #: How many earlier ones are left out.
    omitted: Count


class Stack(TypedDict):
    """Tasks with equal stacks."""

    count: Count
    tasks: list[Task]
    frames: list[Frame]
    #: Why there are no more frames.
    why: str | None


class Wait(TypedDict):
    """What a task in the state UN waits for."""

    task: Task
    #: "mutex", "rwsem", ...; None if it is not known.
    kind: str | None
    what: str
    #: The function that waits, and the subsystem.
    caller: str | None
    area: str | None
    owner: Task | None
    #: Why the owner need not be the task that has to act.
    doubt: str | None
    #: Pids, each waiting for the next.
    chain: list[int]


class Module(TypedDict):
    """A module of a kernel."""

    name: str
    base: Hex
    size: Count


class Taint(TypedDict):
    """Why a kernel is tainted."""

    mask: Count
    letters: str
    reasons: list[str]


class Vcpu(TypedDict):
    """A virtual CPU of a domain, or a CPU of a bare machine."""

    id: Count
    pcpu: Count | None
    state: str
    running: bool
    task: Task | None
    frames: list[Frame]
    why: str | None
    registers: Registers
    registers_from: str | None


class Kernel(TypedDict):
    """A Linux kernel."""

    release: str | None
    version: str | None
    machine: str | None
    #: Where its symbols and types are from.
    image: str
    command_line: str | None
    cpus: Count
    offline: Count
    date: int | None
    uptime: int | None
    memory: Count | None
    panic: str | None
    taint: Taint | None
    task_count: Count
    tasks: list[Task]
    stack_count: Count
    stacks: list[Stack]
    waits: list[Wait]
    wait_count: Count
    deadlocks: list[list[int]]
    module_count: Count
    modules: list[Module]
    log: Log | None


class Extents(TypedDict):
    """The extents of a P2M of one class of sizes: contiguous in pfns and in mfns."""

    label: str
    extents: Count
    pages: Count


class P2mPicture(TypedDict):
    """How fragmented a P2M is."""

    source: str
    pages: Count
    #: Pages with a frame, as far as they were read.
    frames: Count
    #: How many pages were read: a sample if it is less than ``pages``.
    read: Count
    extents: list[Extents]
    #: The class of the largest part of each piece of the pfn space, as an index into ``extents``;
    #: None without frames.
    strip: list[int | None]


class Domain(TypedDict):
    """A domain, or a bare machine."""

    id: Count
    #: "PV 64", "PVH", ..., "bare machine".
    kind: str
    nodename: str | None
    uuid: str | None
    #: In words; empty if it is not known.
    state: list[str]
    pages: Count | None
    max_pfn: Count | None
    p2m_sources: list[str]
    vcpus: list[Vcpu]
    kernel: Kernel | None
    #: Why there is no kernel.
    why: str | None
    p2m: P2mPicture | None


class Pcpu(TypedDict):
    """A physical CPU."""

    pcpu: Count
    online: bool | None
    #: The vCPU that it ran, as ``d1v0``.
    runs: str | None
    cr3: Hex | None
    stack: list[Hex] | None
    softirqs: list[str]
    registers: Registers
    frames: list[Frame]
    why: str | None


class Xen(TypedDict):
    """The hypervisor."""

    version: str | None
    changeset: str | None
    compiler: str | None
    compiled: str | None
    command_line: str | None
    date: int | None
    uptime: int | None
    memory: Count
    memory_is_minimum: bool
    mhz: Count | None
    layout: str
    #: The file of its symbols.
    symbols: str | None
    pcpus: list[Pcpu]
    log: Log | None


class Owner(TypedDict):
    """An owner of machine memory. ``pages`` is an estimate if the picture is of a sample."""

    name: str
    kind: Literal["xen", "domain", "several", "tables", "free", "missing", "other", "held"]
    domain: Count | None
    pages: Count


class MemoryPicture(TypedDict):
    """Who owns machine memory."""

    #: Frames from the first to the last one.
    frames: Count
    #: Frames that each cell represents.
    frames_per_cell: Count
    #: One of this number of frames was examined.
    sampled: Count
    owners: list[Owner]
    #: The owner of most frames of each cell, as an index into ``owners``; None if not known.
    cells: list[int | None]
    #: What it rests on.
    source: str


class File(TypedDict):
    """The dump."""

    path: str
    format: str
    size: Count
    memory_held: Count
    memory_size: Count
    kind: Literal["Xen host", "bare machine", "file of a domain"]


class Content(TypedDict):
    """Everything that a report says."""

    file: File
    redacted: bool
    died: Died
    xen: Xen | None
    domains: list[Domain]
    #: Domains that are left out: there are too many.
    more_domains: Count
    memory: MemoryPicture | None
    problems: list[Problem]
