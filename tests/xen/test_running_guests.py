"""Registers of a translated guest whose code a pCPU was running, or that had just left for Xen.

QEMU stops a machine at any instruction; Xen's own kdump stops other pCPUs in its handler of NMIs.
"""

import struct
from typing import Any, cast

import pytest

from xenkdump_fast.xen import frames, hvm, vcpus
from xenkdump_fast.xen.layout import Layout
from xenkdump_fast.xen.memory import PAGE, XenMemory
from xenkdump_fast.xen.pcpus import Pcpu, _is_behind_vmrun
from xenkdump_fast.xen.vcpus import OnPcpus, XenVcpu

VCPU, CONTROL_AT = 0xFFFF_8300_0001_0000, 0x400
#: Another vCPU; where the struct of the first has registers.
OTHER, REGISTERS_AT = 0xFFFF_8300_0003_0000, 0xA00
BLOCK, BLOCK_MACHINE = 0xFFFF_8300_0002_0000, 0x2_0000
ROOT, OTHER_ROOT, NESTED = 0x123_4000, 0x567_8000, 0x99_9000
CR0, CR4, EFER = 0x8005_0033, 0x6F0, 0xD01
SAVED = {"rip": 0x40_010E, "rsp": 0x7FFE_0000, "rflags": 0x202, "rax": 0x5A5A}
GENERAL = {name: 0x1000 + i for i, name in enumerate(frames.GENERAL)}
#: At the exit before.
STALE = dict.fromkeys((*frames.GENERAL, "rip", "rsp", "rflags"), 16)


def vmcb(nested: bool) -> bytes:
    page = bytearray(PAGE)
    words = {0x58: 1, 0x90: int(nested), 0xB0: NESTED if nested else 0, 0x4D0: EFER | 1 << 12}
    words |= {0x548: CR4, 0x550: ROOT, 0x558: CR0, 0x570: SAVED["rflags"], 0x578: SAVED["rip"]}
    words |= {0x5D8: SAVED["rsp"], 0x5F8: SAVED["rax"], 0x640: 0x77}
    for at, value in words.items():
        struct.pack_into("<Q", page, at, value)
    struct.pack_into("<H", page, 0x410, 0x33)
    struct.pack_into("<H", page, 0x420, 0x2B)
    return bytes(page)


