"""QEMU's dump of a machine that runs Xen: no note of Xen, but each CPU's registers.

Made from a dump by Xen's kdump, whose notes are replaced by QEMU's.
"""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.budget import Budget
from xenkdump_fast.cli import main
from xenkdump_fast.xen import detect, header
from xenkdump_fast.xen.host import XenHost

from .copies import Copy, Note
from .test_missing_notes import NT_PRSTATUS, PID

pytestmark = pytest.mark.real

NAME = "xen417-mixed-pcpus"
#: user_regs_struct in NT_PRSTATUS of x86_64.
REGISTERS = 112
ORDER = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base"),
)
#: Offsets in QEMUCPUState (target/i386/arch_dump.c): bases of the segments, control registers.
TR, IDT, CR = 8 + 144 + 7 * 24 + 16, 8 + 144 + 9 * 24 + 16, 8 + 144 + 10 * 24
SIZE = CR + 5 * 8 + 8


class Host:
    """A dump of a Xen host, and a copy of it whose notes can be QEMU's."""

    def __init__(self, path: str, xen_syms: str, copy: Path) -> None:
        shutil.copyfile(path, copy)
        self.copy = Copy(copy)
        self.path, self.xen_syms = str(copy), xen_syms
        whole = xk.open(path)
        self.crash_regs = [n.fields for n in whole.notes if n.kind == "crash_regs"]
        self.xen: XenHost = whole.xen(xen_syms)

    def as_qemu(self, in_guest: bool = False, cpus: int | None = None) -> None:
        """Gives the copy QEMU's notes; with ``in_guest`` as if the guests' code was running.

        With ``cpus`` there are as many notes, copies of the first.
        """
        states = [note for note in self.copy.cpus if note.kind == NT_PRSTATUS]
        statuses, qemu = [], []
        by_note = zip(states, self.crash_regs, self.xen.pcpus, strict=True)
        for i, (status, crash, pcpu) in enumerate(by_note):
            desc = bytearray(status.desc)
            struct.pack_into("<I", desc, PID[8], i + 1)
            if in_guest and pcpu.guest is not None:
                values = (pcpu.guest.registers.get(name, 0) for name in ORDER)
                struct.pack_into("<23Q", desc, REGISTERS, *values)
            state = bytearray(SIZE)
            struct.pack_into("<II", state, 0, 1, SIZE)
            struct.pack_into("<Q", state, IDT, self._pointer("idt_tables", pcpu.number * 8))
            offset = self._pointer("__per_cpu_offset", pcpu.number * 8)
            # struct tss_page has ist_ssp[8] before the TSS since 4.14 (CET).
            tss = (self._symbol("per_cpu__tss_page") + offset + 8 * 8) % (1 << 64)
            struct.pack_into("<Q", state, TR, tss)
            control = (crash["cr0"], 0, crash["cr2"], crash["cr3"], crash["cr4"])
            struct.pack_into("<5Q", state, CR, *control)
            statuses.append(Note(b"CORE", NT_PRSTATUS, bytes(desc)))
            qemu.append(Note(b"QEMU", 0, bytes(state)))
        if cpus is not None:
            statuses, qemu = statuses[:1] * cpus, qemu[:1] * cpus
        self.copy.with_notes(*statuses, *qemu)

    def as_qemu_in_guests(self) -> None:
        """Gives the copy QEMU's notes as if each CPU was running the code of a translated guest.

        Then the registers, cr3 and the tables of the processor are the guest's.
        """
        statuses, qemu = [], []
        for i, status in enumerate(note for note in self.copy.cpus if note.kind == NT_PRSTATUS):
            desc = bytearray(status.desc)
            struct.pack_into("<I", desc, PID[8], i + 1)
            values = {"rip": 0x40_010E, "cs": 0x33, "rflags": 0x202, "rsp": 0x7FFE_0000, "ss": 0x2B}
            struct.pack_into("<23Q", desc, REGISTERS, *(values.get(name, 0) for name in ORDER))
            state = bytearray(SIZE)
            struct.pack_into("<II", state, 0, 1, SIZE)
            struct.pack_into("<Q", state, IDT, 0xFFFF_FE00_0000_0000)
            struct.pack_into("<Q", state, TR, 0xFFFF_FE00_0000_3000)
            struct.pack_into("<5Q", state, CR, 0x8005_0033, 0, 0, 0x591_0000, 0x6F0)
            statuses.append(Note(b"CORE", NT_PRSTATUS, bytes(desc)))
            qemu.append(Note(b"QEMU", 0, bytes(state)))
        self.copy.with_notes(*statuses, *qemu)

    def _symbol(self, name: str) -> int:
        assert self.xen.symbols is not None
        found = self.xen.symbols.get(name)
        assert found is not None
        return found

    def _pointer(self, name: str, offset: int) -> int:
        found = self.xen.memory.pointer(self._symbol(name) + offset)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def host(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    copy = tmp_path_factory.mktemp("qemu") / "vmcore"
    yield Host(dump_file(f"{NAME}/vmcore"), dump_file(f"{NAME}/xen-syms"), copy)
    copy.unlink()


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """What a command prints as JSON, without the path of the dump."""
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    del found["dump"]
    return found


@pytest.mark.parametrize("symbols", [True, False], ids=["xen-syms", "no xen-syms"])
def test_domains_and_vcpus(
    host: Host, dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str], symbols: bool
) -> None:
    host.as_qemu()
    original = dump_file(f"{NAME}/vmcore")
    for command in ("domains", "vcpus"):
        options = ["--xen-syms", host.xen_syms] if symbols and command == "domains" else []
        found = printed(capsys, command, host.path, *options)
        assert found == printed(capsys, command, original, *options)


