"""Domains, vCPUs and pCPUs of real Xen hosts, against what xen-syms' DWARF says of them."""

from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast._native import Dump
from xenkdump_fast.hypervisor.pcpus import pcpus

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
