"""``domains ID``, ``pcpus``, ``sched``, ``evtchn`` and ``grants`` without the DWARF of Xen."""

import json
from pathlib import Path

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import write_dump

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def vmcore(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dump(tmp_path_factory.mktemp("xen") / "modern", "modern").vmcore)


def test_domains_in_full(vmcore: str, capsys: Capture) -> None:
    assert main(["domains", vmcore, "1", "0", "1"]) == 0
    found = capsys.readouterr()
    shown = [line for line in found.out.splitlines() if line.startswith("        DOMAIN: ")]
    assert shown == ["        DOMAIN: 1", "        DOMAIN: 0"]
    assert "           P2M: PV\n" in found.out
    # What is not known is left out, and one warning says why.
    assert "STATE:" not in found.out
    assert found.err.count("the layouts of Xen's structs are not known: no xen-syms") == 1


def test_some_domains_are_missing(vmcore: str, capsys: Capture) -> None:
    assert main(["domains", vmcore, "0", "5", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [domain["id"] for domain in found["domains"]] == [0]
    assert "no domain 5" in found["failure"]
    assert main(["domains", vmcore, "5"]) == 1
    assert "no domain 5" in capsys.readouterr().err
    assert main(["domains", "--all", vmcore, "0"]) == 2
    assert "--all: not with domains that are shown in full" in capsys.readouterr().err


def test_pcpus(vmcore: str, capsys: Capture) -> None:
    assert main(["pcpus", vmcore]) == 0
    found = capsys.readouterr()
    lines = [line.split()[:3] for line in found.out.splitlines()]
    assert lines == [["PCPU", "APIC", "RUNS"], ["0", "-", "d0v1"], ["1", "-", "d[IDLE]v1"]]
    assert "pending softirqs are not known" in found.err


@pytest.mark.parametrize("command", ["sched", "evtchn", "grants"])
def test_what_needs_debug_information(command: str, vmcore: str, capsys: Capture) -> None:
    assert main([command, vmcore]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert "Try: --xen-syms with the xen-syms of this build that has DWARF" in found.err
    assert "; nor can it be inferred: " in found.err


@pytest.mark.parametrize("command", ["pcpus", "sched", "evtchn", "grants"])
def test_a_file_of_one_domain(command: str, tmp_path: Path, capsys: Capture) -> None:
    made = write_dump(tmp_path / "saved", "modern", format="xl-save")
    assert main([command, str(made.vmcore)]) == 1
    assert "the file of one domain has nothing of Xen" in capsys.readouterr().err
