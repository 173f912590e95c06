"""The guest's registers on a Xen stack, in the layouts of different versions and guests."""

import random
import struct

import pytest

from xenkdump_fast.xen.frames import WINDOW, find, in_kernel, read, size

TOP = 0xFFFF_8300_3808_0000
VCPU = 0xFFFF_8300_3344_5000
GENERAL_64 = list(range(0x100, 0x10F))


def is_xen(address: int) -> bool:
    return address == VCPU or TOP - WINDOW <= address < TOP


def window_64(
    pushed: tuple[int, ...],
    *,
    selectors: int = 4,
    tail: int = 6,
    number: int = 3,
    before: tuple[int, ...] = (),
) -> bytes:
    words = [
        *before,
        *GENERAL_64,
        0xD_0000_0000,
        *pushed,
        *[0] * selectors,
        0xE010_0000_0000 | number,
        VCPU,
        *[0x660] * tail,
    ]
    return struct.pack(f"<{len(words)}Q", *words).rjust(WINDOW, b"\0")


KERNEL, USER = 0xFFFF_FFFF_8107_EE03, 0x47_B7A0
KERNEL_STACK, USER_STACK = 0xFFFF_C900_4000_3E00, 0x7FFC_A352_9220


@pytest.mark.parametrize("rip", [0, 0x48, USER, KERNEL])
def test_kernel_mode_does_not_depend_on_the_pc(rip: int) -> None:
    for cs in (0x10, 0xE030):
        assert in_kernel({"cs": cs, "rip": rip, "rsp": KERNEL_STACK})
    for cs in (0x33, 0x23, 0xE023):
        assert not in_kernel({"cs": cs, "rip": rip, "rsp": USER_STACK})
    # A PV guest's kernel and user space have one selector; an HVM guest's is not saved.
    for registers in ({"cs": 0xE033}, {}):
        assert in_kernel({**registers, "rip": rip, "rsp": KERNEL_STACK})
        assert in_kernel({**registers, "rip": rip, "rsp": USER_STACK}) == (rip == KERNEL)


def test_finds_a_guest_that_called_null() -> None:
    found = find(TOP, window_64((0, *PV_64[1:])), 8, is_xen)
    assert found is not None
    assert found.guest is not None
    assert (found.guest.registers["rip"], found.guest.word) == (0, 8)
    assert in_kernel(found.guest.registers)


PV_64 = (0xFFFF_FFFF_8107_EE03, 0x1_0000_E033, 0x1006, 0xFFFF_C900_4000_3E00, 0xE02B)


@pytest.mark.parametrize("selectors", [0, 4])
@pytest.mark.parametrize("tail", [0, 1, 2, 6, 12])
def test_finds_a_64_bit_guest_in_every_layout(selectors: int, tail: int) -> None:
    found = find(TOP, window_64(PV_64, selectors=selectors, tail=tail), 8, is_xen)
    assert found is not None
    assert (found.number, found.vcpu) == (3, VCPU)
    assert found.guest is not None
    assert (found.guest.kind, found.guest.word) == ("pv", 8)
    # The upcall mask in the slot of cs is not part of the selector.
    assert found.guest.registers["cs"] == 0xE033
    assert found.guest.registers["rip"] == PV_64[0]
    assert found.guest.registers["rsp"] == PV_64[3]
    assert found.guest.registers["r15"] == 0x100
    assert found.guest.registers["rdi"] == 0x10E
    assert found.guest.address == TOP - (2 + tail + selectors + 21) * 8


@pytest.mark.parametrize(
    ("cs", "ip", "word"),
    [
        (0x61, 0xC010_1234, 4),  # a 32-bit guest's kernel, in ring 1
        (0xE019, 0xC010_1234, 4),  # the same by Xen's flat selector
        (0x73, 0x0804_8000, 4),  # its user space
        (0x33, 0x40_1000, 8),  # a 64-bit guest's user space
        (0x23, 0x0804_8000, 8),  # a 32-bit program of a 64-bit guest
    ],
)
def test_detects_32_bit_guests_of_64_bit_xen(cs: int, ip: int, word: int) -> None:
    window = window_64((ip, cs, 0x246, 0xBFFF_0000, 0x68 | (cs & 3)))
    found = find(TOP, window, 8, is_xen)
    assert found is not None
    assert found.guest is not None
    assert found.guest.word == word
    if word == 4:
        assert found.guest.registers["eip"] == ip
        assert "r8" not in found.guest.registers
        assert "rip" not in found.guest.registers
    else:
        assert found.guest.registers["rip"] == ip


