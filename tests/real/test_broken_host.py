"""A real host with a damaged domain list: the frame table recovers the lost domains."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xenkdump_fast._native import Dump
from xenkdump_fast.commands import domains, vcpus
from xenkdump_fast.session import DumpFile
from xenkdump_fast.xen.host import XenHost

from ..xen.broken import Break, breaks
from ..xen.patched import patched, sparse_copy

pytestmark = pytest.mark.real

LAST = 2
NAMES = {0: "aiko.lab.example", 1: "domu1", 2: "domu2"}


@pytest.fixture(scope="module")
def vmcore(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("host")
    copy = folder / "vmcore"
    sparse_copy(Path(dump_file("xen417-mixed-pcpus/vmcore")), copy)
    yield copy
    shutil.rmtree(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("broken", breaks(LAST), ids=lambda broken: broken.name)
def test_a_broken_domain_list(vmcore: Path, broken: Break) -> None:
    intact = XenHost(Dump(str(vmcore)))
    changes = broken.changes(intact, intact.domains())
    with patched(vmcore, changes):
        found = domains.run(DumpFile(str(vmcore)))
        rows = {row.id: row for row in found.rows}
        # Two domains with one id: one of them has lost its name.
        gone = broken.lost if broken.reports == "id 0" else ()
        expected = [number for number in NAMES if number not in gone]
        assert sorted(number for number in rows if number is not None) == expected
        for number in broken.lost:
            if number not in gone:
                text = f"domain {number} at "
                assert any(text in warning for warning in found.warnings), found.warnings
        if broken.reports is not None:
            assert any(broken.reports in text for text in found.warnings), found.warnings
        for number in expected:
            row, true = rows[number], intact.domain(number)
            assert row.address == true.address
            assert row.pages == true.pages
            if broken.reports == "shared_info" and number == LAST:
                continue
            assert row.kernel is not None or number in broken.damaged
            assert row.kernel is None or row.kernel.nodename == NAMES[number]
            assert row.vcpus == len(true.vcpus) or number in broken.damaged
        for read in vcpus.run(DumpFile(str(vmcore))).rows:
            assert read.domain is not None
            if read.domain not in broken.damaged:
                true_vcpu = intact.domain(read.domain).vcpus[read.vcpu.id]
                assert read.vcpu.registers == true_vcpu.registers
                assert read.vcpu.root == true_vcpu.root
