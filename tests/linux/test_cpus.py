"""Assignment of saved registers to CPUs."""

import struct
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from xenkdump_fast._native import Note
from xenkdump_fast.limits import MAX_CPUS
from xenkdump_fast.linux import cpus
from xenkdump_fast.linux.cpus import VcpuContext

from .fakes import FakeKernel, words

MASK, STACKS = 0x1000, 0x10_0000
POINTER, PER_CPU, ARRAY = 0x2000, 0x3000, 0x4000
#: Offsets of per-CPU areas.
OFFSETS = [0x60_0000, 0x70_0000]


class Registers(dict[str, int]):  # noqa: PLW1641
    """Registers that must not be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("registers were compared")


class Active(dict[int, Any]):
    """Tasks that count iterations over all of them."""

    walks = 0

    def items(self) -> Any:
        self.walks += 1
        return super().items()


def stack(cpu: int) -> int:
    return STACKS + cpu * 0x4000


def active(count: int) -> Active:
    return Active({cpu: SimpleNamespace(stack=stack(cpu), pid=100 + cpu) for cpu in range(count)})


def kernel_of(count: int) -> FakeKernel:
    kernel = FakeKernel({"__cpu_possible_mask": MASK, "__per_cpu_offset": PER_CPU})
    kernel.memory.write(PER_CPU, words(8, *OFFSETS))
    kernel.memory.number(MASK, (1 << count) - 1, 8)
    return kernel


def context(sp: int, note: int | None = None) -> VcpuContext:
    return VcpuContext(Registers(rsp=sp), "by hand", note=note)


def test_stacks_are_indexed_once() -> None:
    """Comparing 8000 notes with the stacks of 1000 CPUs, then with each other, took 2 s."""
    running = active(60)
    # Contexts on no stack; then those of the CPUs in reverse order, at both ends of the stacks.
    contexts = [context(STACKS - 1 - i) for i in range(500)]
    contexts += [context(stack(cpu) + (0x3FFF if cpu % 2 else 0)) for cpu in reversed(range(60))]
    found = cpus.assign(kernel_of(60), contexts, running)
    assert all(found[cpu] is contexts[-1 - cpu] for cpu in range(60))
    assert running.walks <= 1


def test_two_notes_on_one_stack() -> None:
    running = active(2)
    running[2] = running[1]
    contexts = [context(stack(1)), context(stack(1) + 8, note=0), context(0, note=1)]
    kernel = kernel_of(3)
    found = cpus.assign(kernel, contexts, running)
    assert set(found) == {1}
    assert found[1] is contexts[0]
    # The order of notes is no evidence.
    assert kernel.warnings == [f"NT_PRSTATUS note {i} cannot be assigned to a CPU" for i in (0, 1)]


def test_more_notes_than_cpus() -> None:
    contexts = [context(0)] * MAX_CPUS + [context(stack(0), note=MAX_CPUS)]
    contexts[1] = context(stack(1), note=1)
    assert set(cpus.assign(kernel_of(2), contexts, active(2))) == {1}


def test_registers_of_user_mode_are_no_evidence() -> None:
    """A pid and the privilege level come from the CPU; a PV guest's kernel is not privileged."""
    registers = {"rsp": stack(0), "cs": 0x33, "gs_base": OFFSETS[0]}
    note = VcpuContext(registers, "NT_PRSTATUS", note=0, pid=101)
    assert cpus.assign(kernel_of(2), [note], active(2)) == {1: note}
    note = note._replace(pid=None)
    assert cpus.assign(kernel_of(2), [note], active(2)) == {}
    vcpu = VcpuContext({"rsp": stack(0), "cs": 0xE033}, "Xen")
    assert cpus.assign(kernel_of(2), [vcpu], active(2)) == {0: vcpu}


def test_the_gs_base_in_notes_of_a_hypervisor_is_the_kernels() -> None:
    """A kernel writes the gs base of the task into a note, which user space can set."""
    registers = {"rsp": 0, "cs": 0x10, "gs_base": OFFSETS[0]}
    note = VcpuContext(registers, "NT_PRSTATUS", note=0, qemu_cpu=1)
    assert cpus.assign(kernel_of(2), [note], active(2)) == {0: note}
    note = VcpuContext(registers, "NT_PRSTATUS", note=0, pid=7)
    assert cpus.assign(kernel_of(2), [note], active(2)) == {}


def with_vcpu_ids(*ids: int) -> FakeKernel:
    """A kernel whose CPUs have these numbers in xen_vcpu_id."""
    kernel = FakeKernel({"xen_vcpu_id": 0x40, "__per_cpu_offset": PER_CPU})
    kernel.memory.write(PER_CPU, words(8, *OFFSETS))
    for offset, number in zip(OFFSETS, ids, strict=True):
        kernel.memory.number(offset + 0x40, number, 4)
    return kernel


