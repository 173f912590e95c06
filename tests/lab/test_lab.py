"""The dumps of the lab against what the guests said about themselves.

``make lab`` makes the dumps; XKDUMP_LAB is the folder of one scenario or of all.
"""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast.commands import bt, check, domains, log, ps, sys, vcpus, vtop
from xenkdump_fast.linux.system import Linux
from xenkdump_fast.xen import frames
from xenkdump_fast.xen.host import XenHost

pytestmark = pytest.mark.real

LAB = os.environ.get("XKDUMP_LAB")
VMLINUX_32 = os.environ.get("XKDUMP_LAB_VMLINUX32")
#: Tasks whose stacks do not change while they sleep, unless they are frozen for xl save.
SLEEPERS = {"cat", "sleep"}
#: A dump of the host while the guests that xl save has saved are paused.
SAVED = "saved.vmcore"


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
    if case.vmcore.name == SAVED and case.guest != "dom0":
        pytest.skip("tasks are frozen")
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


def stacks(kernel: Linux) -> dict[int, Any]:
    """The names and the frames of all tasks by pid.

    Without the pc of the first frame: of a translated guest in a host it is where the guest left
    for Xen, which has moved it on since.
    """
    found = {}
    for task in kernel.tasks():
        first, *others = kernel.backtrace(task).frames
        callers = [(frame.pc, frame.sp, frame.symbol) for frame in others]
        found[task.pid] = (task.comm, first.sp, first.symbol, callers)
    return found


def files(suffix: str) -> pytest.MarkDecorator:
    """Runs a test for each file of a domain."""
    found = sorted(Path(LAB or "").rglob(f"*.{suffix}"))
    ids = [f"{path.parent.name}-{path.name}" for path in found]
    return pytest.mark.parametrize("path", found, ids=ids)


@files("core")
def test_the_dump_core_file_of_a_paused_guest(path: Path) -> None:
    """xl dump-core wrote it while the guest was paused, and QEMU dumped the host after that."""
    whole = path.with_name("paused.vmcore")
    inside, alone = opened(whole, numbers(whole)[path.stem]), xk.open(path).domain()
    assert len(stacks(alone.kernel)) > 50
    assert stacks(inside.kernel) == stacks(alone.kernel)
    assert rendering.text(log.run(inside)) == rendering.text(log.run(alone))


@files("save")
def test_a_saved_guest(path: Path) -> None:
    """What the guest had reported is in the file of xl save."""
    truth = json.loads(path.with_name("truth.json").read_text())[path.stem]
    dump = xk.open(path)
    (row,) = rendering.json(domains.run(dump, domains.Options()))["domains"]
    assert (row["kind"], row["vcpus"]) == (truth["type"], truth["vcpus"])
    header = rendering.json(sys.run(dump.domain()))
    assert f"Linux version {header['release']} " in truth["banner"]
    assert header["nodename"] == f"lab-{path.stem}"
    found = {task.pid: task.comm for task in dump.domain().kernel.tasks()}
    for task in truth["tasks"]:
        if not task["comm"].startswith("kworker") and task["pid"] != 1:
            assert found[task["pid"]][:8] == task["comm"][:8]
    # The program was frozen in an interrupt.
    (spin,) = rendering.json(bt.run(dump.domain(), bt.Options(["spin"])))["tasks"]
    assert truth["spin"]["registers"].items() <= spin["user_registers"].items()
    # The kernel has called Xen to suspend it, with the other CPUs waiting for that.
    active = rendering.json(bt.run(dump.domain(), bt.Options(active=True)))["tasks"]
    names = [[frame["symbol"] for frame in task["frames"]] for task in active]
    assert len(names) == truth["vcpus"]
    assert all("multi_cpu_stop" in symbols for symbols in names)
    assert "xen_suspend" in names[0]
    assert dump.warnings == []


@files("save")
def test_a_saved_guest_in_its_host(path: Path) -> None:
    """xl save -p left the guest paused, and QEMU dumped the host after that."""
    whole = path.with_name(SAVED)
    inside, alone = opened(whole, numbers(whole)[path.stem]), xk.open(path).domain()
    assert len(stacks(alone.kernel)) > 50
    assert stacks(inside.kernel) == stacks(alone.kernel)
    assert rendering.text(log.run(inside)) == rendering.text(log.run(alone))
    found = XenHost(inside.dump.native).domain(inside.id)
    contexts = alone.dump.native.vcpu_contexts
    assert len(found.vcpus) == len(contexts)
    for vcpu, context in zip(found.vcpus, contexts, strict=True):
        # The result of the hypercall: the guest was saved, or it goes on.
        expected = {**context["registers"], "rax": int(vcpu.id == 0)}
        if not found.is_translated:
            # Xen shows IOPL as the guest has set it. libxc replaces the mfn of start_info, which is
            # the third argument of the hypercall, by its pfn.
            expected["rflags"] &= ~0x3000
            if vcpu.id == 0:
                expected["rdx"] = (vcpu.registers or {})["rdx"]
        assert vcpu.registers is not None
        common = vcpu.registers.keys() & {*frames.GENERAL, "rip", "rsp", "rflags", "cs", "ss"}
        assert len(common) >= 18
        assert {name: vcpu.registers[name] for name in common} == {
            name: expected[name] for name in common
        }
    (there, is_there), (here, is_here) = (pages(domain.kernel) for domain in (inside, alone))
    # Xen's shared_info page is mapped, but is no memory of the guest.
    assert np.count_nonzero(is_there != is_here) <= 1
    both = is_there & is_here
    assert np.count_nonzero(both) > 32_000
    different = np.count_nonzero((there != here).any(axis=1) & both)
    # Page tables of a PV guest hold pfns in the file and mfns in the host.
    assert different == 0 if found.is_translated else 100 < different < 1000


def pages(kernel: Linux) -> tuple[Any, Any]:
    """The guest's memory by the kernel's direct mapping, and which pages there are."""
    count = 128 << 8
    base = kernel.pointer(kernel.symbol("page_offset_base"))
    addresses = np.arange(count, dtype=np.uint64) * np.uint64(4096) + np.uint64(base)
    status = np.empty(count, dtype=np.uint8)
    rows = kernel.virtual.read_many(addresses, 4096, status=status)
    return rows, status == xk.Status.OK
