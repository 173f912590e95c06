"""The control registers of translated guests, found by their contents."""

from typing import Any, cast

import pytest

from xenkdump_fast.xen import hvm
from xenkdump_fast.xen.hvm import Control, Vmcb

#: cr0, cr1, cr2, cr3, cr4, efer of kernels in each mode.
LONG = (0x8005_0033, 0, 0x57_94A9, 0x5CE_C000, 0x6F0, 0xD01)
LA57 = (0x8005_0033, 0, 0, 0x5CE_C001, 0x16F0, 0xD01)
PAE = (0x8005_0033, 0, 0, 0x1E9_8020, 0x6B0, 0x800)
PROTECTED = (0x8001_0033, 0, 0xC012_3000, 0x10_1000, 0x90, 0)
FLAT = (0x11, 0, 0, 0, 0, 0)
REAL = (0x10, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("words", "mode", "word", "paging", "root"),
    [
        (LONG, "long", 8, "x86_64", 0x5CE_C000),
        (LA57, "long-la57", 8, "x86_64-la57", 0x5CE_C000),
        (PAE, "pae", 4, "x86-pae", 0x1E9_8020),
        (PROTECTED, "protected", 4, "x86", 0x10_1000),
        (FLAT, "protected", 4, None, None),
        (REAL, "real", 4, None, None),
    ],
)
def test_modes(words: Any, mode: str, word: int, paging: str | None, root: int | None) -> None:
    found = hvm.parse(words)
    assert found is not None
    assert (found.mode, found.word, found.paging, found.root) == (mode, word, paging, root)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 0x8005_0032),  # paging without protection
        (0, 0x8005_0023),  # without ET
        (0, 0x1_8005_0033),
        (1, 1),
        (3, 0),
        (3, 1 << 60),
        (4, 0x6D0),  # long mode without PAE
        (4, 1 << 40),
        (5, 0x901),  # LME and paging, but not LMA
        (5, 0xC01),
        (5, 0xD03),
    ],
)
def test_impossible_values(index: int, value: int) -> None:
    words = list(LONG)
    words[index] = value
    assert hvm.parse(words) is None


def vcpu(words: tuple[int, ...], at: int) -> list[int]:
    """The words of a struct vcpu with control registers at an index, then hw_cr."""
    struct = [0] * 300
    struct[at : at + 6] = words
    struct[at + 6 : at + 11] = (0, 0, 0, words[3], 0)
    return struct


def test_the_offset_on_which_most_vcpus_agree() -> None:
    vcpus = [vcpu(words, 128) for words in (LONG, PAE, REAL)]
    # As of a nested guest: without efer.
    vcpus[0][250:255] = [0x8005_0033, 0, 0, 0x5CE_C000, 0x6F0]
    assert hvm.infer(vcpus) == 1024


def test_no_offset_without_paging_or_by_chance() -> None:
    assert hvm.infer([vcpu(REAL, 128), vcpu(FLAT, 128)]) is None
    assert hvm.infer([]) is None
    twice = vcpu(LONG, 128)
    twice[200:211] = twice[128:139]
    assert hvm.infer([twice]) is None


CONTROL = cast(Control, hvm.parse(LONG))
SAVED = {"rip": 0x5000, "rsp": 0x7000, "rflags": 0x246, "rax": 9}
VMCB = Vmcb(0x3BDC_4000, 0x2888_0000, SAVED, cs=0x10, ss=0x18, cr2=0x11, cr3=0x99_9000)


def test_registers_that_xen_did_not_copy_are_taken_from_the_vmcb() -> None:
    """As after an NMI: rax is still the operand of VMRUN, the others are of the exit before."""
    stale = {"rip": 0x1111, "rsp": 0x2222, "rflags": 2, "rax": VMCB.address, "rbx": 7}
    control, registers, pc = hvm.complete(CONTROL, stale, VMCB)
    assert registers == SAVED | {"rbx": 7, "cs": 0x10, "ss": 0x18}
    assert (control.cr2, control.cr3, control.cr4, pc) == (0x11, 0x99_9000, 0x6F0, 0x5000)


def test_registers_that_xen_copied_stay() -> None:
    copied = SAVED | {"rip": 0x5001, "rbx": 7}
    control, registers, pc = hvm.complete(CONTROL, copied, VMCB)
    assert (control, registers) == (CONTROL, copied | {"cs": 0x10, "ss": 0x18})
    # Xen has emulated an instruction of one byte.
    assert pc == 0x5000
    assert hvm.complete(CONTROL, copied | {"rip": 0x6000}, VMCB)[2] is None
    assert hvm.complete(CONTROL, copied | {"rsp": 0x6000}, VMCB)[2] is None
