"""A PVH domain of a real host, under nested page tables of AMD."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from tests import rendering
from tests.xen.patched import patched, sparse_copy
from xenkdump_fast import AbsentError
from xenkdump_fast.commands import check, log, ps, sys, vcpus, vtop
from xenkdump_fast.linux.system import Linux
from xenkdump_fast.session.platform import platform_of
from xenkdump_fast.xen import nested
from xenkdump_fast.xen.host import HostDomain, XenHost, XenSymbols

pytestmark = pytest.mark.real

NAME, VMLINUX, NUMBER = "xen420-pv-pvh", "vmlinux-6.12.117", 2
PAGE = 4096
#: By xen-syms' DWARF.
GUEST_CR, USER_REGS, PHYS_TABLE = 1024, 640, 72
#: Offsets in cpu_user_regs, and of the VMCB's n_cr3.
RAX, RIP, RSP = 80, 128, 152
NESTED_CR3 = 0xB0


@pytest.fixture(scope="module")
def facts(truth: Callable[[str], Any]) -> Any:
    """What xen-syms' DWARF and the VMCB say."""
    found = truth(f"{NAME}/domains.json")["domains"][NUMBER]
    assert found["id"] == NUMBER
    return found


@pytest.fixture(scope="module")
def opened(dump_file: Callable[[str], str]) -> xk.Domain:
    return xk.open(dump_file(f"{NAME}/vmcore")).domain(NUMBER, dump_file(VMLINUX))


