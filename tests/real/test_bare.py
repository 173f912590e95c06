"""``Domain.as_bare()``: the domains of real hosts as bare machines."""

import pickle
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

import xenkdump_fast as xk
from xenkdump_fast import _native
from xenkdump_fast.linux.mm import page_table
from xenkdump_fast.session import bare

from .conftest import VMLINUX, X86_64

pytestmark = pytest.mark.real

PAGE = 4096
PV = [
    ("xen417-dom0", 0),
    *[("xen417-three-domains", number) for number in (0, 1, 2)],
    *[("xen417-mixed-pcpus", number) for number in (0, 1, 2)],
    *[("xen420-pv-pvh", number) for number in (0, 1)],
]
PVH = ("xen420-pv-pvh", 2)

#: Xen's part of the address space of a PV guest.
XEN = 0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000

Opened = Callable[[str, int], xk.Domain]


@pytest.fixture(scope="module")
def opened(dump_file: Callable[[str], str]) -> Opened:
    @cache
    def domain(name: str, number: int) -> xk.Domain:
        vmlinux = dump_file(VMLINUX.get(name, X86_64))
        return xk.open(dump_file(f"{name}/vmcore")).domain(number, vmlinux)

    return domain


def mapped(space: _native.AddressSpace) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The addresses of all mapped pages, and what they are mapped to; without Xen's part."""
    # There its linear page tables are frames of the domain, too.
    held = [part for part in space.iter_mapped() if not XEN[0] <= part.address < XEN[1]]
    assert {part.page_size for part in held} == {PAGE}
    starts = np.array([part.address for part in held], np.uint64)
    counts = np.array([part.size // PAGE for part in held], np.uint64)
    pages = np.arange(int(counts.sum()), dtype=np.uint64)
    before = np.repeat(np.cumsum(counts, dtype=np.uint64) - counts, counts.astype(np.int64))
    addresses = np.repeat(starts, counts.astype(np.int64)) + (pages - before) * np.uint64(PAGE)
    return addresses, space.translate(addresses)


@pytest.mark.parametrize(("name", "number"), PV)
def test_every_kernel_page_is_mapped_to_its_pfn(name: str, number: int, opened: Opened) -> None:
    domain = opened(name, number)
    machine = domain.as_bare()
    addresses, before = mapped(domain.virtual)
    status = np.zeros(len(addresses), np.uint8)
    pfns = domain.p2m.reverse(before // np.uint64(PAGE), status=status)
    own = status == 0
    found, after = mapped(machine.virtual)
    assert (found == addresses[own]).all()
    assert (after == pfns[own] * np.uint64(PAGE)).all()
    assert len(found) > 30_000
    assert not any(machine.virtual.iter_mapped(*XEN))


@pytest.mark.parametrize(("name", "number"), PV)
def test_the_frame_table_has_all_that_the_walk_finds(
    name: str, number: int, opened: Opened
) -> None:
    domain = opened(name, number)
    machine = domain.as_bare()
    found = machine.tables
    assert found is not None
    assert found.typed is not None
    assert machine.warnings == []
    # One was not pinned yet in xen417-mixed-pcpus: the process was being made.
    assert 0 <= len(found) - found.typed <= (name == "xen417-mixed-pcpus" and number == 0)
    # Those of user space are in the frame table only.
    assert 40 <= len(found) - found.walked <= 100
    walked = _by_walking(domain, machine)
    assert walked.items() <= dict(found.tables()).items()
    assert len(walked) == found.walked


def _by_walking(domain: xk.Domain, machine: xk.BareMachine) -> dict[int, int]:
    """The levels of the tables by walking in Python, by pfn."""
    native, p2m = domain.dump.native, domain.p2m
    roots = {root // PAGE for root in machine._roots()} | {int(p2m.resolve(machine.root // PAGE))}
    status = np.zeros(len(roots), np.uint8)
    p2m.reverse(list(roots), status=status)
    # The notes have those of other domains, too.
    level = {root for root, code in zip(roots, status.tolist(), strict=True) if code == 0}
    walked: dict[int, int] = {}
    for number in (4, 3, 2, 1):
        below: set[int] = set()
        for mfn in level:
            walked[p2m.reverse(mfn)] = number
            if number == 1:
                continue
            entries = np.frombuffer(native.machine.read(mfn * PAGE, PAGE), "<u8")
            present = entries[(entries & 1) != 0]
            targets = (present & np.uint64(0x000F_FFFF_FFFF_F000)) // np.uint64(PAGE)
            status = np.zeros(len(targets), np.uint8)
            p2m.reverse(targets, status=status)
            below |= set(targets[status == 0].tolist()) - level
        level = {mfn for mfn in below if p2m.reverse(mfn) not in walked}
    return walked


@pytest.mark.parametrize(("name", "number"), PV)
def test_entries_of_other_frames_are_absent(name: str, number: int, opened: Opened) -> None:
    """Each entry has the pfn of its mfn, or is 0 because the mfn is not the domain's."""
    domain = opened(name, number)
    machine = domain.as_bare()
    assert machine.tables is not None
    address = np.uint64(0x000F_FFFF_FFFF_F000)
    levels = dict(machine.tables.tables())
    foreign = linear = 0
    for pfn, level in levels.items():
        before = domain.physical.read_array(pfn * PAGE, "<u8", 512)
        after = machine.memory.read_array(pfn * PAGE, "<u8", 512)
        present = (before & np.uint64(1)) != 0
        assert (after[~present] == before[~present]).all()
        status = np.zeros(int(present.sum()), np.uint8)
        found = domain.p2m.reverse((before[present] & address) >> np.uint64(12), status=status)
        own = status == 0
        foreign += int((~own).sum())
        new, old = after[present], before[present]
        assert (new[~own] == 0).all()
        # Xen's linear page tables: the top table as one of a lower level.
        back = np.array(
            [level > 1 and levels.get(pfn, 0) >= level for pfn in found[own].tolist()], bool
        )
        linear += int(back.sum())
        assert (new[own][back] == 0).all()
        rest = ~back
        assert (
            new[own][rest] >> np.uint64(12) << np.uint64(12) & address
            == found[own][rest] << np.uint64(12)
        ).all()
        assert (new[own][rest] & ~address == old[own][rest] & ~address).all()
    assert 100 < foreign < 30_000
    assert linear <= sum(level == 4 for level in levels.values())


@pytest.mark.parametrize(("name", "number"), [*PV, PVH, ("bare-x86_64", 0), ("linux73-bare", 0)])
def test_command_lines_of_all_processes(name: str, number: int, opened: Opened) -> None:
    domain = opened(name, number)
    machine = domain.as_bare()
    kernel = domain.kernel
    lines: list[bytes] = []
    for task in kernel.tasks():
        mm = kernel.read(task.address, "task_struct.mm")
        if mm == 0:
            continue
        start = kernel.read(mm, "mm_struct.arg_start")
        own, found = domain.user(task), machine.user(task)
        assert found.root == machine.virtual.translate(page_table(kernel, task))
        lines.append(found.cstring(start, 256))
        assert lines[-1] == own.cstring(start, 256)
        # All of its mapped user memory.
        for held in found.iter_mapped(0, 1 << 47):
            size = min(held.size, 1 << 16)
            assert found.read(held.address, size) == own.read(held.address, size)
    assert len(lines) >= 55
    assert all(lines)


@pytest.mark.parametrize(("name", "number"), [*PV, PVH, ("bare-x86_64", 0)])
def test_pages_are_exactly_those_that_are_held(name: str, number: int, opened: Opened) -> None:
    domain = opened(name, number)
    machine = domain.as_bare()
    runs = machine.runs()
    assert runs.dtype == np.uint64
    assert runs.shape == (len(runs), 2)
    ends = runs.sum(axis=1)
    assert (runs[1:, 0] > ends[:-1]).all()
    for first, count in runs.tolist():
        for pfn in (first, first + count - 1):
            assert len(machine.memory.read(pfn * PAGE, PAGE)) == PAGE
        for pfn in (first - 1, first + count):
            with pytest.raises(xk.MemoryFault):
                machine.memory.read(max(pfn, 0) * PAGE if pfn >= 0 else 1 << 52, PAGE)
    if domain.has_p2m:
        pfns = np.concatenate([np.arange(a, a + n, dtype=np.uint64) for a, n in runs.tolist()])
        status = np.zeros(domain.p2m.pages, np.uint8)
        domain.p2m.resolve(np.arange(domain.p2m.pages, dtype=np.uint64), status=status)
        assert set(pfns.tolist()) <= set(np.flatnonzero(status == 0).tolist())


@pytest.mark.parametrize(("name", "number"), [*PV, PVH, ("bare-x86_64", 0)])
def test_cpus(name: str, number: int, opened: Opened) -> None:
    domain = opened(name, number)
    machine = domain.as_bare()
    contexts = domain.kernel.contexts
    assert [cpu.number for cpu in machine.cpus] == sorted(contexts)
    for cpu in machine.cpus:
        assert cpu.registers == contexts[cpu.number].registers
        assert cpu.source == contexts[cpu.number].where
        if "cr3" in cpu.control:
            space = machine.native.virtual(cpu.control["cr3"], machine.paging)
            if cpu.registers["rip"] >> 63:
                assert space.read(cpu.registers["rsp"], 8) == machine.virtual.read(
                    cpu.registers["rsp"], 8
                )
    if name.startswith("xen"):
        assert all("cr3" in cpu.control for cpu in machine.cpus)


@pytest.mark.parametrize(("name", "number"), PV)
def test_xen_start_info_is_hidden(name: str, number: int, opened: Opened) -> None:
    domain = opened(name, number)
    machine = domain.as_bare()
    address = domain.kernel.symbols["xen_start_info"]
    (word,) = machine.altered
    assert domain.virtual.u64(address) == word.original != 0
    assert machine.virtual.u64(address) == word.value == 0
    assert machine.virtual.translate(address) == word.address
    assert machine.memory.read(word.address + 3, 2) == bytes(2)


def test_vmcoreinfo(opened: Opened) -> None:
    for name, number, release in (
        ("xen417-three-domains", 1, b"6.1.0-56-amd64"),
        (*PVH, b"6.12.117+deb13-amd64"),
        ("bare-x86_64", 0, b"6.1.0-56-amd64"),
    ):
        text = opened(name, number).as_bare().vmcoreinfo
        assert text.startswith(b"OSRELEASE=" + release + b"\n")
        assert b"\0" not in text


def test_translated_and_bare_machines_are_their_own_view(opened: Opened) -> None:
    for name, number in (PVH, ("bare-x86_64", 0)):
        domain = opened(name, number)
        machine = domain.as_bare()
        assert machine.tables is None
        assert not machine.altered
        assert machine.native is domain._platform.native
        banner = domain.kernel.symbol("linux_banner")
        assert machine.virtual.read(banner, 64) == domain.virtual.read(banner, 64)


def test_a_dump_core_file(dump_file: Callable[[str], str]) -> None:
    """It has no frame table: page tables are found by walking, from the vCPU and all processes."""
    vmlinux = dump_file(X86_64)
    domain = xk.open(dump_file("xen417-three-domains/domu1.core")).domain(0, vmlinux)
    machine = domain.as_bare()
    found = machine.tables
    assert found is not None
    assert (found.typed, found.walked) == (None, len(found))
    assert len(found) > 500
    (warning,) = machine.warnings
    assert "only by walking from the roots that are known" in warning
    (cpu,) = machine.cpus
    space = machine.native.virtual(cpu.control["cr3"], machine.paging)
    assert space.translate(cpu.registers["rsp"]) == machine.virtual.translate(cpu.registers["rsp"])
    kernel = domain.kernel
    lines = 0
    for task in kernel.tasks():
        mm = kernel.read(task.address, "task_struct.mm")
        if mm:
            start = kernel.read(mm, "mm_struct.arg_start")
            line = machine.user(task).cstring(start, 256)
            assert line == domain.user(task).cstring(start, 256)
            lines += bool(line)
    assert lines > 50
    assert machine.virtual.u64(kernel.symbols["xen_start_info"]) == 0


def test_pickled_after_use(opened: Opened) -> None:
    domain = opened("xen417-three-domains", 1)
    machine = domain.as_bare()
    again = pickle.loads(pickle.dumps(domain))
    assert again.as_bare().root == machine.root
    assert isinstance(machine, bare.BareMachine)
