"""The P2M sources of real domains, against each other and against Xen's own table."""

from collections.abc import Callable

import pytest

import xenkdump_fast
from xenkdump_fast import AbsentError
from xenkdump_fast.commands import check
from xenkdump_fast.linux import header

pytestmark = pytest.mark.real

VMLINUX = "vmlinux-6.1.0-56-amd64"


@pytest.mark.parametrize(
    ("name", "domain", "pages"),
    [
        ("xen417-dom0", 0, 81920),
        ("xen417-three-domains", 0, 98304),
        ("xen417-three-domains", 1, 32768),
        ("xen417-three-domains", 2, 32768),
        # Its pCPUs ran two domUs.
        ("xen417-mixed-pcpus", 0, 98304),
        ("xen417-mixed-pcpus", 1, 32768),
    ],
)
def test_sources_agree(name: str, domain: int, pages: int, dump_file: Callable[[str], str]) -> None:
    dump = xenkdump_fast.open(dump_file(f"{name}/vmcore"))
    found = check.run(dump, check.Options(domain, dump_file(VMLINUX)))
    assert [offered.name for offered in found.offered] == ["list", "linear", "cr3"]
    assert found.disagreements == 0
    assert found.m2p is not None
    assert (found.m2p.equal, found.m2p.different, found.m2p.unreadable) == (pages, 0, 0)
    without = check.run(dump, check.Options(domain))
    assert [offered.name for offered in without.offered] == ["list", "linear"]


def test_dom0_by_cr3_is_dom0(dump_file: Callable[[str], str]) -> None:
    dump = xenkdump_fast.open(dump_file("xen417-mixed-pcpus/vmcore"))
    vmlinux = dump_file(VMLINUX)
    names = {
        header.uts(dump.domain(0, vmlinux, p2m_source=source).kernel)["nodename"]
        for source in ("list", "linear", "cr3", None)
    }
    assert len(names) == 1


def test_a_domain_saved_by_xl(dump_file: Callable[[str], str]) -> None:
    found = check.run(xenkdump_fast.open(dump_file("xen417-three-domains/domu1.core")))
    assert [offered.name for offered in found.offered] == ["dump-core", "list", "linear"]
    assert found.disagreements == 0


def test_a_machine_without_xen(dump_file: Callable[[str], str]) -> None:
    with pytest.raises(AbsentError, match="not the dump of a Xen host"):
        check.run(xenkdump_fast.open(dump_file("bare-x86_64/vmcore")))
