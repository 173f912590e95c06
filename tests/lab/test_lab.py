"""The dumps of the lab against what the guests said about themselves.

``make lab`` makes the dumps; XKDUMP_LAB is the folder of one scenario or of all.
"""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast.commands import bt, check, domains, log, ps, sys, vcpus, vtop
from xenkdump_fast.xen.host import XenHost

pytestmark = pytest.mark.real

LAB = os.environ.get("XKDUMP_LAB")
VMLINUX_32 = os.environ.get("XKDUMP_LAB_VMLINUX32")
#: Tasks whose stacks do not change while they sleep.
SLEEPERS = {"cat", "sleep"}


class Case(NamedTuple):
    """A guest in a dump."""

    vmcore: Path
    guest: str
    truth: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.vmcore.parent.name}-{self.vmcore.stem}-{self.guest}"


def cases() -> Iterator[Case]:
    for found in sorted(Path(LAB).rglob("truth.json")) if LAB else ():
        for vmcore in sorted(found.parent.glob("*.vmcore")):
            for guest, truth in json.loads(found.read_text()).items():
                yield Case(vmcore, guest, truth)


CASES = list(cases())
if not CASES:
    pytest.skip("XKDUMP_LAB names no folder with dumps of the lab", allow_module_level=True)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@cache
def opened(vmcore: Path, number: int, vmlinux: str | None = None) -> xk.Domain:
    return xk.open(vmcore).domain(number, vmlinux)


@cache
def numbers(vmcore: Path) -> dict[str, int]:
    """The guests' domain ids by name: their host names have it."""
    found = {}
    for domain in XenHost(xk.open(vmcore).native).domains():
        name = rendering.json(sys.run(opened(vmcore, domain.id)))["nodename"]
        found[name.removeprefix("lab-")] = domain.id
    return found


def domain(case: Case) -> xk.Domain:
    number = numbers(case.vmcore)[case.guest]
    if "eax" not in case.truth["spin"]["registers"]:
        return opened(case.vmcore, number)
    # Debian's kernels for i386 have neither variables in kallsyms nor a build id that can be found.
    if VMLINUX_32 is None:
        pytest.skip("XKDUMP_LAB_VMLINUX32 names no vmlinux of the 32-bit guest's kernel")
    return opened(case.vmcore, number, VMLINUX_32)


def test_all_domains_are_found(case: Case) -> None:
    found = rendering.json(domains.run(xk.open(case.vmcore), domains.Options()))["domains"]
    assert {row["id"] for row in found} == set(range(len(found)))
    assert "dom0" in numbers(case.vmcore)
    (row,) = (row for row in found if row["id"] == numbers(case.vmcore)[case.guest])
    assert len(XenHost(xk.open(case.vmcore).native).domain(row["id"]).vcpus) == case.truth["vcpus"]


def test_every_frame_leads_back(case: Case) -> None:
    number = numbers(case.vmcore)[case.guest]
    found = check.run(xk.open(case.vmcore), check.Options(number))
    assert found.m2p is not None
    assert found.m2p.equal > 30_000
    assert found.m2p.different == 0


def test_the_kernel_and_its_log(case: Case) -> None:
    opened = domain(case)
    header = rendering.json(sys.run(opened))
    assert f"Linux version {header['release']} " in case.truth["banner"]
    assert case.truth["banner"].endswith(header["version"])
    assert f"lab_name={case.guest}" in rendering.text(log.run(opened))


def test_every_task(case: Case) -> None:
    """Kernel threads that work come and go; processes do not."""
    rows = rendering.json(ps.run(domain(case)))["tasks"]
    found = {row["pid"]: row["comm"] for row in rows}
    for task in case.truth["tasks"]:
        if not task["comm"].startswith("kworker") and task["pid"] != 1:
            # Threads of workqueues are renamed, and names are cut.
            assert found[task["pid"]][:8] == task["comm"][:8]
    assert "spin" in found.values()


def test_the_stacks_of_sleeping_tasks(case: Case) -> None:
    """The kernel's own unwinder saw the same frames below the scheduler."""
    kernel = domain(case).kernel
    tasks = {task.pid: task for task in kernel.tasks()}
    compared = 0
    for expected in case.truth["tasks"]:
        if expected["comm"] not in SLEEPERS or not expected["stack"]:
            continue
        frames = kernel.backtrace(tasks[expected["pid"]]).frames
        # The kernel leaves out its functions that wait (__sched).
        names = [frame.symbol for frame in frames]
        skipped = names.index(expected["stack"][0][0])
        assert skipped <= 4
        found = frames[skipped : skipped + len(expected["stack"])]
        for frame, (name, offset) in zip(found, expected["stack"], strict=True):
            # Several symbols may be at one address, and several functions may have one name.
            assert frame.symbol == name or frame.pc == kernel.symbol(name) + offset
            assert frame.offset == offset or frame.symbol != name
        compared += 1
    assert compared >= 2


def test_the_vcpu_that_runs_user_code(case: Case) -> None:
    """Its registers, wherever they were saved: in the note, on Xen's stack, below an interrupt."""
    found = rendering.json(bt.run(domain(case), bt.Options(["spin"])))
    (task,) = found["tasks"]
    registers = [task.get(name) or {} for name in ("registers", "user_registers")]
    expected = case.truth["spin"]["registers"].items()
    assert any(expected <= some.items() for some in registers), registers


def test_vcpus(case: Case) -> None:
    found = rendering.json(vcpus.run(xk.open(case.vmcore), vcpus.Options()))["vcpus"]
    rows = [row for row in found if row["domain"] == numbers(case.vmcore)[case.guest]]
    assert len(rows) == case.truth["vcpus"]
    assert all(row["registers"] for row in rows)


def test_vtop(case: Case) -> None:
    (found,) = rendering.json(vtop.run(domain(case), vtop.Options(["linux_banner"])))["addresses"]
    machine = domain(case).dump.machine.cstring(int(found["machine"], 16), 13)
    assert machine == b"Linux version"


@pytest.mark.parametrize(
    "core", sorted(Path(LAB or "").rglob("*.core")), ids=lambda core: core.name
)
def test_the_dump_core_file_of_a_paused_guest(core: Path) -> None:
    """xl dump-core wrote it while the guest was paused, and QEMU dumped the host after that."""
    whole = core.with_name("paused.vmcore")
    inside, alone = opened(whole, numbers(whole)[core.stem]), xk.open(core).domain()
    frames = []
    for kernel in (inside.kernel, alone.kernel):
        tasks = {task.pid: task for task in kernel.tasks()}
        frames.append(
            {
                pid: (task.comm, [(f.pc, f.sp, f.symbol) for f in kernel.backtrace(task).frames])
                for pid, task in tasks.items()
            }
        )
    assert len(frames[0]) > 50
    assert frames[0] == frames[1]
    assert rendering.text(log.run(inside)) == rendering.text(log.run(alone))
