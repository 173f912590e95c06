"""Real dumps whose NT_PRSTATUS notes are missing, empty, moved or preceded by device dumps.

The results must be those of the original dump: the kernel keeps copies of the notes in memory.
"""

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import xenkdump_fast
from xenkdump_fast import Domain
from xenkdump_fast.linux.backtrace import Trace

from .conftest import VMLINUX
from .copies import Copy, Note

pytestmark = pytest.mark.real

NT_PRSTATUS, NT_VMCOREDD = 1, 0x700
#: The offset of pr_pid.
PID = {4: 24, 8: 32}


class Case(NamedTuple):
    """A copy of a dump, its vmlinux, and the backtraces of the tasks on its CPUs."""

    copy: Copy
    vmlinux: str
    whole: dict[int, Trace]

    def open(self, *notes: Note) -> Domain:
        """The copy with these notes."""
        return xenkdump_fast.open(self.copy.with_notes(*notes)).domain(0, self.vmlinux)


def traces(domain: Domain) -> dict[int, Trace]:
    """The backtraces of the tasks on CPUs."""
    return {cpu: domain.kernel.backtrace(task) for cpu, task in domain.kernel.active.items()}


def same(found: Trace, whole: Trace) -> bool:
    """Whether two backtraces are equal, regardless of the source of their registers."""
    return found._replace(where=None) == whole._replace(where=None)


@pytest.fixture(scope="module", params=["bare-x86_64", "bare-i386-pae"])
def case(
    request: pytest.FixtureRequest,
    dump_file: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Case]:
    """Each kdump of a bare machine in turn: CPU 0 died, CPU 1 was in user space."""
    path = tmp_path_factory.mktemp("notes") / "vmcore"
    source = dump_file(f"{request.param}/vmcore")
    shutil.copyfile(source, path)
    vmlinux = dump_file(VMLINUX.get(request.param, "vmlinux-6.1.0-56-amd64"))
    whole = traces(xenkdump_fast.open(source).domain(0, vmlinux))
    assert [frame.user for frame in whole[1].frames] == [True]
    assert "sysrq_handle_crash" in {frame.symbol for frame in whole[0].frames}
    yield Case(Copy(path), vmlinux, whole)
    path.unlink()


NO_NOTE = "CPU {}: no saved registers in the notes; using those in crash_notes"


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_cpu_without_its_note(case: Case, missing: int, *, empty: bool) -> None:
    """/proc/vmcore has no note for a CPU that was offline or did not respond to the NMI."""
    copy = case.copy
    cpus = [note._replace(desc=b"") if i == missing else note for i, note in enumerate(copy.cpus)]
    notes = [note for note in cpus if empty or note.desc]
    domain = case.open(*notes, *copy.others)
    found = traces(domain)
    assert found[1 - missing] == case.whole[1 - missing]
    assert same(found[missing], case.whole[missing])
    assert found[missing].where == "crash_notes"
    assert domain.warnings == [NO_NOTE.format(missing)]


def test_no_notes_at_all(case: Case) -> None:
    domain = case.open()
    found = traces(domain)
    assert all(same(found[cpu], case.whole[cpu]) for cpu in case.whole)
    assert domain.warnings == [NO_NOTE.format(0), NO_NOTE.format(1)]


@pytest.fixture
def uncopied(case: Case) -> Iterator[Case]:
    """The same without the kernel's copies of the notes."""
    kernel = case.open(*case.copy.notes).kernel
    physical = kernel.virtual.translate(kernel.symbol("crash_notes"))
    assert isinstance(physical, int)
    offset = case.copy.offset(physical)
    old = case.copy.write(offset, bytes(kernel.word))
    yield case
    case.copy.write(offset, old)


def test_notes_in_another_order(uncopied: Case) -> None:
    """CPU 0's note is identified by its stack, CPU 1's by pr_pid alone."""
    copy = uncopied.copy
    domain = uncopied.open(*reversed(copy.cpus), *copy.others)
    assert traces(domain) == uncopied.whole
    assert not domain.warnings


def test_neither_a_note_nor_a_copy(uncopied: Case) -> None:
    """The crashed CPU is identified by its stack; a CPU in user space cannot be."""
    copy = uncopied.copy
    domain = uncopied.open(copy.cpus[1], *copy.others)
    found = traces(domain)
    assert found[1] == uncopied.whole[1]
    symbols = [frame.symbol for frame in uncopied.whole[0].frames]
    assert [frame.symbol for frame in found[0].frames][-len(symbols) :] == symbols
    assert found[0].where == "its own stack"
    assert domain.warnings == [
        "CPU 0: no saved registers; unwinding from the stack of its task",
    ]
    domain = uncopied.open(copy.cpus[0], *copy.others)
    found = traces(domain)
    assert found[0] == uncopied.whole[0]
    assert found[1].frames == []
    assert found[1].stopped == "was running on CPU 1, whose registers are not known"


def test_a_note_that_matches_no_cpu(uncopied: Case) -> None:
    """Neither a user-space stack pointer nor the pid of a task not on a CPU identifies a CPU."""
    copy = uncopied.copy
    desc = bytearray(copy.cpus[1].desc)
    struct.pack_into("<I", desc, PID[copy.word], 4711)
    domain = uncopied.open(copy.cpus[0], copy.cpus[1]._replace(desc=bytes(desc)), *copy.others)
    found = traces(domain)
    assert found[0] == uncopied.whole[0]
    assert found[1].frames == []
    assert domain.warnings == ["NT_PRSTATUS note 1 cannot be assigned to a CPU"]


