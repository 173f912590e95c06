"""Which registers belong to which CPU."""

from types import SimpleNamespace
from typing import Any

from xenkdump_fast.linux import cpus, percpu
from xenkdump_fast.linux.cpus import VcpuContext

from .fakes import FakeKernel

MASK, STACKS = 0x1000, 0x10_0000


class Registers(dict[str, int]):  # noqa: PLW1641
    """Registers that are compared with no others."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("registers were compared")


class Active(dict[int, Any]):
    """Tasks that count how often all of them are gone through."""

    walks = 0

    def items(self) -> Any:
        self.walks += 1
        return super().items()


def stack(cpu: int) -> int:
    return STACKS + cpu * 0x4000


def active(count: int) -> Active:
    return Active({cpu: SimpleNamespace(stack=stack(cpu)) for cpu in range(count)})


def kernel_of(count: int) -> FakeKernel:
    kernel = FakeKernel({"__cpu_possible_mask": MASK})
    kernel.memory.number(MASK, (1 << count) - 1, 8)
    return kernel


def context(sp: int, note: int | None = None) -> VcpuContext:
    return VcpuContext(Registers(rsp=sp), "by hand", note=note)


def test_each_stack_is_looked_for_but_once() -> None:
    """8000 notes, each against the stacks of 1000 CPUs and then against each other: 2 s."""
    running = active(60)
    # None of them on a stack, then the CPUs the other way round, on both ends of their stacks.
    contexts = [context(STACKS - 1 - i) for i in range(500)]
    contexts += [context(stack(cpu) + (0x3FFF if cpu % 2 else 0)) for cpu in reversed(range(60))]
    found = cpus.assign(kernel_of(60), contexts, running)
    assert all(found[cpu] is contexts[-1 - cpu] for cpu in range(60))
    assert running.walks == 1


def test_two_on_one_stack() -> None:
    running = active(2)
    running[2] = running[1]
    contexts = [context(stack(1)), context(stack(1) + 8, note=0), context(0, note=1)]
    found = cpus.assign(kernel_of(3), contexts, running)
    assert set(found) == {0, 1}
    assert found[1] is contexts[0]
    assert found[0] is contexts[1]


def test_more_notes_than_there_are_cpus() -> None:
    running = active(2)
    contexts = [context(stack(0), note=percpu.MAX_CPUS), context(stack(1), note=1)]
    assert set(cpus.assign(kernel_of(2), contexts, running)) == {1}
