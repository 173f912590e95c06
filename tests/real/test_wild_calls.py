"""Calls through NULL and invalid stack pointers, written to the stack of a real panicking task.

The task called ``proc_reg_write`` through a pointer in ``vfs_write``. The stack below that return
address is overwritten with the data that the processor and the entry code would have saved if the
pointer had been ``ip``. The frames from ``vfs_write`` on must be those of the original dump.
"""

import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast import Domain
from xenkdump_fast._native import Frame
from xenkdump_fast.commands import bt
from xenkdump_fast.linux import backtrace, percpu, stacks
from xenkdump_fast.linux.backtrace import Trace
from xenkdump_fast.linux.cpus import VcpuContext
from xenkdump_fast.linux.kernel import Kernel
from xenkdump_fast.xen.pcpus import pcpus

from ..xen.patched import patched, sparse_copy
from .conftest import VMLINUX

pytestmark = pytest.mark.real

PT_REGS = {
    8: (
        *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
        *("rax", "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
    ),
    4: (
        *("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "ds", "es", "fs", "gs"),
        *("orig_eax", "eip", "cs", "eflags", "esp", "ss"),
    ),
}
KERNEL = {
    8: {"cs": 0x10, "ss": 0x18, "rflags": 0x246},
    4: {"cs": 0x60, "ss": 0x68, "eflags": 0x246, "ds": 0x7B, "es": 0x7B, "fs": 0xD8},
}
PREFIX = {8: "r", 4: "e"}
#: The methods that can unwind such a stack completely on this kernel.
CASES = [
    ("bare-x86_64", None),
    ("bare-x86_64", "scan"),
    ("linux73-bare", None),
    ("bare-i386", None),
    ("bare-i386", "fp"),
    ("bare-i386", "scan"),
    ("bare-i386-pae", None),
    ("bare-i386-pae", "cfi"),
    ("bare-i386-pae", "scan"),
]


def vmlinux(name: str) -> str:
    return VMLINUX.get(name, "vmlinux-6.1.0-56-amd64")


@pytest.fixture(scope="module")
def copy(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Path]]:
    """A copy of a dump that may be written to."""
    folder = tmp_path_factory.mktemp("wild")

    @cache
    def copied(name: str) -> Path:
        target = folder / name
        sparse_copy(Path(dump_file(f"{name}/vmcore")), target)
        return target

    yield copied
    shutil.rmtree(folder)


def trace_from(domain: Domain, task: int, registers: Mapping[str, int]) -> Trace:
    kernel = domain.kernel
    found = next(one for one in kernel.tasks() if one.address == task)
    context = VcpuContext(registers, "NT_PRSTATUS")
    saved = stacks.SavedRegisters(kernel, [found])
    return backtrace.trace(kernel, kernel.unwinder, found, context, saved)


def callers(domain: Domain) -> tuple[Trace, list[Frame]]:
    """The panicking task's trace and its frames from ``vfs_write`` on."""
    (trace,) = bt.run(domain).traces
    names = [frame.symbol for frame in trace.frames]
    return trace, trace.frames[names.index("vfs_write") :]


def places(frames: list[Frame]) -> list[tuple[int, int, str | None]]:
    return [(frame.pc, frame.sp, frame.symbol) for frame in frames]


def return_into_entry(kernel: Kernel, handler: str) -> int:
    """The return address that the entry code pushes when it calls the handler."""
    if kernel.word == 4:
        return kernel.symbol("handle_exception_return")
    start, target = kernel.symbol(f"asm_{handler}"), kernel.symbol(handler)
    code = kernel.data(start, 64)
    return next(
        start + at + 5
        for at in range(len(code) - 5)
        if code[at] == 0xE8 and start + at + 5 + struct.unpack_from("<i", code, at + 1)[0] == target
    )


def called(kernel: Kernel, ip: int, frame: Frame) -> dict[str, int]:
    """The registers right after ``frame`` called ``ip``."""
    bits = PREFIX[kernel.word]
    slot = frame.sp - kernel.word
    registers = dict.fromkeys(PT_REGS[kernel.word], 0) | KERNEL[kernel.word]
    # With frame pointers, the callee pushed this one.
    frame_pointer = kernel.pointer(slot - kernel.word)
    return registers | {f"{bits}ip": ip, f"{bits}sp": slot, f"{bits}bp": frame_pointer}


class Fault(NamedTuple):
    """The data that an exception leaves on a stack, and the registers in its handler."""

    registers: dict[str, int]
    #: By machine address.
    memory: dict[int, bytes]


def exception(domain: Domain, interrupted: Mapping[str, int], top: int, handler: str) -> Fault:
    """An exception that interrupted these registers, on the stack below ``top``."""
    kernel = domain.kernel
    word, bits = kernel.word, PREFIX[kernel.word]
    code = "Q" if word == 8 else "I"
    values = [interrupted[register] for register in PT_REGS[word]]
    # The processor aligns the stack in 64-bit mode.
    at = (top & (-16 if word == 8 else -4)) - len(values) * word
    bottom = at - word
    data = struct.pack(f"<{1 + len(values)}{code}", return_into_entry(kernel, handler), *values)
    memory = {
        domain.virtual.translate(bottom + i): data[i : i + word] for i in range(0, len(data), word)
    }
    own = KERNEL[word] | {f"{bits}ip": kernel.symbol(handler), f"{bits}sp": bottom}
    return Fault({**interrupted, **own}, memory)


@pytest.mark.parametrize("ip", [0, 0x48])
@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_page_fault_at_a_low_address(
    name: str,
    method: str | None,
    ip: int,
    copy: Callable[[str], Path],
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
) -> None:
    intact = domain(name)
    kernel = intact.kernel
    word, bits = kernel.word, PREFIX[kernel.word]
    trace, expected = callers(intact)
    registers = called(kernel, ip, expected[0])
    fault = exception(intact, registers, registers[f"{bits}sp"], "exc_page_fault")
    vmcore = copy(name)
    with patched(vmcore, fault.memory):
        opened = xk.open(str(vmcore)).domain(
            0, dump_file(vmlinux(name)), unwind=None if method is None else [method]
        )
        found = trace_from(opened, trace.task.address, fault.registers)
        text = rendering.text(bt.Backtraces(0, word, [found]))
    at = next(i for i, frame in enumerate(found.frames) if frame.pc == ip)
    frame = found.frames[at]
    assert frame.interrupted
    assert not frame.user
    assert frame.symbol is None
    assert frame.registers is not None
    assert frame.registers["cs"] == KERNEL[word]["cs"]
    assert f"[exception RIP: unknown or invalid address {ip:#x}]" in text
    assert places(found.frames[at + 1 :]) == places(expected)
    assert not found.frames[at + 1].guess
    assert found.stopped is None


@pytest.mark.parametrize("ip", [0, 0x48])
@pytest.mark.parametrize("name", ["bare-x86_64", "bare-i386", "bare-i386-pae", "linux73-bare"])
def test_registers_of_a_note_at_a_low_address(
    name: str, ip: int, domain: Callable[[str], Domain]
) -> None:
    """An NMI or QEMU stopped the CPU before the page fault was taken."""
    trace, expected = callers(domain(name))
    registers = called(domain(name).kernel, ip, expected[0])
    found = trace_from(domain(name), trace.task.address, registers)
    assert not found.frames[0].user
    assert places(found.frames[1:]) == places(expected)
    text = rendering.text(bt.Backtraces(0, domain(name).kernel.word, [found]))
    assert f"[exception RIP: unknown or invalid address {ip:#x}]" in text
    assert "[user space" not in text


@pytest.mark.parametrize("ip", [0, 0x48])
def test_a_guest_that_xen_interrupted_at_a_low_address(
    ip: int,
    copy: Callable[[str], Path],
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
) -> None:
    """The cs of a PV guest is the same for its kernel and user space."""
    name = "xen417-dom0"
    intact = domain(name)
    _, expected = callers(intact)
    native = intact.dump.native
    pcpu = next(pcpu for pcpu in pcpus(native) if pcpu.guest is not None and pcpu.number == 0)
    assert pcpu.guest is not None
    assert pcpu.root is not None
    xen = native.virtual(pcpu.root, pcpu.paging)
    # cpu_user_regs: rip is the 17th slot, rsp the 20th.
    values = {16: ip, 19: expected[0].sp - 8}
    changes = {
        xen.translate(pcpu.guest.address + slot * 8): struct.pack("<Q", value)
        for slot, value in values.items()
    }
    vmcore = copy(name)
    with patched(vmcore, changes):
        found, _ = callers(xk.open(str(vmcore)).domain(0, dump_file(vmlinux(name))))
    assert found.registers is not None
    assert (found.registers["rip"], found.registers["cs"]) == (ip, 0xE033)
    assert not found.frames[0].user
    assert places(found.frames[1:]) == places(expected)


@pytest.mark.parametrize("method", [None, "scan"])
@pytest.mark.parametrize("sp", [0, 0x0123_4567, 0x7FFC_0000_1000, 0xDEAD_0000_0000_DEAD])
def test_a_double_fault_with_an_invalid_stack_pointer(
    sp: int,
    method: str | None,
    copy: Callable[[str], Path],
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
) -> None:
    name = "bare-x86_64"
    intact = domain(name)
    kernel = intact.kernel
    trace, expected = callers(intact)
    registers = called(kernel, expected[0].pc, expected[0]) | {"rsp": sp}
    stacks = kernel.pointer(percpu.address(kernel, "cea_exception_stacks", 0))
    top = stacks + kernel.types.offset("cea_exception_stacks.NMI_stack_guard")
    fault = exception(intact, registers, top, "exc_double_fault")
    vmcore = copy(name)
    with patched(vmcore, fault.memory):
        opened = xk.open(str(vmcore)).domain(
            0, dump_file(vmlinux(name)), unwind=None if method is None else [method]
        )
        found = trace_from(opened, trace.task.address, fault.registers)
    assert [frame.symbol for frame in found.frames] == [
        *("exc_double_fault", "asm_exc_double_fault", "vfs_write")
    ]
    last = found.frames[-1]
    assert last.interrupted
    assert (last.pc, last.sp) == (expected[0].pc, sp)
    assert last.registers is not None
    assert found.stopped is not None
    assert found.stopped.startswith("the stack at ")
    assert "cannot be read" in found.stopped


@pytest.mark.parametrize("method", [None, "scan", "fp"])
@pytest.mark.parametrize("sp", [0, 0x0123_4567, 0x7FFC_1000, 0xFFFF_FFFD])
@pytest.mark.parametrize("name", ["bare-i386", "bare-i386-pae"])
def test_a_double_fault_of_i386_with_an_invalid_stack_pointer(
    name: str,
    sp: int,
    method: str | None,
    copy: Callable[[str], Path],
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
) -> None:
    """The interrupted registers are in the TSS; the handler's stack has none."""
    found = double_fault(name, sp, method, copy, domain, dump_file)
    assert [frame.symbol for frame in found.frames] == [
        *("doublefault_shim", "asm_exc_double_fault", "vfs_write")
    ]
    last = found.frames[-1]
    assert last.interrupted
    assert last.sp == sp
    assert last.registers is not None
    assert (last.registers["edi"], last.registers["cs"]) == (0x707, 0x60)
    assert found.stopped is not None
    assert found.stopped.startswith("the stack at ")
    assert "cannot be read" in found.stopped


@pytest.mark.parametrize("name", ["bare-i386", "bare-i386-pae"])
def test_a_double_fault_of_i386_with_a_valid_stack_pointer(
    name: str,
    copy: Callable[[str], Path],
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
) -> None:
    _, expected = callers(domain(name))
    found = double_fault(name, expected[0].sp, None, copy, domain, dump_file)
    assert found.frames[2].interrupted
    assert places(found.frames[2:]) == places(expected)
    assert found.stopped is None


def double_fault(
    name: str,
    sp: int,
    method: str | None,
    copy: Callable[[str], Path],
    domain: Callable[[str], Domain],
    dump_file: Callable[[str], str],
) -> Trace:
    """The trace from ``doublefault_shim``, called on the stack of double faults, of vfs_write."""
    sound = domain(name)
    kernel = sound.kernel
    trace, expected = callers(sound)
    entry, shim = kernel.symbol("asm_exc_double_fault"), kernel.symbol("doublefault_shim")
    code = kernel.data(entry, 64)
    ret = next(
        entry + at + 5
        for at in range(len(code) - 5)
        if code[at] == 0xE8
        and (entry + at + 5 + int.from_bytes(code[at + 1 : at + 5], "little", signed=True)) == shim
    )
    # The stack ends with the TSS of the handler; the processor pushed an error code of 0.
    top = percpu.address(kernel, "doublefault_stack", 0) + 0x1000 - 104
    tss = percpu.address(kernel, "cpu_tss_rw", 0)
    bp = expected[0].registers["ebp"] if expected[0].registers else 0
    saved = [expected[0].pc, 0x246, 0x101, 0x202, 0x303, 0x404, sp, bp, 0x606, 0x707]
    saved += [0x7B, 0x60, 0x68, 0x7B, 0xD8, 0]
    memory = {
        address: data
        for virtual, data in (
            (top - 8, struct.pack("<2I", ret, 0)),
            (tss + 32, struct.pack("<16I", *saved)),
        )
        for address in [kernel.virtual.translate(virtual)]
    }
    registers = {"eip": shim, "esp": top - 8, "cs": 0x60, "ss": 0x68, "eflags": 0x46, "ebp": 0}
    vmcore = copy(name)
    with patched(vmcore, memory):
        opened = xk.open(str(vmcore)).domain(
            0, dump_file(vmlinux(name)), unwind=None if method is None else [method]
        )
        return trace_from(opened, trace.task.address, registers)