@pytest.fixture(scope="module")
def copied(dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("translated") / "vmcore"
    sparse_copy(Path(dump_file(f"{NAME}/vmcore")), target)
    return target


def host(path: str, symbols: XenSymbols | None = None) -> HostDomain:
    return XenHost(xk.open(path).native, symbols).domain(NUMBER)


def test_the_root_by_every_method(dump_file: Callable[[str], str], facts: Any) -> None:
    syms = XenSymbols.open(dump_file("xen-syms-4.20"))
    by_map = XenSymbols(syms.path, None, syms.table)
    expected = int(facts["p2m.phys_table(mfn)"], 16)
    methods = []
    for symbols in (syms, by_map, None):
        domain = host(dump_file(f"{NAME}/vmcore"), symbols)
        assert domain.nested.mfn == expected
        assert domain.nested.p2m.nested_format == "npt"
        methods.append(domain.nested.how)
    assert ["phys_table" in how for how in methods] == [True, False, False]
    assert ["VMCB" in how for how in methods] == [False, True, True]
    xen = domain.xen
    struct = domain.address, xen.facts.size
    searched = nested.find(xen.memory, xen.layout, xen.facts.frames, struct)
    assert searched.mfn == expected
    assert "to which its struct domain points" in searched.how
    with pytest.raises(AbsentError, match="not a translated guest"):
        _ = xen.domain(1).nested


def test_every_frame_leads_back(dump_file: Callable[[str], str]) -> None:
    found = check.run(xk.open(dump_file(f"{NAME}/vmcore")), check.Options(NUMBER))
    assert [offered.name for offered in found.offered] == ["nested"]
    assert found.m2p is not None
    assert (found.m2p.equal, found.m2p.different, found.m2p.unreadable) == (40976, 0, 0)


def test_its_kernel(opened: xk.Domain, truth: Callable[[str], Any]) -> None:
    expected = truth(f"{NAME}/truth-pvh1.json")
    header = rendering.json(sys.run(opened))
    assert {name: header[name] for name in ("nodename", "release", "version", "machine")} == {
        name: expected["uts"][name] for name in ("nodename", "release", "version", "machine")
    }
    assert (header["p2m_source"], header["cpus"]) == ("nested", 1)
    lines = rendering.text(log.run(opened)).strip("\n").split("\n")
    assert len(lines) == expected["log_lines"]
    tasks = rendering.json(ps.run(opened))["tasks"]
    assert len(tasks) - 1 == len(expected["tasks"]) - (
        0 if all(task["pid"] for task in expected["tasks"]) else 1
    )
    assert opened.warnings == []


def test_its_vcpu(dump_file: Callable[[str], str], facts: Any) -> None:
    syms = dump_file("xen-syms-4.20")
    for path in (None, syms):
        options = vcpus.Options(xen_syms=path, kernels=[dump_file(VMLINUX)])
        found = rendering.json(vcpus.run(xk.open(dump_file(f"{NAME}/vmcore")), options))
        (row,) = (row for row in found["vcpus"] if row["domain"] == NUMBER)
        (saved,) = facts["vcpus"]
        assert (row["symbol"], row["cr3"]) == ("pv_native_safe_halt", saved["vmcb._cr3"])
        assert row["registers"]["rip"] == saved["user_regs"]["rip"]
        assert (row["registers"]["cs"], row["registers"]["ss"]) == ("0x10", "0x18")
    control = host(dump_file(f"{NAME}/vmcore")).vcpus[0].control
    assert control is not None
    values = [int(value, 16) for value in saved["hvm.guest_cr"]]
    assert [control.cr0, 0, control.cr2, control.cr3, control.cr4] == values
    assert control.mode == "long"


def test_vtop_shows_both_stages(opened: xk.Domain, facts: Any) -> None:
    options = vtop.Options(["linux_banner"])
    (found,) = rendering.json(vtop.run(opened, options))["addresses"]
    stage = found["nested"]
    assert (stage["format"], stage["type"]) == ("npt", "ram_rw")
    assert [level["level"] for level in stage["levels"]] == [4, 3, 2]
    assert stage["levels"][0]["table"] == hex(int(facts["p2m.phys_table(mfn)"], 16) * PAGE)
    machine = opened.dump.machine.cstring(int(found["machine"], 16), 13)
    assert machine == b"Linux version"
    assert int(stage["pfn"], 16) == int(found["physical"], 16) // PAGE
    for level in found["levels"]:
        entry = opened.dump.machine.u64(int(level["machine"], 16))
        assert entry == int(level["entry"], 16)
    assert "NPT ROOT: 28880000 [machine]" in rendering.text(vtop.run(opened, options))


def test_without_a_vmlinux(dump_file: Callable[[str], str], opened: xk.Domain) -> None:
    domain = xk.open(dump_file(f"{NAME}/vmcore")).domain(NUMBER)
    assert domain.p2m is not None
    banner = opened.kernel.symbol("linux_banner")
    assert domain.virtual.cstring(banner, 13) == b"Linux version"
    assert domain.virtual.translate(banner) == opened.virtual.translate(banner)
    assert domain.physical.read(0x1000, PAGE) == opened.physical.read(0x1000, PAGE)

    def frames(kernel: Linux) -> dict[int, list[tuple[int, int, str | None]]]:
        return {
            task.pid: [(f.pc, f.sp, f.symbol) for f in kernel.backtrace(task).frames]
            for task in kernel.tasks()
        }

    assert frames(domain.kernel) == frames(opened.kernel)


@pytest.fixture(scope="module")
def places(dump_file: Callable[[str], str], facts: Any) -> dict[str, int]:
    """Machine addresses."""
    memory = host(dump_file(f"{NAME}/vmcore")).xen.memory
    vcpu = int(facts["vcpus"][0]["ptr"], 16)
    named = {
        "root": int(facts["p2m"], 16) + PHYS_TABLE,
        "vmcb": int(facts["vcpus"][0]["vmcb"], 16) + NESTED_CR3,
        "control": vcpu + GUEST_CR,
        "registers": vcpu + USER_REGS,
    }
    found = {name: memory.translate(address) for name, address in named.items()}
    return {name: address for name, address in found.items() if address is not None}


class TestBroken:
    """Nothing in the dump is believed: each change is of what leads to the page tables."""

    def test_a_vmcb_that_leads_elsewhere(self, copied: Path, places: dict[str, int]) -> None:
        """dom0's page tables, Xen's memory, nothing: the search finds the root."""
        expected = host(str(copied)).nested.mfn
        for value in (0x22C2_2000, 0x3BDC_4000, 0xFFF_FFFF_F000):
            with patched(copied, {places["vmcb"]: value.to_bytes(8, "little")}):
                assert host(str(copied)).nested.mfn == expected

    def test_no_root_anywhere(self, copied: Path, places: dict[str, int]) -> None:
        zero = bytes(8)
        with (
            patched(copied, {places["vmcb"]: zero, places["root"]: zero}),
            pytest.raises(AbsentError, match="page tables of its memory are not found"),
        ):
            xk.open(copied).domain(NUMBER)

    @pytest.mark.parametrize("target", [None, 0x2888_0000, 0x22C2_2000])
    def test_tables_that_lead_astray(self, copied: Path, facts: Any, target: int | None) -> None:
        """The root's entries are absent, lead back to it, or to dom0's page tables."""
        root = int(facts["p2m.phys_table(mfn)"], 16) * PAGE
        entry = 0 if target is None else target | 0x67
        words = entry.to_bytes(8, "little") * 512
        with (
            patched(copied, {root: words}),
            pytest.raises(AbsentError, match="page tables of its memory are not found"),
        ):
            xk.open(copied).domain(NUMBER)

    def test_memory_of_another_domain(self, copied: Path, facts: Any) -> None:
        """A table of 1 GiB pages maps the whole host: most frames are not the domain's."""
        root = int(facts["p2m.phys_table(mfn)"], 16) * PAGE
        third = xk.open(copied).machine.u64(root) & ~0xFFF
        with (
            patched(copied, {third: (0xE7).to_bytes(8, "little")}),
            pytest.raises(AbsentError, match="of its frames are the domain's"),
        ):
            xk.open(copied).domain(NUMBER)

    def test_registers_of_the_exit_before(
        self, copied: Path, places: dict[str, int], facts: Any
    ) -> None:
        """Xen was stopped before it copied the registers from the VMCB."""
        saved = facts["vcpus"][0]
        changes = {
            places["registers"] + RAX: int(saved["vmcb_pa"], 16),
            places["registers"] + RIP: 0xFFFF_FFFF_8100_0000,
            places["registers"] + RSP: 0xFFFF_8880_0000_1000,
            places["control"] + 24: 0x777_7000,
        }
        with patched(copied, {at: value.to_bytes(8, "little") for at, value in changes.items()}):
            (vcpu,) = host(str(copied)).vcpus
            assert vcpu.registers is not None
            assert vcpu.registers["rip"] == int(saved["vmcb.rip"], 16)
            assert vcpu.registers["rsp"] == int(saved["vmcb.rsp"], 16)
            assert vcpu.root == int(saved["vmcb._cr3"], 16)

    def test_no_control_registers(
        self, copied: Path, places: dict[str, int], dump_file: Callable[[str], str]
    ) -> None:
        """The kernel has its own root; only the registers' mode is unknown."""
        with patched(copied, {places["control"]: bytes(48)}):
            (vcpu,) = host(str(copied)).vcpus
            assert (vcpu.control, vcpu.root) == (None, None)
            domain = xk.open(copied).domain(NUMBER, dump_file(VMLINUX))
            assert len(domain.kernel.tasks()) > 100

    def test_its_platform_needs_no_notes(self, copied: Path) -> None:
        platform = platform_of(xk.open(copied), NUMBER)
        assert platform.identity
        assert platform.native.notes == []
        assert list(platform.m2p_roots())