@pytest.mark.parametrize(
    ("ids", "assigned"),
    [
        ((1, 0), {0: 1, 1: 0}),
        # A kernel that does not know that it runs under Xen.
        ((0, 0), {0: 0, 1: 1}),
        # A damaged number.
        ((1, 1), {}),
    ],
)
def test_numbers_of_vcpus(ids: tuple[int, int], assigned: dict[int, int]) -> None:
    contexts = [VcpuContext({"rsp": 0}, ".xen_prstatus", vcpu=i) for i in range(2)]
    found = cpus.assign(with_vcpu_ids(*ids), contexts, active(2))
    assert {cpu: context.vcpu for cpu, context in found.items()} == assigned


def test_a_stack_precedes_the_number_of_a_vcpu() -> None:
    contexts = [VcpuContext({"rsp": stack(1 - i)}, ".xen_prstatus", vcpu=i) for i in range(2)]
    found = cpus.assign(with_vcpu_ids(0, 0), contexts, active(2))
    assert {cpu: context.vcpu for cpu, context in found.items()} == {0: 1, 1: 0}


def test_idle_tasks_all_have_pid_0() -> None:
    running = Active({cpu: SimpleNamespace(stack=stack(cpu), pid=0) for cpu in range(2)})
    note = VcpuContext({"rsp": 0}, "NT_PRSTATUS", note=0, pid=0)
    assert cpus.assign(kernel_of(2), [note], running) == {}


def prstatus(pid: int, word: int, sp: int) -> bytes:
    """An ELF note NT_PRSTATUS."""
    size, pid_at, sp_at = (336, 32, 112 + 19 * 8) if word == 8 else (144, 24, 72 + 15 * 4)
    desc = bytearray(size)
    desc[pid_at : pid_at + 4] = pid.to_bytes(4, "little")
    desc[sp_at : sp_at + word] = sp.to_bytes(word, "little")
    return struct.pack("<III8s", 5, size, 1, b"CORE") + desc


def with_copies(word: Literal[4, 8], pids: list[int], *, legacy: bool = False) -> FakeKernel:
    """A kernel whose CPUs saved their registers in crash_notes."""
    kernel = FakeKernel({"crash_notes": POINTER, "__per_cpu_offset": PER_CPU}, word=word)
    kernel.memory.write(PER_CPU, words(word, *OFFSETS[: len(pids)]))
    areas = [0x50_0000 + cpu * 0x200 for cpu in range(len(pids))]
    if legacy:
        kernel.memory.number(POINTER, ~ARRAY & kernel.last, word)
        kernel.memory.write(ARRAY, words(word, *areas))
    else:
        kernel.memory.number(POINTER, 0x400, word)
        areas = [offset + 0x400 for offset in OFFSETS[: len(pids)]]
    for cpu, (pid, area) in enumerate(zip(pids, areas, strict=True)):
        kernel.memory.write(area, prstatus(pid, word, 0x7000 + cpu))
    return kernel


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("word", [4, 8])
def test_registers_only_in_crash_notes(word: Literal[4, 8], *, legacy: bool) -> None:
    kernel = with_copies(word, [100, 101], legacy=legacy)
    found = cpus.assign(kernel, [], active(2))
    sp = "esp" if word == 4 else "rsp"
    assert [found[cpu].registers[sp] for cpu in range(2)] == [0x7000, 0x7001]
    assert len(kernel.warnings) == 2


def test_a_note_is_assigned_by_its_copy() -> None:
    """The CPU was between the switch of rq->curr and that of the stack: no pid matches."""
    kernel = with_copies(8, [7, 8])
    contexts = []
    for i, cpu in enumerate((1, 0)):
        fields = Note.prstatus(prstatus(7 + cpu, 8, 0x7000 + cpu)[20:])
        assert fields is not None
        registers = fields["registers"]
        contexts.append(VcpuContext(registers, "NT_PRSTATUS", note=i, pid=fields["pid"]))
    found = cpus.assign(kernel, contexts, active(2))
    assert found[1] is contexts[0]
    assert found[0] is contexts[1]
    assert not kernel.warnings


def test_copies_of_other_tasks_are_not_used() -> None:
    kernel = with_copies(8, [100, 7])
    assert set(cpus.assign(kernel, [], active(2))) == {0}


def test_the_kernels_copy_precedes_qemus_number() -> None:
    """The dump was taken while a capture kernel ran."""
    kernel = with_copies(8, [100, 7])
    contexts = [VcpuContext({"rsp": i}, "NT_PRSTATUS", note=i, qemu_cpu=i) for i in range(2)]
    found = cpus.assign(kernel, contexts, active(2))
    assert found[0].where == "crash_notes"
    assert found[1] is contexts[1]
    assert kernel.warnings == [
        "CPU 0: no saved registers in the notes; using those in crash_notes",
        "NT_PRSTATUS note 0 cannot be assigned to a CPU",
    ]
