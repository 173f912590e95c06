"""Translated guests of a synthetic host: modes of the processor, other systems, wrong tables."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import rendering
from tests.xen.patched import patched
from xenkdump_fast import AbsentError, Status
from xenkdump_fast._native import P2M
from xenkdump_fast.cli import main
from xenkdump_fast.commands import check, domains, vcpus
from xenkdump_fast.session import DumpFile
from xenkdump_fast.session import dump as session
from xenkdump_fast.xen.host import HostDomain, XenHost
from xenkdump_forge.hosts.large import LargeHost, write_large_host
from xenkdump_forge.xen import translated as hvm
from xenkdump_forge.xen.xen64 import VCPU_USER_REGS

GIB, MIB, PAGE = 1 << 30, 1 << 20, 4096
#: A PVH domain and an HVM domain, each with an image from 16 MiB on.
PVH, HVM = 4, 6
#: Physical addresses: the page tables of the guest, and where its kernel is.
TOP, THIRD, SECOND, KERNEL = 0x80_0000, 0x80_1000, 0x80_2000, 16 * MIB
BLOCK = 512


@pytest.fixture(scope="module", params=["npt", "ept"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LargeHost:
    return write_large_host(
        tmp_path_factory.mktemp(request.param), 8 * GIB, 8, layout=request.param, pcpus=8
    )


def opened(host: LargeHost, number: int) -> HostDomain:
    return XenHost(DumpFile(host.vmcore).native).domain(number)


def machine(domain: HostDomain, physical: int) -> int:
    """The machine address of a guest's physical one."""
    kind, mfn = domain.nested.p2m.entry(physical // PAGE)
    assert kind == "frame"
    assert mfn is not None
    return mfn * PAGE + physical % PAGE


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def control_of(
    domain: HostDomain, control: hvm.Control, registers: dict[str, int]
) -> dict[int, bytes]:
    """Changes: the control registers and the registers of its vCPUs, also in their VMCBs."""
    order = ("rip", "cs", "rflags", "rsp", "ss")
    frame = words(*(registers.get(name, 0) for name in order))
    changes = {}
    memory = domain.xen.memory
    for vcpu in domain.vcpus:
        address = vcpu.address or 0
        # rip is behind 15 general registers and the error code.
        for at, data in (
            (hvm.VCPU_GUEST_CR, control.pack()),
            (VCPU_USER_REGS + 128, frame),
        ):
            changes[memory.translate(address + at) or 0] = data
        if domain.nested.p2m.nested_format == "npt":
            block = memory.translate(memory.pointer(address + hvm.VCPU_VMCB) or 0) or 0
            full = {"rax": 0, **registers}
            changes[block] = hvm.vmcb(control, full, domain.nested.mfn, 0x10, 0x18)
    return changes


#: Control registers of each mode, the registers, and what a reader must find.
REAL = hvm.Control(0, 0x10, 0, 0, 0)
FLAT = hvm.Control(0, 0x11, 0, 0, 0)
PLAIN = hvm.Control(TOP, 0x8001_0033, 0xC012_3000, 0x90, 0)
PAE = hvm.Control(TOP + 0x20, 0x8005_0033, 0, 0x6B0, 0x800)
LONG = hvm.Control(TOP)
LA57 = hvm.Control(TOP, cr4=0x16F0)
MODES = {
    "real": (REAL, {"rip": 0x7C00, "rflags": 2, "rsp": 0x7000}, 4, None),
    "protected": (FLAT, {"rip": 0x10_0000, "rflags": 2, "rsp": 0x9_0000}, 4, None),
    "paging": (PLAIN, {"rip": 0xC010_1234, "rflags": 0x246, "rsp": 0xC060_0000}, 4, "x86"),
    "pae": (PAE, {"rip": 0xC010_1234, "rflags": 0x246, "rsp": 0xC060_0000}, 4, "x86-pae"),
    "long": (LONG, {"rip": 0xFFFF_FFFF_8100_0000, "rflags": 2, "rsp": 0x7000}, 8, "x86_64"),
    # User space of 32 bits under a 64-bit kernel.
    "compatibility": (LONG, {"rip": 0x804_8000, "rflags": 2, "rsp": 0xBFFF_0000}, 8, "x86_64"),
    "la57": (LA57, {"rip": 0xFFFF_FFFF_8100_0000, "rflags": 2, "rsp": 0x7000}, 8, "x86_64-la57"),
}


@pytest.mark.parametrize("mode", MODES)
def test_registers_in_each_mode(host: LargeHost, mode: str) -> None:
    control, registers, word, paging = MODES[mode]
    changes = control_of(opened(host, HVM), control, registers)
    names = ("rip", "rflags", "rsp") if word == 8 else ("eip", "eflags", "esp")
    with patched(host.vmcore, changes):
        domain = opened(host, HVM)
        first = domain.vcpus[0]
        assert first.control is not None
        assert (first.control.paging, first.word) == (paging, word)
        assert first.root == (None if paging is None else control.cr3)
        assert first.registers is not None
        values = {name: first.registers[name] for name in names}
        assert list(values.values()) == [registers[n] for n in ("rip", "rflags", "rsp")]
        found = rendering.json(vcpus.run(DumpFile(host.vmcore)))["vcpus"]
        (row,) = (row for row in found if (row["domain"], row["id"]) == (HVM, 0))
        assert row["registers"][names[0]] == hex(registers["rip"])
        assert row["cr3"] == (None if paging is None else hex(control.cr3))


def test_saved_selectors_of_user_space(host: LargeHost) -> None:
    """They are the same in PV guests."""
    registers = {"rip": 0x40_010E, "cs": 0x33, "rflags": 0x202, "rsp": 0x7FFE_0000, "ss": 0x2B}
    before = [vcpu.kind for vcpu in opened(host, HVM).vcpus]
    with patched(host.vmcore, control_of(opened(host, HVM), LONG, registers)):
        found = opened(host, HVM).vcpus
        assert [vcpu.kind for vcpu in found] == before == ["hvm"] * len(found)
        assert all(vcpu.registers and vcpu.registers["cs"] in (0x10, 0x33) for vcpu in found)
        assert {vcpu.root for vcpu in found} == {TOP}


@pytest.mark.parametrize("paging", ["x86", "x86-pae"])
def test_memory_of_a_32_bit_kernel(host: LargeHost, paging: str) -> None:
    """Its page tables have 32-bit or PAE entries of its physical addresses."""
    domain = opened(host, HVM)
    mode = "paging" if paging == "x86" else "pae"
    control, registers, *_ = MODES[mode]
    changes = {}
    if paging == "x86":
        # 4 MiB from c0000000 on.
        directory = struct.pack("<I", KERNEL | 0xE3)
        changes[machine(domain, TOP + 4 * (0xC000_0000 >> 22))] = directory
    else:
        changes[machine(domain, TOP + 0x20)] = words(0, 0, 0, THIRD | 1)
        changes[machine(domain, THIRD)] = words(KERNEL | 0xE3)
    changes[machine(domain, KERNEL + 0x1000)] = b"a 32-bit kernel"
    control.cr4 |= 0x10
    changes |= control_of(domain, control, registers)
    with patched(host.vmcore, changes):
        domain = opened(host, HVM)
        assert (domain.word, domain.paging) == (4, paging)
        (first, *_) = domain.spaces()
        assert first.cstring(0xC000_1000) == b"a 32-bit kernel"
        assert first.translate(0xC000_1000) == machine(domain, KERNEL + 0x1000)


# Guests that do not run Linux.

WINDOWS = 0xFFFFF80312000000


def windows(domain: HostDomain) -> dict[int, bytes]:
    """Changes: a kernel like that of Windows: a PE image, and a debugger block."""
    image = bytearray(2 * PAGE)
    image[:2], image[0x3C:0x40] = b"MZ", (0x100).to_bytes(4, "little")
    image[0x100:0x104], image[0x104:0x106] = b"PE\0\0", (0x8664).to_bytes(2, "little")
    image[0x1000:0x1018] = words(WINDOWS, WINDOWS, 0x340 << 32 | 0x4742_444B)
    slots = [WINDOWS >> shift & 511 for shift in (39, 30, 21)]
    changes = {
        machine(domain, TOP): bytes(PAGE),
        machine(domain, TOP + 8 * slots[0]): words(THIRD | 0x63),
        machine(domain, THIRD): bytes(PAGE),
        machine(domain, THIRD + 8 * slots[1]): words(SECOND | 0x63),
        machine(domain, SECOND): bytes(PAGE),
        machine(domain, SECOND + 8 * slots[2]): words(KERNEL | 0xE3),
        machine(domain, KERNEL): bytes(image),
    }
    registers = {"rip": WINDOWS + 0x1234, "rflags": 0x246, "rsp": 0xFFFF_F803_1400_0F00}
    return changes | control_of(domain, hvm.Control(TOP), registers)


def free_bsd(domain: HostDomain) -> dict[int, bytes]:
    """Changes: a kernel at the address of Linux's, with other strings."""
    at = domain.kernel()
    assert at is not None
    assert at.address is not None
    own = next(domain.spaces())
    changes = {own.translate(at.address): b"FreeBSD".ljust(65, b"\0")}
    banner = own.find(b"Linux version ", at.address - 32 * MIB, at.address, limit=1)[0]
    changes[own.translate(banner)] = b"FreeBSD 14.1-RELEASE"
    return changes


@pytest.mark.parametrize("system", [windows, free_bsd])
@pytest.mark.parametrize(("number", "kind"), [(PVH, "pvh"), (HVM, "hvm")])
def test_a_guest_without_linux(host: LargeHost, system, number: int, kind: str) -> None:  # type: ignore[no-untyped-def]
    with patched(host.vmcore, system(opened(host, number))):
        result = domains.run(DumpFile(host.vmcore))
        assert result.warnings == []
        row = rendering.json(result)["domains"][number]
        assert (row["kind"], row["nodename"], row["release"]) == (kind, None, None)
        assert row["pages"] == host.domains[number].pages
        found = rendering.json(vcpus.run(DumpFile(host.vmcore)))["vcpus"]
        rows = [row for row in found if row["domain"] == number]
        assert len(rows) == host.domains[number].vcpus
        assert all(row["registers"] and row["cr3"] == hex(TOP) for row in rows)
        # Its memory, through the API and by address.
        domain = session.Dump(host.vmcore).domain(number)
        own = opened(host, number)
        assert domain.physical.read(KERNEL, 16) == own.dump.machine.read(machine(own, KERNEL), 16)
        with pytest.raises(AbsentError):
            _ = domain.kernel
        if system is windows:
            assert domain.physical.read(KERNEL, 2) == b"MZ"
            assert domain.virtual.read(WINDOWS, 2) == b"MZ"
            virtual = next(own.spaces())
            assert virtual.read(WINDOWS, 2) == b"MZ"
            assert virtual.find(b"KDBG", WINDOWS, WINDOWS + 2 * MIB) == [WINDOWS + 0x1010]


@pytest.mark.parametrize("system", [windows, free_bsd])
@pytest.mark.parametrize("number", [PVH, HVM])
def test_export_of_a_guest_without_linux(
    host: LargeHost,
    system: Callable[[HostDomain], dict[int, bytes]],
    number: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its memory and registers are a file that tools for that system can open."""
    file = tmp_path / "guest"
    with patched(host.vmcore, system(opened(host, number))):
        words = ["export", str(host.vmcore), "--domain", str(number), "-o", str(file)]
        assert main(words) == 0, capsys.readouterr().err
        guest = session.Dump(host.vmcore).domain(number)
        bare = guest.as_bare()
        exported = session.Dump(str(file))
        memory = exported.domain(0).physical
        assert memory.read(KERNEL, 4096) == guest.physical.read(KERNEL, 4096)
        for first, count in bare.runs().tolist():
            for pfn in (first, first + count - 1):
                assert memory.read(pfn << 12, 4096) == guest.physical.read(pfn << 12, 4096)
        statuses = [note for note in exported.notes if note.kind == "prstatus"]
        assert len(statuses) == len(bare.cpus)
        for status, cpu in zip(statuses, bare.cpus, strict=True):
            registers = status.fields["registers"]
            assert registers["rip"] == cpu.registers["rip"]
            assert registers["rsp"] == cpu.registers["rsp"]


# Tables that contradict Xen's other records.


def entry_at(domain: HostDomain, pfn: int) -> int:
    """The machine address of the entry that maps a pfn."""
    steps, _ = domain.nested.p2m.walk(pfn)
    table, index = steps[-1][1:3]
    return table + 8 * index


def test_frames_that_do_not_lead_back(host: LargeHost) -> None:
    """Two pages have each other's frames, and one has another domain's."""
    domain = opened(host, PVH)
    before = check.run(DumpFile(host.vmcore), check.Options(PVH)).m2p
    assert before is not None
    assert before.different == 0
    first, second, third = (entry_at(domain, pfn) for pfn in (3, 4, 5))
    raw = domain.dump.machine.u64
    other = opened(host, HVM).nested.p2m.entry(5)[1]
    assert other is not None
    foreign = raw(third) & ~0x000F_FFFF_FFFF_F000 | other * PAGE
    changes = {first: words(raw(second)), second: words(raw(first)), third: words(foreign)}
    with patched(host.vmcore, changes):
        found = check.run(DumpFile(host.vmcore), check.Options(PVH)).m2p
        assert found is not None
        assert (found.equal, found.different) == (before.equal - 2, 2)
        assert [(wrong.pfn, wrong.found) for wrong in found.first] == [(3, 4), (4, 3)]
        assert opened(host, PVH).nested.p2m.entry(5) == ("frame", other)


def test_a_table_that_leads_into_xens_memory(host: LargeHost) -> None:
    """The first 2 MiB are mapped by Xen's own page table: its frames are not the domain's."""
    domain = opened(host, PVH)
    steps, _ = domain.nested.p2m.walk(3)
    at, entry = steps[-2][1] + 8 * steps[-2][2], steps[-2][3]
    xen = domain.xen.memory.translate(domain.address)
    assert xen is not None
    with patched(host.vmcore, {at: words(entry & ~0x000F_FFFF_FFFF_F000 | xen & -PAGE)}):
        found = check.run(DumpFile(host.vmcore), check.Options(PVH)).m2p
        assert found is not None
        assert found.equal > 0
        own = opened(host, PVH).nested.p2m
        for pfn in range(BLOCK):
            kind, mfn = own.entry(pfn)
            assert kind != "frame" or mfn is not None


def test_a_root_in_xens_memory_is_refused(host: LargeHost, tmp_path: Path) -> None:
    domain = opened(host, PVH)
    memory = domain.xen.memory
    pointer = memory.pointer(domain.address + hvm.DOMAIN_P2M)
    struct_at = memory.translate(pointer or 0)
    assert struct_at is not None
    roots = (memory.root // PAGE, (memory.translate(domain.address) or 0) // PAGE, 0x100)
    for root in roots:
        changes = {struct_at + hvm.P2M_PHYS_TABLE: words(root)}
        changes[struct_at + hvm.P2M_EPTP] = words(0)
        with patched(host.vmcore, changes):
            try:
                found = opened(host, PVH).nested
            except AbsentError:
                continue
            # By its VMCBs.
            assert (found.mfn, found.assumption != "") == (domain.nested.mfn, True)


def test_tables_that_are_their_own_parents(host: LargeHost) -> None:
    """Each level's first entry leads back to the root, from which every pfn is mapped to tables."""
    domain = opened(host, PVH)
    root = domain.nested.mfn
    entry = root * PAGE | (0x67 if domain.nested.p2m.nested_format == "npt" else 7)
    with patched(host.vmcore, {root * PAGE: words(entry) * 512}):
        with pytest.raises(AbsentError):
            _ = opened(host, PVH).nested
        p2m = P2M.nested(
            DumpFile(host.vmcore).native, root, domain.nested.p2m.nested_format or "npt"
        )
        status = np.empty(4, np.uint8)
        pfns = np.array([0, BLOCK, 1 << 30, (1 << 36) - 1], np.uint64)
        assert set(p2m.resolve(pfns, status=status).tolist()) == {root}
        assert status.tolist() == [Status.OK] * 4
