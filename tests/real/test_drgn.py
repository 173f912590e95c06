"""Domains of real dumps as programs of drgn, compared with reference data and with our readers."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import AbsentError

from .conftest import VMLINUX, X86_64
from .test_backtraces import kernel_frames

pytest.importorskip("drgn", reason="drgn is not installed: pip install 'xenkdump_fast[drgn]'")

if TYPE_CHECKING:
    from drgn import Object, Program, StackTrace

pytestmark = pytest.mark.real

#: Name of the dump, of its truth, and number of the domain.
CASES = [
    ("bare-x86_64", "truth.json", 0),
    ("linux73-bare", "truth.json", 0),
    ("xen417-dom0", "truth.json", 0),
    ("xen417-three-domains", "truth-dom0.json", 0),
    ("xen417-three-domains", "truth-dom1.json", 1),
    ("xen417-mixed-pcpus", "truth-dom0.json", 0),
    ("xen417-mixed-pcpus", "truth-dom1.json", 1),
    ("xen420-pv-pvh", "truth-dom0.json", 0),
    ("xen420-pv-pvh", "truth-pv1.json", 1),
    ("xen420-pv-pvh", "truth-pvh1.json", 2),
]
#: Commands that fail for a reason of their own, and the reason; docs/drgn.md has the table.
KNOWN = {
    "sys config": "kernel must be compiled with CONFIG_IKCONFIG",
    # drgn reads virtual memory in spite of -p.
    "rd -p": "not present at level",
    # Descriptors that accept() or open() reserved have no file yet.
    "foreach gleader files": "not present at level",
    "files": "not present at level",
    # drgn expects that the CPU of each task is online.
    "ps -m": "was taken offline by the crash",
    # The kernel did not panic.
    "set -p": "panic_cpu is not set",
    "bt -p": "panic_cpu is not set",
}


class Opened:
    """A domain, its program, and the CPU time that the program took."""

    def __init__(self, domain: xk.Domain, truth: Any) -> None:
        self.domain = domain
        self.truth = truth
        begun = time.process_time()
        self.program: Program = xk.drgn_program(domain)
        self.seconds = time.process_time() - begun

    def task(self, address: int) -> "Object":
        from drgn import Object

        return Object(self.program, "struct task_struct *", address)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def opened(request: Any, dump_file: Callable[[str], str], truth: Callable[[str], Any]) -> Opened:
    name, facts, number = request.param
    vmlinux = dump_file(VMLINUX.get(name, X86_64))
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number, vmlinux)
    return Opened(domain, truth(f"{name}/{facts}"))


def frames(trace: "StackTrace") -> list[tuple[int, str | None]]:
    """The frames in the kernel, without those of inlined functions."""
    own = [frame for frame in trace if frame.pc >> 63 and not frame.is_inline]
    return [(frame.pc, frame.symbol().name) for frame in own]


def test_every_frame_of_every_sleeping_task(opened: Opened) -> None:
    compared = 0
    active = {task.address for task in opened.domain.kernel.active.values()}
    for expected in opened.truth["tasks"]:
        if expected["frames"] and int(expected["task"], 16) not in active:
            trace = opened.program.stack_trace(opened.task(int(expected["task"], 16)))
            assert frames(trace) == kernel_frames(expected["frames"]), expected["comm"]
            compared += 1
    assert compared > 50


def test_every_running_vcpu(opened: Opened) -> None:
    truth = opened.truth
    running = truth.get("vcpus", truth["running"])
    found = {
        trace[0].sp: trace
        for task in opened.domain.kernel.active.values()
        if len(trace := opened.program.stack_trace(opened.task(task.address)))
    }
    for expected in running:
        first = expected["frames"][0]
        trace = found[int(first["sp"], 16)]
        assert trace[0].pc == int(first["pc"], 16)
        assert frames(trace) == kernel_frames(expected["frames"])


def test_command_lines_of_processes(opened: Opened) -> None:
    from drgn.helpers.linux.mm import cmdline

    compared = 0
    kernel = opened.domain.kernel
    for task in kernel.tasks():
        if task.pid != task.tgid or not kernel.read(task.address, "task_struct.mm"):
            continue
        mm = opened.task(task.address).mm
        start, end = mm.arg_start.value_(), mm.arg_end.value_()
        if start >= end:
            continue  # within execve()
        try:
            ours = opened.domain.user(task).read(start, end - start)
        except AbsentError:
            continue  # not in the dump
        found = cmdline(opened.task(task.address))
        assert found == ours.removesuffix(b"\0").split(b"\0")
        compared += 1
    assert compared > 20


def test_threads_and_helpers(opened: Opened) -> None:
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.fs import d_path, for_each_mount
    from drgn.helpers.linux.pid import for_each_task

    tasks = {task.address for task in opened.domain.kernel.tasks() if not task.idle}
    assert {task.value_() for task in for_each_task(opened.program)} == tasks
    # A panic takes the other CPUs offline.
    assert set(for_each_online_cpu(opened.program)) <= opened.domain.kernel.active.keys()
    paths = [
        d_path(mount.mnt.address_of_(), mount.mnt.mnt_root)
        for mount in for_each_mount(opened.program)
    ]
    assert b"/proc" in paths


def test_a_program_is_ready_soon(opened: Opened) -> None:
    # 0.3 s without DWARF; the limit leaves room for other processes on the machine.
    assert opened.seconds < 2


def test_crash_compatible_commands(opened: Opened) -> None:
    from tools import drgn_commands

    failures = {}
    count = 0
    for outcome in drgn_commands.outcomes(opened.program, skip=("kmem -p", "sym -l")):
        count += 1
        if outcome.failure is not None:
            failures[outcome.command] = outcome.failure
    unexpected = {
        command: failure
        for command, failure in failures.items()
        if not any(
            command.startswith(known) and reason in failure for known, reason in KNOWN.items()
        )
    }
    assert not unexpected
    assert count > 100
    assert len(failures) <= 6


def test_xen(dump_file: Callable[[str], str]) -> None:
    from xenkdump_fast.bridges.drgn import program_of_xen

    dump = xk.open(dump_file("xen420-pv-pvh/vmcore"))
    xen = dump.xen(dump_file("xen-syms-4.20"))
    program = program_of_xen(xen)
    domain, found = program["domain_list"], []
    while domain:
        found.append(domain.domain_id.value_())
        domain = domain.next_in_list
    assert found == dump.domain_ids
    traces = {thread.tid: thread.stack_trace() for thread in program.threads()}
    assert sorted(traces) == [pcpu.number for pcpu in xen.pcpus]
    for pcpu in xen.pcpus:
        assert traces[pcpu.number][0].pc == pcpu.registers["rip"]
    names = [frame.name for trace in traces.values() for frame in trace]
    assert "kexec_crash" in names
