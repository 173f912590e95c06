"""The kind ``modern``, compared with its plan by the tests' own page-table walker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xenkdump_forge import SyntheticDump, write_dump

from .walk import Core


@pytest.fixture(scope="module")
def dump(dump_of: Callable[[str], SyntheticDump]) -> SyntheticDump:
    return dump_of("modern")


@pytest.fixture(scope="module")
def core(core_of: Callable[[str], Core]) -> Core:
    return core_of("modern")


@pytest.fixture(scope="module")
def dom0(dump: SyntheticDump) -> dict[str, Any]:
    found: dict[str, Any] = dump.plan["domains"][0]
    return found


@pytest.fixture(scope="module")
def domu(dump: SyntheticDump) -> dict[str, Any]:
    found: dict[str, Any] = dump.plan["domains"][1]
    return found


def test_the_same_seed_gives_the_same_bytes(dump: SyntheticDump, tmp_path: Path) -> None:
    again = write_dump(tmp_path, "modern")
    assert again.vmlinux.read_bytes() == dump.vmlinux.read_bytes()
    assert again.plan == dump.plan
    with again.vmcore.open("rb") as a, dump.vmcore.open("rb") as b:
        while block := a.read(1 << 24):
            assert block == b.read(1 << 24)


def test_notes_are_those_of_a_xen_host(core: Core) -> None:
    sizes = [(name, kind, len(desc)) for name, kind, desc in core.notes]
    assert sizes == [
        ("CORE", 1, 336),
        ("Xen", 0x1000002, 32),
        ("Xen", 0x1000001, 80),
        ("CORE", 1, 336),
        ("Xen", 0x1000002, 32),
        ("VMCOREINFO_XEN", 0, 4068),
    ]


def test_tree_and_plan_agree(core: Core, dom0: dict[str, Any]) -> None:
    top = int(dom0["frame_list_list"], 16)
    masks = {"foreign": 1 << 63, "identity": 1 << 62, "frame": 0}
    for sampled in dom0["p2m"]["samples"]:
        entry = core.tree_entry(top, 8, int(sampled["pfn"], 16))
        if sampled["kind"] == "invalid":
            assert entry == 2**64 - 1
        else:
            assert entry == int(sampled["mfn"], 16) | masks[sampled["kind"]]


def test_linear_list_and_plan_agree(core: Core, dom0: dict[str, Any]) -> None:
    root, start = int(dom0["root"], 16), int(dom0["p2m_vaddr"], 16)
    for sampled in dom0["p2m"]["samples"]:
        if sampled["kind"] == "frame":
            raw = core.read("x86_64", root, start + 8 * int(sampled["pfn"], 16), 8)
            assert int.from_bytes(raw, "little") == int(sampled["mfn"], 16)


def test_machine_to_pseudo_physical(core: Core, dom0: dict[str, Any]) -> None:
    for sampled in dom0["p2m"]["samples"]:
        if sampled["kind"] == "frame":
            at = 0xFFFF800000000000 + 8 * int(sampled["mfn"], 16)
            raw = core.read("x86_64", int(dom0["root"], 16), at, 8)
            assert int.from_bytes(raw, "little") == int(sampled["pfn"], 16)


def test_pfn_and_mfn_differ(dom0: dict[str, Any]) -> None:
    frames = [s for s in dom0["p2m"]["samples"] if s["kind"] == "frame"]
    assert sum(s["pfn"] == s["mfn"] for s in frames) < len(frames) / 20


def test_return_addresses_follow_calls(core: Core, dom0: dict[str, Any]) -> None:
    """Each frame's pc is at its slot, and follows a call instruction."""
    root = int(dom0["root"], 16)
    functions = 0
    for task in dom0["tasks"]:
        for frame in task["frames"]:
            if frame["slot"] is None:
                continue
            pc = int(frame["pc"], 16)
            raw = core.read("x86_64", root, int(frame["slot"], 16), 8)
            assert int.from_bytes(raw, "little") == pc
            code = core.read("x86_64", root, pc - 7, 7)
            direct = code[2] == 0xE8
            indirect = code[5] == 0xFF or 0xFF in (code[4], code[3], code[0], code[1], code[2])
            assert direct or indirect
            functions += 1
    assert functions > 400


def test_every_page_table_of_a_process_shares_the_kernel_half(
    core: Core, dom0: dict[str, Any]
) -> None:
    banner = int(dom0["symbols"]["linux_banner"], 16)
    roots = {int(t["pgd"], 16) for t in dom0["tasks"] if "pgd" in t}
    assert len(roots) > 30
    for root in roots:
        assert core.read("x86_64", root, banner, 14) == b"Linux version "


def test_the_guest_has_no_tree(core: Core, domu: dict[str, Any]) -> None:
    assert domu["frame_list_list"] == hex(2**64 - 1)
    root, start = int(domu["p2m_cr3"], 16), int(domu["p2m_vaddr"], 16)
    for sampled in domu["p2m"]["samples"]:
        entry = 2**64 - 1 if sampled["mfn"] is None else int(sampled["mfn"], 16)
        raw = core.read("x86_64", root, start + 8 * int(sampled["pfn"], 16), 8)
        assert int.from_bytes(raw, "little") == entry


def test_foreign_entries_are_frames_of_the_guest(
    core: Core, dom0: dict[str, Any], domu: dict[str, Any]
) -> None:
    foreign = [s for s in dom0["p2m"]["samples"] if s["kind"] == "foreign"]
    assert len(foreign) == dom0["p2m"]["counts"]["foreign"] == 4
    pfns = []
    for sampled in foreign:
        at = 0xFFFF800000000000 + 8 * int(sampled["mfn"], 16)
        pfns.append(int.from_bytes(core.read("x86_64", int(domu["root"], 16), at, 8), "little"))
    assert pfns == [0x3000, 0x3001, 0x2F11, 7]


def test_domains_by_vmcoreinfo(core: Core, dom0: dict[str, Any]) -> None:
    """SYMBOL(domain_list) points to dom0, then its guest."""
    text = next(d for name, _, d in core.notes if name == "VMCOREINFO_XEN").decode()
    info = dict(line.split("=") for line in text.rstrip("\0\n").split("\n"))
    root = int(dom0["root"], 16)

    def word(va: int, size: int = 8) -> int:
        return int.from_bytes(core.read("x86_64", root, va, size), "little")

    at, seen = word(int(info["SYMBOL(domain_list)"], 16)), []
    while at:
        seen.append(word(at + int(info["OFFSET(domain.domain_id)"]), 2))
        at = word(at + int(info["OFFSET(domain.next_in_list)"]))
    assert seen == [0, 1]
