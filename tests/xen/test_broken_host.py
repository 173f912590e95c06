"""A synthetic host with a broken domain list: partial answers, clear messages, no hang."""

from pathlib import Path

import pytest

from xenkdump_fast._native import Dump
from xenkdump_fast.commands import domains, vcpus
from xenkdump_fast.session import DumpFile
from xenkdump_fast.xen.host import XenHost
from xenkdump_forge import write_dump

from .broken import Break, breaks
from .patched import patched

LAST = 1


@pytest.fixture(scope="module")
def vmcore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dump(tmp_path_factory.mktemp("host"), "modern").vmcore


@pytest.mark.timeout(20)
@pytest.mark.parametrize("broken", breaks(LAST), ids=lambda broken: broken.name)
def test_a_broken_domain_list(vmcore: Path, broken: Break) -> None:
    intact = XenHost(Dump(str(vmcore)))
    changes = broken.changes(intact, intact.domains())
    with patched(vmcore, changes):
        found = domains.run(DumpFile(str(vmcore)))
        rows = {row.id: row for row in found.rows}
        # Without a frame table, only a pCPU's vCPU leads to a domain that is not in the list.
        # Both pCPUs run domain 0.
        expected = [i for i in range(LAST + 1) if i not in broken.lost or i == 0]
        assert sorted(i for i in rows if i is not None) == expected
        if broken.reports is not None:
            assert any(broken.reports in text for text in found.warnings), found.warnings
        for number in expected:
            row = rows[number]
            if number in broken.damaged or "shared_info" in (broken.reports or ""):
                continue
            assert (row.kind, row.word) == ("pv", 8)
            assert row.vcpus == len(intact.domain(number).vcpus)
            assert row.kernel is not None
        # dom0 is intact, whatever the state of the others.
        assert rows[0].kernel is not None
        assert rows[0].kernel.nodename == "aiko.lab.example"
        of_dom0 = [row.vcpu for row in vcpus.run(DumpFile(str(vmcore))).rows if row.domain == 0]
        assert [v.registers for v in of_dom0] == [v.registers for v in intact.domain(0).vcpus]


def test_a_domain_of_xen_that_cannot_be_read(vmcore: Path) -> None:
    """It is left out, with a warning."""
    intact = XenHost(Dump(str(vmcore)))
    every = [domain.id for domain in intact.domains(all=True)]
    assert not any("Xen's own domains" in text for text in intact.warnings)
    machine = intact.memory.translate(intact.facts.system[0])
    assert machine is not None
    # A part of Xen's memory that the dump does not hold.
    lost = intact.domain(0).address + (1 << 41)
    with patched(vmcore, {machine: lost.to_bytes(8, "little")}):
        host = XenHost(Dump(str(vmcore)))
        assert [domain.id for domain in host.domains(all=True)] == every
        text = f"Xen's own domains may be missing: the domain at {lost:#x} cannot be read"
        assert text in host.warnings