def test_backtraces_of_xen(
    host: Host, dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.as_qemu()
    original = dump_file(f"{NAME}/vmcore")
    found = printed(capsys, "bt", "--hypervisor", host.xen_syms, host.path)
    assert found == printed(capsys, "bt", "--hypervisor", host.xen_syms, original)


def test_dom0(
    host: Host, dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.as_qemu()
    vmlinux, original = dump_file("vmlinux-6.1.0-56-amd64"), dump_file(f"{NAME}/vmcore")
    found = printed(capsys, "bt", "-a", vmlinux, host.path)
    assert found == printed(capsys, "bt", "-a", vmlinux, original)


def test_the_guests_code_was_running(host: Host, dump_file: Callable[[str], str]) -> None:
    host.as_qemu(in_guest=True)
    found = xk.open(host.path).xen(host.xen_syms)
    assert all(pcpu.in_guest and not pcpu.registers for pcpu in found.pcpus)
    for pcpu, true in zip(found.pcpus, host.xen.pcpus, strict=True):
        assert (pcpu.number, pcpu.vcpu) == (true.number, true.vcpu)
        assert true.guest is not None
        assert pcpu.guest is not None
        assert pcpu.guest.registers["rip"] == true.guest.registers["rip"]
    vcpus = [vcpu for domain in found.domains() for vcpu in domain.vcpus]
    expected = [vcpu for domain in host.xen.domains() for vcpu in domain.vcpus]
    assert [vcpu.state for vcpu in vcpus] == [vcpu.state for vcpu in expected]


@pytest.mark.parametrize("symbols", [True, False], ids=["xen-syms", "no xen-syms"])
def test_the_code_of_translated_guests_was_running(host: Host, symbols: bool) -> None:
    """No CPU leads to Xen's image: it is searched for in memory."""
    host.as_qemu_in_guests()
    dump = xk.open(host.path)
    assert dump.is_xen_host
    found = {domain.id: domain for domain in dump.xen(host.xen_syms if symbols else None).domains()}
    expected = {domain.id: domain for domain in host.xen.domains()}
    assert found.keys() == expected.keys()
    for number, domain in found.items():
        assert domain.address == expected[number].address
        assert len(domain.vcpus) == len(expected[number].vcpus)
    assert len(list(dump.domain(0).kernel.tasks())) > 50
    assert any("numbers of the CPUs are taken for Xen's" in t for t in dump.hypervisor.warnings)


def test_a_bare_machine_is_no_xen_host(dump_file: Callable[[str], str]) -> None:
    dump = xk.open(dump_file("bare-x86_64/vmcore"))
    assert not dump.is_xen_host


def test_the_version_is_in_the_console(host: Host) -> None:
    host.as_qemu()
    found = header.read(xk.open(host.path).xen(host.xen_syms))
    # The build that was dumped has no vendor's version.
    assert found.version == "4.17.5 (Debian )"
    assert found.crashed_on == 1


def test_the_search_is_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.as_qemu(cpus=64)
    native = xk.open(host.path).native
    budgets: list[Budget] = []

    class Recorded(Budget):
        def __init__(self, name: str, size: int) -> None:
            super().__init__(name, size)
            budgets.append(self)

    monkeypatch.setattr(detect, "Budget", Recorded)
    assert detect.find(native) is not None
    assert budgets[-1].remaining > 0
    # A dump whose CPUs lead to something else in Xen's part of the address space.
    monkeypatch.setattr(detect, "_SIGNATURE", b"no such text in Xen's image")
    assert detect.find(native) is None
    assert budgets[-1].remaining == 0
