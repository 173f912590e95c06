"""A domain as a program of drgn: the same as our own readers."""

from typing import Any

import drgn
import pytest
from drgn import FindObjectFlags, Object, Program
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu

import xenkdump_fast as xk
from xenkdump_fast.linux import modules
from xenkdump_fast.linux.system import Linux
from xenkdump_forge import SyntheticDump


def task_of(program: Program, task: xk.Task) -> Object:
    return Object(program, "struct task_struct *", task.address)


def frames(program: Program, task: xk.Task) -> list[tuple[int, str | None]]:
    found = program.stack_trace(task_of(program, task))
    return [(frame.pc, frame.name) for frame in found]


def kernel_of(domain: xk.Domain) -> Linux:
    return domain.kernel


def test_tasks_and_their_members(domain: xk.Domain, program: Program) -> None:
    kernel = kernel_of(domain)
    tasks = kernel.tasks()
    assert len(tasks) > 20
    for task in tasks:
        found = task_of(program, task)
        assert found.pid.value_() == task.pid
        assert found.comm.string_().decode() == task.comm
        assert found.member_("__state").value_() == task.state
    leaders = {task.address for task in tasks if task.pid == task.tgid and not task.idle}
    listed = list_for_each_entry(
        "struct task_struct", program["init_task"].tasks.address_of_(), "tasks"
    )
    assert leaders <= {found.value_() for found in listed}


def test_stack_traces(domain: xk.Domain, program: Program) -> None:
    kernel = kernel_of(domain)
    compared = 0
    for task in kernel.tasks():
        trace = kernel.backtrace(task)
        if trace.stopped or any(frame.guess for frame in trace.frames):
            continue
        ours = [(frame.pc, frame.symbol) for frame in trace.frames if not frame.user]
        found = frames(program, task)
        assert found[: len(ours)] == ours, task.comm
        compared += 1
    assert compared > 20


def test_running_cpus_have_registers(domain: xk.Domain, program: Program) -> None:
    kernel = kernel_of(domain)
    assert kernel.contexts
    for cpu, context in kernel.contexts.items():
        if context.registers["cs"] & 3 and context.registers["rip"] >> 63 == 0:
            continue  # in user mode
        trace = program.stack_trace(task_of(program, kernel.active[cpu]))
        assert trace[0].pc == context.registers["rip"]
        assert trace[0].sp == context.registers["rsp"]


def test_types(domain: xk.Domain, program: Program) -> None:
    types = kernel_of(domain).types
    for struct in ("task_struct", "list_head", "module", "rq", "mm_struct"):
        found = program.type(f"struct {struct}")
        assert found.size == types.sizeof(struct)
        for member in found.members:
            if member.name and member.bit_field_size is None:
                assert member.offset == types.offset(f"{struct}.{member.name}")
    bits = program.type("struct task_struct").member("in_iowait")
    assert bits.bit_field_size == 1
    assert program.type("pid_t").type_name() == "pid_t"
    assert program.type("unsigned long").size == 8
    with pytest.raises(LookupError):
        program.type("struct no_such")
    with pytest.raises(LookupError):
        program.type("struct pid_t")


def test_objects(domain: xk.Domain, program: Program) -> None:
    kernel = kernel_of(domain)
    assert program["init_task"].address_ == kernel.symbols["init_task"]
    assert program["modules"].type_.type_name() == "struct list_head"  # by the table
    assert program["runqueues"].type_.type_name() == "struct rq"  # by BTF
    cpu = min(kernel.active)
    assert per_cpu(program["runqueues"], cpu).curr.value_() == kernel.active[cpu].address
    offsets = program["__per_cpu_offset"]
    assert offsets[cpu].value_() == kernel.pointer(kernel.symbols["__per_cpu_offset"] + 8 * cpu)
    with pytest.raises(LookupError):
        program["no_such"]
    with pytest.raises(LookupError):
        program.object("init_task", FindObjectFlags.CONSTANT)
    with pytest.raises(LookupError):
        program.variable("init_task", "init/init_task.c")


def test_symbols(domain: xk.Domain, program: Program) -> None:
    kernel = kernel_of(domain)
    schedule = program.symbol("schedule")
    assert schedule.address == kernel.symbols["schedule"]
    assert program.symbol(schedule.address + 1) == schedule
    assert program.symbols("schedule") == [schedule]
    module = next(each for each in modules.modules(kernel) if each.symbols)
    code = next(each for each in kernel.code if each.module == module.name)
    assert program.symbol(code.address).name == code.name
    assert len(program.symbols()) >= len(kernel.symbols)
    with pytest.raises(LookupError):
        program.symbol("no_such")
    with pytest.raises(LookupError):
        program.symbol(0x1000)


def test_modules(domain: xk.Domain, program: Program) -> None:
    listed = list(modules.modules(kernel_of(domain)))
    assert listed
    for module in listed:
        found = program.module(module.base)
        assert found.name == module.name
        assert found.object.value_() == module.address
    assert program.module("kernel").address_range is not None
    assert not [text for text in domain.warnings if "drgn" in text]


def test_memory(domain: xk.Domain, program: Program) -> None:
    kernel = kernel_of(domain)
    banner = kernel.symbols["linux_banner"]
    assert program.read(banner, 13) == b"Linux version"
    for address in (0, 0x1000, 0xDEAD_0000_0000_0000, (1 << 64) - 8):
        with pytest.raises(drgn.FaultError) as caught:
            program.read(address, 8)
        assert caught.value.address == address
    machine = domain.as_bare()
    first, count = machine.runs().tolist()[0]
    assert program.read(first << 12, 64, physical=True) == machine.memory.read(first << 12, 64)
    (last_first, last_count) = machine.runs().tolist()[-1]
    with pytest.raises(drgn.FaultError):
        program.read(last_first + last_count << 12, 8, physical=True)
    assert count


def test_a_domain_that_did_not_panic_has_a_context(
    synthetic: SyntheticDump, domain: xk.Domain, program: Program
) -> None:
    assert "crash_context" not in program.config  # dom0 panicked
    other = next(n for n in domain.dump.domain_ids if n)  # type: ignore[attr-defined]
    guest = xk.open(synthetic.vmcore).domain(other)
    found: Any = xk.drgn_program(guest)
    context = found.config["crash_context"]
    assert context.value_() == guest.kernel.active[0].address


def test_without_a_vmlinux(synthetic: SyntheticDump, domain: xk.Domain) -> None:
    own = xk.open(synthetic.vmcore).domain(0)
    program = xk.drgn_program(own)
    assert own.kernel.image.is_memory
    for task in kernel_of(domain).tasks()[:10]:
        assert frames(program, task)
        assert task_of(program, task).pid.value_() == task.pid