class Memory:
    """A vCPU and its VMCB, as ``XenMemory`` shows them."""

    word = 8

    def __init__(self, nested: bool, other_state: int) -> None:
        vcpu, other = bytearray(PAGE), bytearray(PAGE)
        struct.pack_into("<2I", other, 0x900, other_state, 1)
        # In the order of cpu_user_regs: general registers, error code, rip, cs, flags, rsp, ss.
        values = (*(0x20 for _ in frames.GENERAL), 0, 0x6000, 0, 0x246, 0x8000, 0)
        struct.pack_into("<21Q", vcpu, REGISTERS_AT, *values)
        struct.pack_into("<6Q", vcpu, CONTROL_AT, CR0, 0, 0, OTHER_ROOT, CR4, EFER)
        struct.pack_into("<2Q", vcpu, 0x800, BLOCK, BLOCK_MACHINE)
        struct.pack_into("<2I", vcpu, 0x900, 0, 1)
        self._pages = {VCPU: bytes(vcpu), OTHER: bytes(other), BLOCK: vmcb(nested)}

    def read(self, address: int, size: int) -> bytes | None:
        page = self._pages.get(address // PAGE * PAGE)
        found = b"" if page is None else page[address % PAGE :][:size]
        return found if len(found) == size else None

    def words(self, address: int, size: int) -> tuple[int, ...] | None:
        data = self.read(address, size)
        return None if data is None else struct.unpack(f"<{size // 8}Q", data)

    def number(self, address: int, size: int) -> int | None:
        data = self.read(address, size)
        return None if data is None else int.from_bytes(data, "little")

    def translate(self, address: int) -> int | None:
        return BLOCK_MACHINE if address == BLOCK else None

    def is_xen(self, address: int) -> bool:
        return address in self._pages


def completed(pcpu: Pcpu, nested: bool = True, other_state: int = 0) -> XenVcpu:
    """The vCPU, which runs on that pCPU according to its struct."""
    memory = cast(XenMemory, Memory(nested, other_state))
    layout = Layout()
    layout.offsets |= {"vcpu.guest_cr": CONTROL_AT, "vcpu.runstate": 0x900, "vcpu.processor": 0x904}
    layout.offsets["vcpu.registers"] = REGISTERS_AT
    on = OnPcpus(memory, layout, [IDLE, pcpu])
    found = vcpus._read_one(memory, layout, on, (0, VCPU), None)
    return vcpus.translated(memory, layout, on, found)


def pcpu(**changes: Any) -> Pcpu:
    return Pcpu(1, {}, OTHER_ROOT, None, "x86_64", 8, None, None, None)._replace(**changes)


IDLE = pcpu(number=0)


def test_a_guest_that_has_just_left() -> None:
    """Its general registers are the processor's, the others are in the VMCB."""
    host = GENERAL | {"rax": BLOCK_MACHINE, "rip": 0xFFFF_82D0_4021_5ABD, "rsp": 0x1}
    stack = frames.GuestFrame(dict(STALE), 8, "hvm", 0)
    on = pcpu(registers=host, vcpu=VCPU, has_left=True, guest=stack)
    found = completed(on)
    assert found.registers == GENERAL | SAVED | {"cs": 0x33, "ss": 0x2B}
    assert found.where == "pCPU 1's NT_PRSTATUS and the VMCB"
    assert (found.root, found.exit_pc) == (ROOT, SAVED["rip"])
    assert (found.warnings, found.stale) == ((), False)
    # Behind another guest's VMRUN, or after Xen saved the registers: those on the stack are used.
    for other, stale in (
        (on._replace(registers=host | {"rax": 0x3000}), True),
        (on._replace(has_left=False), False),
    ):
        found = completed(other)
        assert found.registers == STALE | {"cs": 0x33, "ss": 0x2B}
        assert found.where == "pCPU 1's Xen stack"
        assert found.stale == stale
        assert ["registers are stale" in text for text in found.warnings] == [True] * stale


@pytest.mark.parametrize("nested", [True, False])
def test_a_guest_whose_code_was_running(nested: bool) -> None:
    """All registers are the processor's, cr3 too unless it is of Xen's shadow page tables."""
    inside = GENERAL | {"rip": 0x40_010E, "rsp": 0x7FFE_0000, "rflags": 0x202, "cs": 0x33}
    on = pcpu(running=inside, in_guest=True, cr3=0x777_7000)
    found = completed(on, nested)
    assert found.where == "pCPU 1's NT_PRSTATUS"
    assert found.registers == inside
    assert found.root == (0x777_7000 if nested else OTHER_ROOT)
    assert found.exit_pc is None
    # A pCPU is offline, so the notes do not tell which one this is.
    found = completed(on._replace(number=2))
    assert (found.registers, found.where) == (None, None)
    assert "no pCPU's notes lead to its registers" in found.warnings[0]


@pytest.mark.parametrize("state", [1, 2, 3])
def test_a_pcpu_that_was_switching_to_the_vcpu(state: int) -> None:
    """Xen calls it running before it has loaded its registers, and the other one not any more."""
    stack = frames.GuestFrame(dict(STALE), 8, "hvm", 0)
    on = pcpu(vcpu=OTHER, guest=stack)
    found = completed(on, other_state=state)
    assert (found.state, found.where, found.warnings) == ("runnable", "struct vcpu", ())
    assert found.registers is not None
    assert (found.registers["rip"], found.registers["rbx"]) == (0x6000, 0x20)
    # Two vCPUs that run on one pCPU contradict each other.
    found = completed(on)
    assert (found.state, found.registers) == ("running", None)
    assert "no pCPU's notes lead to its registers" in found.warnings[0]


def test_the_vmcb_under_shadow_paging() -> None:
    """Its cr3 is the root of Xen's tables."""
    block = hvm.vmcb(cast(XenMemory, Memory(nested=False, other_state=0)), VCPU)
    assert block is not None
    assert (block.nested_root, block.registers) == (None, SAVED)
    control = hvm.Control(CR0, 0, OTHER_ROOT, CR4, EFER)
    stale = STALE | {"rax": block.address}
    control, registers, _ = hvm.complete(control, stale, block)
    assert (control.cr3, control.cr2, registers["rip"]) == (OTHER_ROOT, 0x77, SAVED["rip"])


class Code:
    """Memory with one instruction."""

    def read(self, address: int, size: int) -> bytes:
        return (b"\x90" * 16 + b"\x0f\x01\xd8" + b"\x41\x57" * 8)[address : address + size]


def test_behind_vmrun() -> None:
    assert [pc for pc in range(32) if _is_behind_vmrun(cast(Any, Code()), pc)] == [19]


@pytest.mark.parametrize(
    ("cs", "ss", "block", "efer", "kind"),
    [
        (0x33, 0x2B, True, EFER, "hvm"),
        (0x23, 0x2B, True, EFER, "hvm"),
        # On Intel there is no VMCB.
        (0x33, 0x2B, False, EFER, "hvm"),
        # The control registers of a PV guest have no efer behind them.
        (0x33, 0x2B, False, 0, "pv"),
        # Xen's flat selectors, and ring 1, are those of PV guests.
        (0xE033, 0xE02B, True, EFER, "pv"),
        (0x61, 0x69, True, EFER, "pv"),
    ],
)
def test_a_guest_whose_selectors_in_user_space_are_saved(
    cs: int, ss: int, block: bool, efer: int, kind: str
) -> None:
    """Regression: it was called a PV guest, and its memory was read as machine memory."""
    memory = Memory(nested=True, other_state=0)
    page = bytearray(memory._pages[VCPU])
    values = (*GENERAL.values(), 0, 0x40_010E, cs, 0x202, 0x7FFE_0000, ss)
    struct.pack_into("<21Q", page, REGISTERS_AT, *values)
    struct.pack_into("<Q", page, CONTROL_AT + 40, efer)
    struct.pack_into("<I", page, 0x900, 2)
    if not block:
        struct.pack_into("<2Q", page, 0x800, 0, 0)
    memory._pages[VCPU] = bytes(page)
    layout = Layout()
    layout.offsets |= {"vcpu.guest_cr": CONTROL_AT, "vcpu.runstate": 0x900, "vcpu.processor": 0x904}
    layout.offsets["vcpu.registers"] = REGISTERS_AT
    known = cast(XenMemory, memory)
    found = vcpus._read_one(known, layout, OnPcpus(known, layout, [IDLE]), (0, VCPU), None)
    assert (found.kind, found.where) == (kind, "struct vcpu")
