"""Replacement of words in the data of a kernel or of Xen, to test complete commands.

``places`` finds the data in an intact dump, ``change`` replaces one word. ``test_words`` uses it on
synthetic dumps in the normal suite, ``tests.real.faults`` on any dump.
"""

import contextlib
import random
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import xenkdump_fast as xk
from xenkdump_fast._native import AddressSpace
from xenkdump_fast.linux import modules, percpu, task_table
from xenkdump_fast.linux.kernel import Kernel

PAGE = 4096
#: Root variables and the header's variables, with the number of bytes of each.
VARIABLES = (
    *("init_task", "modules", "init_pid_ns", "pid_hash", "pidhash_shift", "__per_cpu_offset"),
    *("runqueues", "_cpu_pda", "cpu_pda", "boot_cpu_pda", "panic_cpu", "crashing_cpu"),
    *("prb", "printk_rb_static", "log_buf", "log_buf_len", "log_end", "logged_chars"),
    *("log_first_idx", "log_next_idx", "log_first_seq", "task_state_array", "avenrun"),
    *("cpu_possible_map", "cpu_online_map", "__cpu_possible_mask", "__cpu_online_mask"),
    *("xtime", "tk_core", "jiffies_64", "tick_nsec", "init_uts_ns", "system_utsname", "cpu_khz"),
    *("contig_page_data", "node_data", "max_pfn", "num_physpages", "vmcoreinfo_data"),
)
VARIABLE_SIZE = 0x200
#: The number of bytes at the start of a log.
LOG_SIZE = 0x8000
VCPU_SIZE = 0x1000
#: The size of a struct whose size is in neither symbols nor types.
DEFAULT_SIZE = 0x400


class Place(NamedTuple):
    """A range of the file with data of one kind."""

    kind: str
    offset: int
    size: int
    #: Bytes of a word there.
    word: int


class Change(NamedTuple):
    """The replacement of a word."""

    where: str
    offset: int
    new: bytes


def segments(data: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Kind, physical address, offset and length in the file of each program header of an ELF."""
    wide = data[4] == 2
    (start,) = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    for i in range(count):
        at = start + i * size
        if wide:
            kind, _, offset, _, paddr, filesz = struct.unpack_from("<IIQQQQ", data, at)
        else:
            kind, offset, _, paddr, filesz = struct.unpack_from("<5I", data, at)
        yield kind, paddr, offset, filesz


def places(vmcore: str, vmlinux: str, data: bytes | memoryview) -> list[Place]:
    """The data of domain 0's kernel in an intact dump and, on a Xen host, of Xen."""
    dump = xk.open(vmcore)
    domain = dump.domain(0, vmlinux)
    kernel = domain.kernel
    found = [
        place
        for kind, address, size in _of_kernel(kernel)
        for place in _pieces(kind, kernel.virtual, address, size, kernel.word, data)
    ]
    if dump.is_xen_host:
        with contextlib.suppress(xk.AbsentError):
            memory = dump.hypervisor.memory
            found += (
                place
                for kind, address, size in _of_xen(dump)
                for place in _pieces(kind, memory.virtual, address, size, memory.word, data)
            )
    return found


def _size(kernel: Kernel, struct_name: str) -> int:
    try:
        return kernel.types.sizeof(struct_name)
    except xk.AbsentError:
        return DEFAULT_SIZE


def _of_kernel(kernel: Kernel) -> Iterator[tuple[str, int, int]]:
    """The kinds of data, with the addresses of each."""
    for task in task_table.read(kernel):
        yield "task", task.address, _size(kernel, "task_struct")
        if task.stack:
            yield "stack", task.stack, kernel.stack_size
        with contextlib.suppress(xk.AbsentError):
            # The words that a context switch saved, and the words directly above.
            yield "top of stack", kernel.read(task.address, "thread.sp"), 0x100
            yield "mm", kernel.read(task.address, "task_struct.mm"), _size(kernel, "mm_struct")
            yield "signal", kernel.read(task.address, "task_struct.signal"), 0x100
    for module in modules.modules(kernel):
        yield "module", module.address, _size(kernel, "module")
        yield "module's memory", module.base, module.total
    for cpu in percpu.areas(kernel):
        with contextlib.suppress(xk.AbsentError):
            yield "run queue", percpu.address(kernel, "runqueues", cpu), _size(kernel, "rq")
    for name in VARIABLES:
        for symbol in kernel.symbols.all(name):
            yield "variable", symbol.address, min(symbol.size or 8, VARIABLE_SIZE)
    for name in ("prb", "log_buf", "pid_hash"):
        at = kernel.symbols.get(name)
        if at is not None:
            yield "the target of a variable", kernel.pointer(at), LOG_SIZE


def _of_xen(dump: xk.Dump) -> Iterator[tuple[str, int, int]]:
    xen = dump.hypervisor
    for pcpu in xen.pcpus:
        if pcpu.stack is not None:
            yield "Xen's stack", pcpu.stack[0], pcpu.stack[1] - pcpu.stack[0]
    for domain in xen.domains(all=True):
        yield "domain", domain.address, xen.facts.size
        for vcpu in domain.vcpus:
            if vcpu.address is not None:
                yield "vCPU", vcpu.address, VCPU_SIZE
    for at in (xen.facts.head, *xen.facts.system):
        if at is not None:
            yield "Xen's variable", at, 8


def _pieces(
    kind: str,
    space: AddressSpace,
    address: int,
    size: int,
    word: int,
    data: bytes | memoryview,
) -> Iterator[Place]:
    """The parts of a range of virtual addresses that the file holds, page by page."""
    at, end = address, address + size
    while at < end:
        step = min(end, (at // PAGE + 1) * PAGE) - at
        with contextlib.suppress(xk.MemoryFault):
            machine = space.translate(at)
            for segment, start, offset, length in segments(data):
                if segment == 1 and start <= machine and machine + step <= start + length:
                    yield Place(kind, offset + machine - start, step, word)
                    break
        at += step


def change(found: Iterable[Place], chance: random.Random, data: bytes | memoryview) -> Change:
    """A random word. All kinds of data are equally likely; non-zero words are preferred."""
    by_kind: dict[str, list[Place]] = {}
    for place in found:
        by_kind.setdefault(place.kind, []).append(place)
    kind = chance.choice(sorted(by_kind))
    for _ in range(8):
        place = chance.choice(by_kind[kind])
        if place.size < place.word:
            continue
        offset = place.offset + chance.randrange(place.size // place.word) * place.word
        old = int.from_bytes(data[offset : offset + place.word], "little")
        if old:
            break
    else:
        offset, old = place.offset, 0
    other = chance.choice(by_kind[chance.choice(sorted(by_kind))])
    another = data[other.offset : other.offset + place.word]
    bits = place.word * 8
    new = chance.choice(
        (
            0,
            chance.randrange(1, 16),
            (1 << bits) - chance.randrange(1, 16),
            (1 << bits) - chance.randrange(1, 1 << 14),
            1 << chance.randrange(bits),
            chance.getrandbits(bits),
            old ^ 1 << chance.randrange(bits),
            old + chance.randrange(-64, 64),
            old << 32 | old >> 32,
            int.from_bytes(another, "little"),
        )
    )
    return Change(kind, offset, (new % (1 << bits)).to_bytes(place.word, "little"))