def test_device_dumps_before_the_notes_of_cpus(case: Case) -> None:
    """Device dumps exceed the size limit for notes."""
    copy = case.copy
    names = [f"eth{i}" for i in range(4)]
    dumps = [
        Note(b"LINUX", NT_VMCOREDD, name.encode().ljust(44, b"\0"), 80 << 20) for name in names
    ]
    domain = case.open(*dumps, *copy.notes)
    assert traces(domain) == case.whole
    assert not domain.warnings
    notes = domain.dump.notes
    assert [note.fields["dump_name"] for note in notes if note.kind == "device_dump"] == names
    assert len(notes[0].data) == 44 + (80 << 20)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_qemu(dump_file: Callable[[str], str], tmp_path: Path, order: int) -> None:
    """QEMU writes its number for a CPU as pr_pid. CPU 1 was on its interrupt stack."""
    source = dump_file("bare-i386/vmcore")
    vmlinux = dump_file(VMLINUX["bare-i386"])
    copy = Copy(Path(shutil.copyfile(source, tmp_path / "vmcore")))
    whole = traces(xenkdump_fast.open(source).domain(0, vmlinux))
    dump = xenkdump_fast.open(copy.with_notes(*copy.cpus[::order], *copy.others))
    assert traces(dump.domain(0, vmlinux)) == whole
    dump = xenkdump_fast.open(copy.with_notes(copy.cpus[1], *copy.others))
    assert traces(dump.domain(0, vmlinux))[1] == whole[1]


CRASH_REGS = 0x100_0002
STALE = "CPU 0: its registers in struct vcpu may be stale"
FROM_STACK = "CPU 1: no saved registers; unwinding from the stack of its task"


@pytest.fixture(scope="module")
def host(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """Domain 0 of a Xen host: vCPU 1 crashed on pCPU 0, vCPU 0 was stopped, pCPU 1 was idle."""
    path = tmp_path_factory.mktemp("host") / "vmcore"
    source = dump_file("xen417-three-domains/vmcore")
    shutil.copyfile(source, path)
    vmlinux = dump_file("vmlinux-6.1.0-56-amd64")
    yield Case(Copy(path), vmlinux, traces(xenkdump_fast.open(source).domain(0, vmlinux)))
    path.unlink()


def since_panic(trace: Trace) -> list[tuple[str | None, int]]:
    """The frames from panic() on."""
    frames = [(frame.symbol, frame.sp) for frame in trace.frames]
    return frames[[symbol for symbol, _ in frames].index("panic") :]


def test_a_pcpu_without_notes(host: Case) -> None:
    """The runstate shows what it ran; the registers in struct vcpu are older."""
    notes = host.copy.notes
    second = [i for i, note in enumerate(notes) if note.name == b"CORE"][1]
    first = [
        note
        for note in notes[:second]
        if note.name != b"CORE" and not (note.name == b"Xen" and note.kind == CRASH_REGS)
    ]
    domain = host.open(*first, *notes[second:])
    vcpu = domain.dump.hypervisor.domain(0).vcpus[1]
    assert (vcpu.state, vcpu.running, vcpu.registers) == ("running", True, None)
    assert vcpu.warnings == ("vCPU 1 was running, but no pCPU's notes lead to its registers",)
    found = traces(domain)
    assert found[0] == host.whole[0]
    assert since_panic(found[1]) == since_panic(host.whole[1])
    assert found[1].where == "its own stack"
    assert domain.warnings == [FROM_STACK]


@pytest.mark.parametrize("regs", [True, False])
def test_no_prstatus_of_any_pcpu(host: Case, *, regs: bool) -> None:
    """Xen's own notes are enough to read the host, without those of its pCPUs too."""
    notes = [note for note in host.copy.others if regs or note.kind != CRASH_REGS]
    domain = host.open(*notes)
    xen = domain.dump.hypervisor
    assert [pcpu.cr3 is not None for pcpu in xen.pcpus] == [True, True] * regs
    assert [domain.id for domain in xen.domains()] == [0, 1, 2]
    stopped, died = xen.domain(0).vcpus
    assert (stopped.where, stopped.stale) == ("struct vcpu", True)
    assert (died.state, died.registers) == ("running", None)
    assert since_panic(traces(domain)[1]) == since_panic(host.whole[1])
    assert domain.warnings == [STALE, FROM_STACK]


@pytest.mark.parametrize("missing", [0, 1])
def test_the_pcpus_of_vcpus_without_notes_of_one(
    dump_file: Callable[[str], str], tmp_path: Path, missing: int
) -> None:
    """dom0 died on pCPU 1; pCPU 0 was idle, and its stack has the registers of dom0's vCPU 0."""
    source = dump_file("xen420-pv-pvh/vmcore")
    copy = Copy(Path(shutil.copyfile(source, tmp_path / "vmcore")))
    processors = [
        vcpu.pcpu
        for domain in xenkdump_fast.open(source).hypervisor.domains()
        for vcpu in domain.vcpus
    ]
    second = [i for i, note in enumerate(copy.notes) if note.name == b"CORE"][1]
    groups = [copy.notes[:second], copy.notes[second:]]
    groups[missing] = [
        note
        for note in groups[missing]
        if note.name != b"CORE" and (note.name, note.kind) != (b"Xen", CRASH_REGS)
    ]
    xen = xenkdump_fast.open(copy.with_notes(*groups[0], *groups[1])).hypervisor
    vcpus = [vcpu for domain in xen.domains() for vcpu in domain.vcpus]
    assert [vcpu.pcpu for vcpu in vcpus] == processors
    assert [vcpu.running for vcpu in vcpus] == [False, True, False, False, False]
    assert vcpus[0].stale == (missing == 0)
    assert (vcpus[1].registers is None) == (missing == 1)