@pytest.mark.parametrize("selector", [0, 0xBEEF])
def test_an_hvm_guest_has_no_selectors(selector: int) -> None:
    pushed = (0xFFFF_FFFF_8107_EE03, selector, 0x246, 0xFFFF_C900_4000_3E00, selector)
    found = find(TOP, window_64(pushed), 8, is_xen)
    assert found is not None
    assert found.guest is not None
    assert found.guest.kind == "hvm"
    assert found.guest.registers["rip"] == pushed[0]
    assert "cs" not in found.guest.registers


def test_a_pcpu_without_a_guest_has_a_current_vcpu() -> None:
    words = [0] * 21 + [0] * 4 + [1, VCPU, 0, 0]
    window = struct.pack(f"<{len(words)}Q", *words).rjust(WINDOW, b"\0")
    found = find(TOP, window, 8, is_xen)
    assert found is not None
    assert (found.number, found.vcpu, found.guest) == (1, VCPU, None)


@pytest.mark.parametrize("selectors", [4])
@pytest.mark.parametrize("tail", [0, 1, 3])
def test_finds_the_guest_of_a_32_bit_xen(selectors: int, tail: int) -> None:
    vcpu = 0xFFBE_C080
    general = list(range(0x10, 0x17))
    pushed = (0xC010_1234, 0x1_0061, 0x246, 0xC12D_1F00, 0x69)
    words = [*general, 0xE_0000, *pushed, *range(0x70, 0x70 + selectors), 1, vcpu, *[0] * tail]
    window = struct.pack(f"<{len(words)}I", *words).rjust(WINDOW, b"\0")
    found = find(0xFFBE_E000, window, 4, lambda address: address == vcpu)
    assert found is not None
    assert (found.number, found.vcpu) == (1, vcpu)
    assert found.guest is not None
    assert found.guest.registers == {
        "ebx": 0x10,
        "ecx": 0x11,
        "edx": 0x12,
        "esi": 0x13,
        "edi": 0x14,
        "ebp": 0x15,
        "eax": 0x16,
        "eip": 0xC010_1234,
        "cs": 0x61,
        "eflags": 0x246,
        "esp": 0xC12D_1F00,
        "ss": 0x69,
        "es": 0x70,
        "ds": 0x71,
        "fs": 0x72,
        "gs": 0x73,
    }


def test_a_stack_without_guest_registers() -> None:
    rng = random.Random(7)
    for _ in range(200):
        found = find(TOP, rng.randbytes(WINDOW), 8, is_xen)
        assert found is None
    assert find(TOP, bytes(WINDOW), 8, is_xen) is None
    # Xen's own exception frame is not a guest's: it is in ring 0.
    own = (0xFFFF_82D0_4020_1000, 0xE008, 0x246, TOP - 0x200, 0)
    found = find(TOP, window_64(own), 8, is_xen)
    assert found is None or found.guest is None


@pytest.mark.parametrize("flags", [0, 2])
def test_a_vcpu_that_never_ran_has_no_registers(flags: int) -> None:
    # 4.20 sets the flags' reserved bit when it creates a vCPU: not an HVM guest at address 0.
    words = [0] * (size(8) // 8)
    words[18] = flags
    assert read(words, VCPU, 8) is None
    words[16] = 0x1000
    assert (read(words, VCPU, 8) is not None) == (flags == 2)


@pytest.mark.parametrize(
    ("cs", "ss", "kind"),
    [
        (0, 0, "hvm"),
        (0x10, 0x18, "hvm"),
        (0x10, 0, "hvm"),
        (0x60, 0x68, "hvm"),
        (0x33, 0x2B, "pv"),
        # Xen's own; two rings; more than a selector.
        (0xE008, 0, None),
        (0x10, 0x1B, None),
        (0x1_0010, 0x18, None),
    ],
)
def test_saved_selectors_of_an_hvm_guest(cs: int, ss: int, kind: str | None) -> None:
    """xl save leaves them in struct vcpu, where an HVM guest has none otherwise."""
    words = [*GENERAL_64, 0, KERNEL, cs, 0x246, KERNEL_STACK, ss]
    found = read(words, VCPU, 8)
    assert (found.kind if found else None) == kind
    if found is not None and cs:
        assert (found.registers["cs"], found.registers["ss"]) == (cs, ss)
    # From there Xen copies them to the stack. Its own frames have its own selectors.
    on_stack = find(TOP, window_64((KERNEL, cs, 0x246, KERNEL_STACK, ss)), 8, is_xen)
    guest = None if on_stack is None else on_stack.guest
    assert (guest.kind if guest else None) == kind
