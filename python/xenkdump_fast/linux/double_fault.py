"""The registers that a double fault interrupted, on i386.

The processor does not push them: a task gate gives the handler a stack of its own, and the
registers are in the TSS of the interrupted CPU, whose format is the processor's. Since Linux 5.5
(7d8d8cfdee9a) the handler panics; before that it halted the CPU.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress

from .._native import AbsentError, MemoryFault
from . import percpu
from .kernel import Kernel

#: The functions that the processor starts: since 5.8, since 5.5, and before.
_STARTED = ("asm_exc_double_fault", "double_fault", "doublefault_fn")
#: The functions with which the stack of a double fault ends; the shim is called by the first two.
OUTERMOST = (*_STARTED, "doublefault_shim")
#: A 32-bit TSS from eip on: eip, eflags, eight general registers, six selectors.
_TSS = struct.Struct("<16I")
_TSS_EIP = 32
_NAMES = (
    *("eip", "eflags", "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    *("es", "cs", "ss", "ds", "fs", "gs"),
)
_SELECTORS = frozenset(("es", "cs", "ss", "ds", "fs", "gs"))
#: __KERNEL_CS, native and with the privilege level of a PV guest's kernel.
_KERNEL_CS = (0x60, 0x61)
#: Bits of eflags that are never set, and the one that always is.
_FLAGS_ZERO, _FLAGS_SET = ~0x3F7FD7, 2


def interrupted(kernel: Kernel, cpu: int) -> dict[str, int] | None:
    """The registers in the TSS of a CPU; None if no task switch saved any."""
    handlers = {kernel.symbols.get(name) for name in _STARTED}
    for tss in _segments(kernel, cpu):
        with suppress(MemoryFault):
            values = _TSS.unpack(kernel.data(tss + _TSS_EIP, _TSS.size))
            registers = {
                name: value & 0xFFFF if name in _SELECTORS else value
                for name, value in zip(_NAMES, values, strict=True)
            }
            # The handler's own TSS initially has the registers with which it starts.
            if _is_kernel(registers) and registers["eip"] not in handlers:
                return registers
    return None


def _segments(kernel: Kernel, cpu: int) -> Iterator[int]:
    """The addresses of the TSSs that may have the registers: the CPU's, then the handler's."""
    with suppress(AbsentError, MemoryFault):
        tss = percpu.address(kernel, "tss", cpu)
        # Before 2.6.25 struct tss_struct had the members itself.
        if kernel.has("tss_struct.x86_tss"):
            tss += kernel.offset("tss_struct.x86_tss")
        yield tss
    with suppress(AbsentError):
        yield kernel.symbol("doublefault_tss")  # until 5.4


def _is_kernel(registers: dict[str, int]) -> bool:
    flags = registers["eflags"]
    return not flags & _FLAGS_ZERO and bool(flags & _FLAGS_SET) and registers["cs"] in _KERNEL_CS
