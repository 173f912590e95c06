"""Hosts with many domains, PV and translated ones, compared with what was written."""

from itertools import product
from pathlib import Path

import pytest

from tests import rendering
from tests.xen.patched import patched
from xenkdump_fast import AbsentError
from xenkdump_fast._native import AddressSpace
from xenkdump_fast.commands import bt, check, domains, ps, sys, vcpus
from xenkdump_fast.session import DumpFile
from xenkdump_fast.session import dump as session
from xenkdump_fast.xen import detect, frame_table, frames, nested, notes
from xenkdump_fast.xen.host import HostDomain, XenHost
from xenkdump_forge import SyntheticDumpError
from xenkdump_forge.hosts.large import LargeHost, write_large_host
from xenkdump_forge.xen import translated as hvm

GIB = 1 << 30
PAGE = 4096
COUNT = 24


@pytest.fixture(scope="module", params=["npt", "ept", "ept-5"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LargeHost:
    """With altp2m and nested HVM in use except for npt."""
    directory = tmp_path_factory.mktemp(request.param)
    return write_large_host(
        directory, 8 * GIB, COUNT, layout=request.param, pcpus=8, views=request.param != "npt"
    )


@pytest.fixture(params=["DWARF", "symbols", "nothing"])
def syms(request: pytest.FixtureRequest, host: LargeHost) -> str | None:
    files = {"DWARF": str(host.xen_syms), "symbols": str(host.xen_map), "nothing": None}
    return files[request.param]


def test_every_domain(host: LargeHost, syms: str | None) -> None:
    result = domains.run(DumpFile(host.vmcore), domains.Options(xen_syms=syms))
    assert result.warnings == []
    found = rendering.json(result)["domains"]
    assert len(found) == COUNT
    for row, expected in zip(found, host.domains, strict=True):
        assert row["id"] == expected.number
        assert row["kind"] == expected.kind
        assert (row["nodename"], row["release"]) == (expected.nodename, expected.release)
        assert row["pages"] == expected.pages
        assert row["vcpus"] == expected.vcpus
        if expected.number:
            assert row["uuid"] == str(expected.uuid)


def test_every_vcpu(host: LargeHost, syms: str | None) -> None:
    result = vcpus.run(DumpFile(host.vmcore), vcpus.Options(xen_syms=syms))
    assert result.warnings == []
    found = rendering.json(result)["vcpus"]
    assert len(found) == sum(domain.vcpus for domain in host.domains)
    for row in found:
        assert row["registers"]["rip"].startswith("0xffffffff")


def test_the_root_of_each_translated_domain(host: LargeHost, syms: str | None) -> None:
    xen = DumpFile(host.vmcore).xen(syms)
    for expected in host.domains:
        domain = xen.domain(expected.number)
        if expected.root is None:
            with pytest.raises(AbsentError, match="not a translated guest"):
                _ = domain.nested
            continue
        found = domain.nested
        assert (found.mfn, found.assumption) == (expected.root, "")
        for pfn, mfn in expected.frames.items():
            assert found.p2m.entry(pfn) == ("frame", mfn)


def test_domains_with_tasks(host: LargeHost) -> None:
    dump = session.Dump(host.vmcore)
    for number in (0, host.pv, host.hvm):
        domain = dump.domain(number, host.vmlinux)
        expected = host.domains[number]
        header = rendering.json(sys.run(domain))
        assert (header["nodename"], header["release"]) == (expected.nodename, expected.release)
        tasks = rendering.json(ps.run(domain))["tasks"]
        assert len(tasks) == header["tasks"]
        assert len(rendering.json(bt.run(domain, bt.Options(all=True)))["tasks"]) == len(tasks)
        # The forge's mm_struct has no counters.
        assert [text for text in domain.warnings if "RSS" not in text] == []


def test_every_frame_leads_back(host: LargeHost) -> None:
    for number in (host.pv, host.hvm, 4):
        found = check.run(DumpFile(host.vmcore), check.Options(number)).m2p
        assert found is not None
        assert (found.different, found.unreadable) == (0, 0)
        # A guest's frame buffer is no memory.
        hole = 0 if host.domains[number].root is None else 0x20
        assert found.equal == host.domains[number].pages - hole


# The other tables of a domain: of altp2m and of nested HVM, with the contents of the host's.


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> LargeHost:
    return write_large_host(
        tmp_path_factory.mktemp("views"), 8 * GIB, 6, layout="ept", pcpus=8, views=True
    )


def struct_of(domain: HostDomain, at: int) -> int:
    """The machine address of a p2m_domain by its pointer's offset in struct domain."""
    memory = domain.xen.memory
    pointer = memory.pointer(domain.address + at)
    assert pointer
    found = memory.translate(pointer)
    assert found is not None
    return found


def without_roots(domain: HostDomain, *pointers: int) -> dict[int, bytes]:
    """Changes: the structs behind these pointers have no root."""
    structs = [struct_of(domain, at) for at in pointers]
    return {s + at: bytes(8) for s, at in product(structs, (hvm.P2M_PHYS_TABLE, hvm.P2M_EPTP))}


def roots_of(domain: HostDomain, at: int) -> int:
    """The root in the struct behind a pointer."""
    return domain.dump.machine.u64(struct_of(domain, at) + hvm.P2M_PHYS_TABLE)


ALTERNATES = [hvm.DOMAIN_ALTP2M + 8 * i for i in range(2)]


@pytest.mark.parametrize("syms", ["DWARF", "nothing"])
def test_the_hosts_root_among_equal_ones(viewed: LargeHost, syms: str) -> None:
    xen = DumpFile(viewed.vmcore).xen(viewed.xen_syms if syms == "DWARF" else None)
    domain = xen.domain(4)
    others = {roots_of(domain, at) for at in (*ALTERNATES, hvm.DOMAIN_NESTED_P2M + 8)}
    expected = roots_of(domain, hvm.DOMAIN_P2M)
    assert expected not in others
    assert (domain.nested.mfn, domain.nested.assumption) == (expected, "")
    assert domain.warnings == []


def test_a_view_of_altp2m_in_place_of_the_hosts_tables(viewed: LargeHost) -> None:
    domain = XenHost(DumpFile(viewed.vmcore).native).domain(4)
    views = {roots_of(domain, at) for at in ALTERNATES}
    with patched(viewed.vmcore, without_roots(domain, hvm.DOMAIN_P2M)):
        domain = XenHost(DumpFile(viewed.vmcore).native).domain(4)
        assert domain.nested.mfn in views
        assert "altp2m" in domain.nested.assumption
        (warning,) = domain.warnings
        assert f"{domain.nested.mfn:#x}: they are a view of altp2m" in warning
        opened = session.Dump(viewed.vmcore).domain(4)
        assert any("altp2m" in text for text in opened.warnings)


def test_tables_of_nested_hvm_are_refused(viewed: LargeHost) -> None:
    domain = XenHost(DumpFile(viewed.vmcore).native).domain(4)
    changes = without_roots(domain, hvm.DOMAIN_P2M, *ALTERNATES)
    with (
        patched(viewed.vmcore, changes),
        pytest.raises(AbsentError, match="are of nested HVM"),
    ):
        _ = XenHost(DumpFile(viewed.vmcore).native).domain(4).nested


def test_roots_that_cannot_be_told_apart_are_named(viewed: LargeHost) -> None:
    domain = XenHost(DumpFile(viewed.vmcore).native).domain(4)
    view = struct_of(domain, ALTERNATES[0])
    expected, other = (roots_of(domain, at) for at in (hvm.DOMAIN_P2M, ALTERNATES[0]))
    with patched(viewed.vmcore, {view + hvm.P2M_CLASS: bytes(4)}):
        found = XenHost(DumpFile(viewed.vmcore).native).domain(4).nested
        assert found.mfn == expected
        assert f"{other:#x}" in found.assumption


@pytest.mark.parametrize(
    ("after", "role"),
    [
        ([0], "host"),
        ([7 << 32 | 1], "nested"),
        ([2], "altp2m"),
        # Before 4.6 the root of the guest's guest follows; all ones is none.
        ([2**64 - 1], "host"),
        ([0x12345000], "nested"),
        ([], "host"),
    ],
)
def test_the_class_of_a_p2m(after: list[int], role: str) -> None:
    assert nested._role(after) == role


def test_a_root_from_a_vmcb_alone_is_an_assumption(tmp_path: Path) -> None:
    host = write_large_host(tmp_path, 8 * GIB, 6, pcpus=8)
    domain = XenHost(DumpFile(host.vmcore).native).domain(4)
    with patched(host.vmcore, without_roots(domain, hvm.DOMAIN_P2M)):
        domain = XenHost(DumpFile(host.vmcore).native).domain(4)
        assert domain.nested.mfn == host.domains[4].root
        assert any("through a vCPU only" in text for text in domain.warnings)


# Work and limits.


def test_the_frame_table_is_sampled(host: LargeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: all of it was read for the frames of translated guests."""
    sizes: list[int] = []
    inner = frame_table._page_infos

    def counting(memory: object, table: object, start: int, count: int) -> bytes:
        sizes.append(count * 32)
        return inner(memory, table, start, count)  # type: ignore[arg-type]

    monkeypatch.setattr(frame_table, "_page_infos", counting)
    domains.run(DumpFile(host.vmcore))
    assert 0 < sum(sizes) <= 2 << 20


def test_kernels_are_searched_once_for_each_build(
    host: LargeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = DumpFile(host.vmcore)
    xen = dump.xen()
    before = xen.kernel_budget.remaining
    monkeypatch.setattr(dump, "xen", lambda *_, **__: xen)
    domains.run(dump)
    # 8 builds, and the one with tasks; each image has 32 MiB.
    assert before - xen.kernel_budget.remaining <= 9 * (32 << 20)


def test_the_image_of_xen_is_searched_once(
    host: LargeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: once to see whether it is a host, and once more to open it."""
    xen = XenHost(DumpFile(host.vmcore).native)
    assert xen.pc is not None
    image = detect.XenImage(8, "x86_64", xen.memory.root, xen.pc)
    calls = []

    def find(dump: object) -> detect.XenImage:
        calls.append(dump)
        return image

    monkeypatch.setattr(notes, "are_xens", lambda _: False)
    monkeypatch.setattr(notes, "may_lead_to_xen", lambda _: True)
    monkeypatch.setattr(detect, "find", find)
    dump = DumpFile(host.vmcore)
    assert dump.is_xen_host
    assert dump.hypervisor.pc == xen.pc
    assert len(calls) == 1


def test_no_registers_below_those_of_an_idle_pcpu() -> None:
    """Regression: words of Xen's stack were taken for those of an HVM guest."""
    top = 0xFFFF_8300_0001_0000
    words = [0] * (frames.WINDOW // 8)
    # processor_id and current_vcpu, behind registers that are zero.
    words[-8], words[-7] = 3, top - 0x2000
    # Something alike on the stack: rip, cs, flags, rsp, ss, and the same pair.
    words[40:46] = [0x1000, 0, 2, 0x2000, 0, 0]
    words[46:48] = [5, top - 0x3000]
    window = b"".join(word.to_bytes(8, "little") for word in words)
    found = frames.find(top, window, 8, lambda address: address >> 47 == 0x1FFFF)
    assert found is not None
    assert (found.number, found.guest) == (3, None)


def test_memory_that_is_released_is_read_again(host: LargeHost) -> None:
    dump = DumpFile(host.vmcore).native
    space: AddressSpace = dump.machine
    before = space.read(2 * GIB, 8 << 20)
    dump.release()
    assert space.read(2 * GIB, 8 << 20) == before
    dump.close()
    with pytest.raises(ValueError, match="closed"):
        dump.release()


def test_impossible_sizes(tmp_path: Path) -> None:
    with pytest.raises(SyntheticDumpError, match="200 domains need"):
        write_large_host(tmp_path, 8 * GIB, 200)
    with pytest.raises(SyntheticDumpError, match="three domains"):
        write_large_host(tmp_path, 8 * GIB, 2)
    assert list(tmp_path.iterdir()) == []
