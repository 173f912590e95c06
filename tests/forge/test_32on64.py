"""The kind ``32on64``: a 32-bit guest in 64-bit notes, page tables and registers."""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_forge import SyntheticDump, SyntheticDumpError, build

from .walk import Core


@pytest.fixture(scope="module")
def dom0(dump_of: Callable[[str], SyntheticDump]) -> dict[str, Any]:
    found: dict[str, Any] = dump_of("32on64").plan["domains"][0]
    return found


@pytest.fixture(scope="module")
def core(core_of: Callable[[str], Core]) -> Core:
    return core_of("32on64")


def cr3(core: Core, number: int) -> int:
    regs = [desc for _, kind, desc in core.notes if kind == 0x1000002]
    value: int = struct.unpack_from("<4Q", regs[number])[2]
    return value


def test_elf64_with_em_386(core: Core) -> None:
    assert (core.word, core.machine) == (8, 3)
    assert [len(desc) for _, _, desc in core.notes] == [336, 32, 80, 336, 32, 4068]


def test_slot_0_points_to_the_guests_table(core: Core, dom0: dict[str, Any]) -> None:
    panicked = next(t for t in dom0["tasks"] if t["pid"] == dom0["header"]["pid"])
    assert core.machine_word(cr3(core, 0), 8) & ~0xFFF == int(panicked["pgd"], 16)
    banner = int(dom0["symbols"]["linux_banner"], 16)
    by_four = core.read("x86_64", cr3(core, 0), banner, 14)
    by_three = core.read("x86-pae", int(panicked["pgd"], 16), banner, 14)
    assert by_four == by_three == b"Linux version "


def test_cr3_has_high_address_bits_in_its_low_bits(dom0: dict[str, Any]) -> None:
    mfn, value = int(dom0["root"], 16) >> 12, int(dom0["p2m_cr3"], 16)
    assert (value >> 12 | value << 20) & 0xFFFFFFFF == mfn


def test_tree_and_list_agree(core: Core, dom0: dict[str, Any]) -> None:
    top, start = int(dom0["frame_list_list"], 16), int(dom0["p2m_vaddr"], 16)
    masks = {"foreign": 1 << 31, "identity": 1 << 30, "frame": 0}
    for sampled in dom0["p2m"]["samples"]:
        pfn, expected = int(sampled["pfn"], 16), 0xFFFFFFFF
        if sampled["mfn"] is not None:
            expected = int(sampled["mfn"], 16) | masks[sampled["kind"]]
        assert core.tree_entry(top, 4, pfn) == expected
        raw = core.read("x86-pae", int(dom0["root"], 16), start + 4 * pfn, 4)
        assert int.from_bytes(raw, "little") == expected
        if sampled["kind"] == "frame":
            # The table of a small host is the last 2 MiB before 0xffe00000.
            at = 0xFFC00000 + 4 * int(sampled["mfn"], 16)
            raw = core.read("x86-pae", int(dom0["root"], 16), at, 4)
            assert int.from_bytes(raw, "little") == pfn


def test_a_fault_in_the_kernel(dom0: dict[str, Any]) -> None:
    panicked = next(t for t in dom0["tasks"] if t["pid"] == dom0["header"]["pid"])
    frames = panicked["frames"]
    at = next(i for i, f in enumerate(frames) if f["symbol"] == "sysrq_handle_crash")
    assert frames[at]["interrupted"]
    assert frames[at - 1]["symbol"] == "common_exception"
    assert frames[at + 1]["symbol"] == "__handle_sysrq"


def test_memory_must_be_low() -> None:
    with pytest.raises(SyntheticDumpError, match="at most"):
        build("32on64", memory=2 << 30)
