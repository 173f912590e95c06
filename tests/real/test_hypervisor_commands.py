"""``domains``, ``vcpus`` and ``--hypervisor`` on real hosts, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xenkdump_fast._native import Image
from xenkdump_fast.cli import main

pytestmark = pytest.mark.real

DumpFile = Callable[[str], str]
Truth = Callable[[str], Any]
Run = Callable[..., Any]

#: What pCPU 1 of xen417-mixed-pcpus was doing: dom0's shutdown hypercall, to kexec.
SHUTDOWN = [
    "kexec_crash_save_cpu",
    "kexec_crash",
    "hwdom_shutdown",
    "domain_shutdown",
    "do_sched_op",
    "pv_hypercall",
    "lstar_enter",
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> Any:
        status = main([*args, "--json"])
        out = capsys.readouterr().out
        assert status == 0
        return json.loads(out)

    return run


def test_domains(dump_file: DumpFile, truth: Truth, run: Run) -> None:
    found = run("domains", dump_file("xen417-mixed-pcpus/vmcore"))
    expected = truth("xen417-mixed-pcpus/truth-hypervisor.json")
    assert found["layout_by"] == "invariants"
    assert "warnings" not in found
    names = {0: "aiko.lab.example", 1: "domu1", 2: "domu2"}
    for domain, true in zip(found["domains"], expected["domains"], strict=True):
        assert domain["id"] == true["id"]
        assert domain["domain"] == true["address"]
        assert domain["pages"] == true["tot_pages"]
        assert domain["uuid"].replace("-", "") == true["uuid"]
        assert domain["vcpus"] == true["max_vcpus"]
        assert domain["nodename"] == names[true["id"]]


def test_domains_with_all_includes_system_domains(dump_file: DumpFile, run: Run) -> None:
    found = run("domains", "--all", dump_file("xen417-three-domains/vmcore"))
    assert [d["id"] for d in found["domains"]] == [0, 1, 2, 0x7FF1, 0x7FF2, 0x7FFF]
    assert {d["kind"] for d in found["domains"][3:]} == {"system"}


def test_vcpus(dump_file: DumpFile, truth: Truth, run: Run) -> None:
    vmlinux = dump_file("vmlinux-6.1.0-56-amd64")
    found = run("vcpus", dump_file("xen417-mixed-pcpus/vmcore"), "--vmlinux", vmlinux)
    expected = truth("xen417-mixed-pcpus/truth-hypervisor.json")
    rows = {(row["domain"], row["id"]): row for row in found["vcpus"]}
    for domain in expected["domains"]:
        for vcpu in domain["vcpus"]:
            row = rows.pop((domain["id"], vcpu["id"]))
            assert row["vcpu"] == vcpu["address"]
            assert row["pcpu"] == vcpu["processor"]
            assert row["running"] == vcpu["is_running"]
            assert row["cr3"] == vcpu["cr3"]
            assert row["symbol"]
    assert rows == {}
    of_dom1 = truth("xen417-mixed-pcpus/truth-dom1.json")["vcpus"][0]
    (row,) = (row for row in found["vcpus"] if row["domain"] == 1)
    assert row["registers"]["rip"] == of_dom1["registers"]["rip"]
    assert row["symbol"] == of_dom1["frames"][0]["symbol"] == "pvclock_clocksource_read"


def _symbols(pcpu: dict[str, Any]) -> list[str | None]:
    return [frame["symbol"] for frame in pcpu["frames"] if not frame["guest"]]


def test_bt_by_debug_frame(dump_file: DumpFile, truth: Truth, run: Run) -> None:
    xen_syms = dump_file("xen417-mixed-pcpus/xen-syms")
    found = run("bt", "--hypervisor", xen_syms, dump_file("xen417-mixed-pcpus/vmcore"))
    expected = truth("xen417-mixed-pcpus/truth-hypervisor.json")["pcpus"]
    first, second = found["pcpus"]
    # pCPU 0 was emulating an instruction of domain 1's when the NMI came.
    assert _symbols(first)[:4] == [
        "kexec_crash_save_cpu",
        "do_nmi_crash",
        "do_nmi",
        "handle_ist_exception",
    ]
    assert "pv_emulate_privileged_op" in _symbols(first)
    assert (first["domain"], first["vcpu_id"]) == (1, 0)
    assert _symbols(second) == SHUTDOWN
    assert (second["domain"], second["vcpu_id"]) == (0, 0)
    for pcpu, true in zip(found["pcpus"], expected, strict=True):
        assert not any(frame["guess"] for frame in pcpu["frames"])
        guest = pcpu["frames"][-1]
        assert guest["guest"]
        for name, value in true["guest"].items():
            assert guest["registers"][name] == value, name


def test_bt_by_scan_agrees_with_debug_frame(dump_file: DumpFile, run: Run) -> None:
    files = dump_file("xen417-mixed-pcpus/xen-syms"), dump_file("xen417-mixed-pcpus/vmcore")
    by_cfi = run("bt", "--hypervisor", *files)["pcpus"]
    by_scan = run("bt", "--hypervisor", "--unwind", "scan", *files)["pcpus"]
    assert _symbols(by_scan[1]) == _symbols(by_cfi[1])
    # do_nmi jumps to do_nmi_crash. A scan cannot distinguish this from a call.
    missing = [name for name in _symbols(by_cfi[0]) if name not in _symbols(by_scan[0])]
    assert missing in ([], ["do_nmi_crash"])
    invented = [name for name in _symbols(by_scan[0]) if name not in _symbols(by_cfi[0])]
    assert invented == []


def test_bt_with_symbols_alone(dump_file: DumpFile, run: Run, tmp_path: Path) -> None:
    xen_syms = dump_file("xen-syms-4.17-amd64")
    vmcore = dump_file("xen417-three-domains/vmcore")
    found = run("bt", "--hypervisor", xen_syms, vmcore)
    first, second = found["pcpus"]
    assert _symbols(first) == SHUTDOWN
    assert "default_idle" in _symbols(second)
    assert second["domain"] == 0x7FFF
    # A map file gives the same result.
    symbols = Image(xen_syms).symbols()
    names = {
        *(name for pcpu in found["pcpus"] for name in _symbols(pcpu) if name),
        *("_stext", "_etext", "domain_list", "conring", "conringp", "conring_size"),
    }
    lines = sorted((symbols[name], name) for name in names)
    table = tmp_path / "xen.map"
    table.write_text("".join(f"{address:016x} T {name}\n" for address, name in lines))
    by_map = run("bt", "--hypervisor", str(table), vmcore)
    assert _symbols(by_map["pcpus"][0]) == SHUTDOWN


def test_bt_without_symbols_shows_the_guests(dump_file: DumpFile, run: Run) -> None:
    found = run("bt", "--hypervisor", dump_file("xen417-three-domains/vmcore"))
    assert any("without xen-syms" in warning for warning in found["warnings"])
    for pcpu in found["pcpus"]:
        assert pcpu["frames"][-1]["guest"]
        assert "xen-syms" in pcpu["why"]


@pytest.mark.parametrize("with_symbols", [True, False])
def test_log(dump_file: DumpFile, run: Run, with_symbols: bool) -> None:
    xen_syms = [dump_file("xen-syms-4.17-amd64")] if with_symbols else []
    found = run("log", "--hypervisor", *xen_syms, dump_file("xen417-three-domains/vmcore"))
    assert found["lines"][0].startswith("(XEN) Xen version 4.17.7 (Debian")
    assert found["lines"][-1] == "(XEN) Shot down all CPUs"
    assert not found["overwritten"]


@pytest.mark.parametrize("with_symbols", [True, False])
def test_sys(dump_file: DumpFile, run: Run, with_symbols: bool) -> None:
    xen_syms = [dump_file("xen-syms-4.17-amd64")] if with_symbols else []
    found = run("sys", "--hypervisor", *xen_syms, dump_file("xen417-three-domains/vmcore"))
    assert found["version"] == "4.17.7"
    assert found["compiled"] == "Wed Nov  4 16:52:28 UTC 2026"
    assert found["command_line"].startswith("placeholder console=com1")
    assert found["pcpus"] == [0, 1]
    assert found["domains"] == 3
    assert found["reason"] == "Hardware Dom0 crashed: Executing kexec image on cpu0"
    assert found["crashed_on"] == 0
    assert 300 < found["uptime"] < 600
    assert found["memory_is_minimum"] is not with_symbols
    # Xen's message: "System RAM: 899MB (921060kB)".
    assert found["memory"] < (921060 + 1024) * 1024
    if with_symbols:
        assert found["mhz"] == 2445
        assert abs(found["memory"] - 921060 * 1024) < 1 << 20


def test_memory_without_symbols_is_a_minimum(
    dump_file: DumpFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sys", "--hypervisor", dump_file("xen417-three-domains/vmcore")]) == 0
    assert "MEMORY: at least 739.5 MB\n" in capsys.readouterr().out


def test_a_xen_syms_of_another_build_is_rejected(
    dump_file: DumpFile, capsys: pytest.CaptureFixture[str]
) -> None:
    files = dump_file("xen-syms-4.17-amd64"), dump_file("xen417-mixed-pcpus/vmcore")
    assert main(["log", "--hypervisor", *files]) == 1
    assert "build id" in capsys.readouterr().err
    assert main(["log", "--hypervisor", "--force", *files]) == 0
    assert "build id" in capsys.readouterr().err
    kernel = dump_file("vmlinux-6.1.0-56-amd64")
    assert main(["bt", "--hypervisor", kernel, files[1]]) == 1
    assert "not the hypervisor of the dump" in capsys.readouterr().err


def test_the_domain_of_a_dump_core_file(dump_file: DumpFile, run: Run) -> None:
    (domain,) = run("domains", dump_file("xen417-three-domains/domu1.core"))["domains"]
    assert domain["id"] is None
    assert (domain["kind"], domain["nodename"], domain["pages"]) == ("pv", "domu1", 32768)
    (vcpu,) = run("vcpus", dump_file("xen417-three-domains/domu1.core"))["vcpus"]
    assert vcpu["registers_from"] == ".xen_prstatus"


def test_a_machine_without_xen_has_no_domains(
    dump_file: DumpFile, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["domains", dump_file("bare-x86_64/vmcore")]) == 1
    assert "not the dump of a Xen host" in capsys.readouterr().err


def test_guesses_are_explained(dump_file: DumpFile, capsys: pytest.CaptureFixture[str]) -> None:
    xen_syms, vmcore = dump_file("xen-syms-4.17-amd64"), dump_file("xen417-dom0/vmcore")
    assert main(["bt", "--hypervisor", xen_syms, vmcore]) == 0
    printed = capsys.readouterr()
    assert "(guess)" in printed.out
    assert "has no unwind tables" in printed.err
