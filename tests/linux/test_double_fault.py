"""The TSS of a CPU that had a double fault, in each generation of i386 kernels."""

import struct

import pytest

from xenkdump_fast.linux import double_fault

from .fakes import FakeKernel

TSS, HANDLER = 0xC030_0000, 0xC010_0000
PER_CPU = 0x10_0000
#: Of the handler's TSS when it has not been switched from.
INITIAL = {"eip": HANDLER, "eflags": 0x82, "esp": 0xC040_0400, "cs": 0x60}
REGISTERS = {"eip": 0xC011_2233, "eflags": 0x10246, "esp": 0x4, "cs": 0x60, "edi": 7}


def tss(registers: dict[str, int]) -> bytes:
    values = (registers.get(name, 0) | 0xABCD_0000 * (name == "gs") for name in double_fault._NAMES)
    return bytes(32) + struct.pack("<16I", *values)


def kernel_with(symbols: dict[str, int], cpu: int, offset: int = 0) -> FakeKernel:
    """A kernel with these symbols, whose second CPU has ``REGISTERS`` in its TSS."""
    layout = {"tss_struct.x86_tss": offset} if offset else {}
    kernel = FakeKernel({"__per_cpu_offset": 0xC020_0000, **symbols}, layout, word=4)
    kernel.memory.write(0xC020_0000, struct.pack("<2I", 0, PER_CPU))
    kernel.memory.write(TSS, bytes(0x400))
    kernel.memory.write(TSS + cpu * PER_CPU + offset, tss(REGISTERS))
    return kernel


@pytest.mark.parametrize("offset", [0, 0x200])
@pytest.mark.parametrize("name", ["per_cpu__init_tss", "init_tss", "cpu_tss", "cpu_tss_rw"])
def test_the_registers_are_in_the_tss_of_the_cpu(name: str, offset: int) -> None:
    kernel = kernel_with({name: TSS}, 1, offset)
    assert double_fault.interrupted(kernel, 0) is None
    found = double_fault.interrupted(kernel, 1)
    assert found is not None
    assert {key: found[key] for key in REGISTERS} == REGISTERS
    assert found["gs"] == 0, "a selector has 16 bits"


def test_the_initial_registers_of_the_handler_are_no_interruption() -> None:
    symbols = {"doublefault_fn": HANDLER, "doublefault_tss": 0xC030_0400}
    kernel = kernel_with({"init_tss": TSS, **symbols}, 1)
    kernel.memory.write(0xC030_0400, tss(INITIAL))
    assert double_fault.interrupted(kernel, 0) is None
    kernel.memory.write(0xC030_0400, tss(INITIAL | {"eip": HANDLER + 4}))
    found = double_fault.interrupted(kernel, 0)
    assert found is not None
    assert found["eip"] == HANDLER + 4


@pytest.mark.parametrize("change", [{"eflags": 0}, {"eflags": 0x8002}, {"cs": 0x73}, {"cs": 0}])
def test_implausible_registers(change: dict[str, int]) -> None:
    kernel = kernel_with({"cpu_tss_rw": TSS}, 1)
    kernel.memory.write(TSS + PER_CPU, tss(REGISTERS | change))
    assert double_fault.interrupted(kernel, 1) is None


def test_a_tss_that_is_not_in_the_dump() -> None:
    kernel = kernel_with({"cpu_tss_rw": 0xD000_0000}, 1)
    assert double_fault.interrupted(kernel, 1) is None
    assert double_fault.interrupted(FakeKernel({}, word=4), 0) is None
