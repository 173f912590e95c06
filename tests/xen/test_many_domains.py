"""Hosts with more domains and vCPUs than fit into the dump: its size bounds the work."""

from pathlib import Path

import pytest

from xenkdump_fast._native import Dump
from xenkdump_fast.commands import domains
from xenkdump_fast.limits import MAX_VCPU_READS
from xenkdump_fast.session import DumpFile
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.memory import XenMemory
from xenkdump_forge import write_dump

from .many_domains import CLAIM, COUNT, PAGE, many_domains, small_host
from .patched import patched

#: Reads of Xen's memory per domain, and per vCPU that fits into the dump.
EACH_DOMAIN, EACH_VCPU = 100, 8
#: The smallest struct vcpu: it has the context of a 32-bit guest.
MIN_VCPU_SIZE = 2048


@pytest.fixture(scope="module")
def vmcore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many-domains")
    return write_dump(directory, "modern", extra=small_host).vmcore


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of reads of Xen's memory, as the only element."""
    count = [0]
    for name in ("read", "number"):
        inner = getattr(XenMemory, name)

        def counting(*args: object, inner: object = inner) -> object:
            count[0] += 1
            assert callable(inner)
            return inner(*args)

        monkeypatch.setattr(XenMemory, name, counting)
    return count


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["empty", "taken", "own"])
def test_more_vcpus_than_the_dump_can_hold(vmcore: Path, reads: list[int], kind: str) -> None:
    """Regression: 8192 pointers were read per domain, and 512 MiB searched for its kernel."""
    intact = XenHost(Dump(str(vmcore)))
    known = [(d.id, len(d.vcpus)) for d in intact.domains()]
    changes = many_domains(intact, kind)
    vcpus = MAX_VCPU_READS * intact.dump.memory_held // MIN_VCPU_SIZE
    reads[0] = 0
    with patched(vmcore, changes):
        xen = XenHost(Dump(str(vmcore)))
        found = xen.domains()
        # The host's own domains are complete.
        assert [(d.id, len(d.vcpus)) for d in found[: len(known)]] == known
        assert len(found) == len(known) + COUNT
        kernels = [domain.kernel() for domain in found]
        assert None not in kernels[: len(known)]
        result = domains.run(DumpFile(str(vmcore)))
    assert reads[0] <= 2 * (EACH_DOMAIN * COUNT + EACH_VCPU * vcpus)
    assert EACH_DOMAIN * COUNT + EACH_VCPU * vcpus < COUNT * CLAIM
    assert result.warnings
    if kind == "taken":
        assert any("more than the dump can hold" in text for text in result.warnings)
    if kind == "own":
        assert xen.kernel_budget.exhausted


def test_vcpu_points_to_a_domain_not_to_shared_info(vmcore: Path) -> None:
    """Without VMCOREINFO_XEN. A vCPU also points into shared_info, and the page after that may be
    an array of vCPUs.
    """
    data = vmcore.read_bytes()[: 4 * PAGE]
    at = data.index(b"VMCOREINFO_XEN")
    intact = XenHost(Dump(str(vmcore))).domain(0)
    with vmcore.open("r+b") as file:
        file.seek(at)
        file.write(b"X")
        file.flush()
        try:
            (row,) = domains.run(DumpFile(str(vmcore))).rows
        finally:
            file.seek(at)
            file.write(b"V")
    assert (row.id, row.address, row.vcpus) == (0, intact.address, len(intact.vcpus))
