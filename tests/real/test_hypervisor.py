"""Domains, vCPUs and pCPUs of real Xen hosts, compared with the DWARF of xen-syms."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from xenkdump_fast._native import Dump, Image
from xenkdump_fast.xen import compat
from xenkdump_fast.xen.domain import CoreDomain
from xenkdump_fast.xen.host import HostDomain, XenHost, XenSymbols
from xenkdump_fast.xen.layout import by_types
from xenkdump_fast.xen.pcpus import pcpus

pytestmark = pytest.mark.real

DumpFile = Callable[[str], str]
Truth = Callable[[str], Any]


def test_pcpus_hold_the_interrupted_guests(dump_file: DumpFile, truth: Truth) -> None:
    expected = truth("xen417-mixed-pcpus/truth-hypervisor.json")
    vcpus = {
        (domain["id"], vcpu["id"]): int(vcpu["address"], 16)
        for domain in expected["domains"]
        for vcpu in domain["vcpus"]
    }
    found = pcpus(Dump(dump_file("xen417-mixed-pcpus/vmcore")))
    assert len(found) == len(expected["pcpus"])
    for pcpu, true in zip(found, expected["pcpus"], strict=True):
        assert pcpu.warnings == ()
        assert pcpu.cr3 == int(true["cr3"], 16)
        assert pcpu.registers["rsp"] == int(true["rsp"], 16)
        assert pcpu.guest is not None
        assert pcpu.guest.word == 8
        for name, value in true["guest"].items():
            assert pcpu.guest.registers[name] == int(value, 16), name
        assert pcpu.vcpu == vcpus[true["current"]["domain"], true["current"]["vcpu"]]
    assert [pcpu.number for pcpu in found] == [0, 1]


@pytest.mark.parametrize("folder", ["xen417-dom0", "xen417-three-domains"])
def test_pcpus_of_other_hosts(dump_file: DumpFile, truth: Truth, folder: str) -> None:
    name = "truth.json" if folder == "xen417-dom0" else "truth-dom0.json"
    running = truth(f"{folder}/{name}")["running"]
    found = pcpus(Dump(dump_file(f"{folder}/vmcore")))
    assert sorted(p.guest.registers["rip"] for p in found if p.guest) == sorted(
        int(entry["registers"]["ip"], 16) for entry in running
    )


def test_a_machine_without_xen_has_no_pcpus(dump_file: DumpFile) -> None:
    assert pcpus(Dump(dump_file("bare-x86_64/vmcore"))) == []
    assert pcpus(Dump(dump_file("bare-i386/vmcore"))) == []


def test_a_domain_saved_by_xl(dump_file: DumpFile) -> None:
    dump = Dump(dump_file("xen417-three-domains/domu1.core"))
    assert dump.format == "xl dump-core"
    assert dump.warnings == []
    assert not dump.auto_translated
    (vcpu,) = dump.vcpu_contexts
    assert vcpu["word"] == 8
    assert vcpu["registers"]["cs"] == 0xE033
    assert vcpu["root"] == vcpu["cr"][3]
    assert dump.shared_info is not None
    # arch.max_pfn: 128 MiB.
    assert int.from_bytes(dump.shared_info[3088:3096], "little") == 0x8000


def test_the_three_domains_of_a_host(dump_file: DumpFile, truth: Truth) -> None:
    expected = truth("xen417-mixed-pcpus/truth-hypervisor.json")
    xen = XenHost(Dump(dump_file("xen417-mixed-pcpus/vmcore")))
    found = xen.domains()
    assert [domain.id for domain in found] == [domain["id"] for domain in expected["domains"]]
    assert xen.warnings == []
    assert xen.layout.how == "invariants"
    for domain, true in zip(found, expected["domains"], strict=True):
        _same_domain(domain, true)


@pytest.mark.parametrize("name", ["xen417-mixed-pcpus/xen-syms", "xen-syms-4.20"])
def test_dwarf_has_every_member_under_its_newest_name(dump_file: DumpFile, name: str) -> None:
    types = Image(dump_file(name)).types()
    layout = by_types(types)
    assert layout.vcpu_by_pointer
    for ours, paths in compat.members().items():
        assert layout.offsets[ours] == types.member(paths[0]).offset


def test_dwarf_and_invariants_agree(dump_file: DumpFile, truth: Truth) -> None:
    expected = truth("xen417-mixed-pcpus/truth-hypervisor.json")
    path = dump_file("xen417-mixed-pcpus/vmcore")
    from_dwarf = XenHost(Dump(path), XenSymbols.open(dump_file("xen417-mixed-pcpus/xen-syms")))
    assert from_dwarf.layout.how == "DWARF"
    inferred = XenHost(Dump(path)).layout
    assert inferred.offsets.items() <= from_dwarf.layout.offsets.items()
    assert inferred.vcpu_by_pointer == from_dwarf.layout.vcpu_by_pointer
    for domain, true in zip(from_dwarf.domains(), expected["domains"], strict=True):
        _same_domain(domain, true)


def _same_domain(domain: HostDomain, true: dict[str, Any]) -> None:
    info = true["arch_shared_info"]
    assert domain.address == int(true["address"], 16)
    assert (domain.kind, domain.word) == ("pv", 8)
    assert domain.pages == true["tot_pages"]
    assert domain.uuid == UUID(hex=true["uuid"])
    assert domain.max_pfn == int(info["max_pfn"], 16)
    assert domain.shared_info is not None
    for name in ("frame_list_list", "p2m_cr3", "p2m_vaddr", "p2m_generation"):
        assert getattr(domain.shared_info, name) == int(info[name], 16), name
    assert [source.name for source in domain.sources] == ["list", "linear"]
    assert domain.warnings == []
    assert len(domain.vcpus) == true["max_vcpus"]
    for vcpu, saved in zip(domain.vcpus, true["vcpus"], strict=True):
        assert vcpu.address == int(saved["address"], 16)
        assert (vcpu.id, vcpu.pcpu) == (saved["id"], saved["processor"])
        assert vcpu.running == saved["is_running"]
        assert (vcpu.state == "running") == saved["is_running"]
        assert vcpu.root == int(saved["cr3"], 16)
        assert vcpu.registers is not None
        if vcpu.running:
            assert "Xen stack" in str(vcpu.where)
        else:
            # Both pCPUs were busy, so the registers are not on a pCPU's stack.
            assert vcpu.where == "struct vcpu"
            for name, value in saved["user_regs"].items():
                assert vcpu.registers[name] == int(value, 16), name


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("xen417-dom0", ["aiko.lab.example"]),
        ("xen417-three-domains", ["aiko.lab.example", "domu1", "domu2"]),
        ("xen417-mixed-pcpus", ["aiko.lab.example", "domu1", "domu2"]),
    ],
)
def test_kernels_are_recognised(dump_file: DumpFile, folder: str, names: list[str]) -> None:
    xen = XenHost(Dump(dump_file(f"{folder}/vmcore")))
    kernels = [domain.kernel() for domain in xen.domains()]
    assert [kernel.nodename if kernel else None for kernel in kernels] == names
    for kernel in kernels:
        assert kernel is not None
        assert kernel.release == "6.1.0-56-amd64"
        assert kernel.version.startswith("#1 SMP")


@pytest.mark.parametrize("folder", ["xen417-dom0", "xen417-three-domains", "xen417-mixed-pcpus"])
def test_both_sources_of_a_p2m_agree(dump_file: DumpFile, folder: str) -> None:
    for domain in XenHost(Dump(dump_file(f"{folder}/vmcore"))).domains():
        tree, linear = domain.p2m("list"), domain.p2m("linear")
        comparison = tree.compare(linear)
        assert comparison.equal > 30_000
        assert comparison.different == comparison.unreadable == 0


def test_an_idle_pcpu_keeps_the_registers_of_its_last_vcpu(
    dump_file: DumpFile, truth: Truth
) -> None:
    """Lazy context switch: is_running is 0 and arch.user_regs is stale."""
    running = truth("xen417-three-domains/truth-dom0.json")["running"]
    dom0 = XenHost(Dump(dump_file("xen417-three-domains/vmcore"))).domain(0)
    assert [vcpu.running for vcpu in dom0.vcpus] == [False, True]
    left = dom0.vcpus[0]
    assert left.where is not None
    assert "went idle" in left.where
    assert left.registers is not None
    true = next(entry["registers"] for entry in running if entry["pcpu"] == left.pcpu)
    assert left.registers["rip"] == int(true["ip"], 16)
    assert left.registers["rsp"] == int(true["sp"], 16)
    assert left.root == int(true["cr3"], 16)


def test_the_domain_of_a_dump_core_file(dump_file: DumpFile) -> None:
    domain = CoreDomain(Dump(dump_file("xen417-three-domains/domu1.core")))
    assert (domain.kind, domain.word, domain.pages) == ("pv", 8, 32768)
    assert domain.max_pfn == 32768
    kernel = domain.kernel()
    assert kernel is not None
    assert kernel.nodename == "domu1"
    (vcpu,) = domain.vcpus
    assert vcpu.where == ".xen_prstatus"
    assert vcpu.registers is not None
    assert vcpu.registers["gs_base"] >> 63
    assert domain.p2m("list").compare(domain.p2m("linear")).different == 0
