"""Domains of real hosts, converted into save files: the commands' output stays what it was."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast.commands import bt, domains, log, ps, vcpus
from xenkdump_forge.containers import save
from xenkdump_forge.containers.saved_domain import SavedDomain

from . import saved
from .test_backtraces import all_tasks, kernel_frames, ours

pytestmark = pytest.mark.real

PAGE = 4096


class Case(NamedTuple):
    """A domain of a host, and a save file made from it."""

    host: xk.Domain
    domain: SavedDomain
    path: Path
    vmlinux: str
    truth: Any


@pytest.fixture(
    scope="module",
    params=[
        ("xen417-three-domains", 1, "vmlinux-6.1.0-56-amd64", "truth-dom1.json"),
        ("xen417-mixed-pcpus", 1, "vmlinux-6.1.0-56-amd64", "truth-dom1.json"),
        ("xen420-pv-pvh", 1, "vmlinux-6.12.117", "truth-pv1.json"),
        ("xen420-pv-pvh", 2, "vmlinux-6.12.117", "truth-pvh1.json"),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def case(
    request: Any,
    dump_file: Callable[[str], str],
    truth: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    name, number, vmlinux, expected = request.param
    host = xk.open(dump_file(f"{name}/vmcore")).domain(number, dump_file(vmlinux))
    records = host.dump.hypervisor.domain(number)
    convert = saved.saved_hvm if records.is_translated else saved.saved_pv
    domain = convert(host, records)
    path = tmp_path_factory.mktemp("saved") / "save"
    with path.open("wb") as file:
        save.write(domain, file, save.Options(hvm=records.is_translated))
    return Case(host, domain, path, dump_file(vmlinux), truth(f"{name}/{expected}"))


def test_commands(case: Case) -> None:
    opened = xk.open(case.path).domain(0, case.vmlinux)
    assert opened.warnings == []
    for command in (ps, log):
        assert rendering.text(command.run(opened)) == rendering.text(command.run(case.host))
    (row,) = domains.run(opened.dump).rows
    assert row.kernel is not None
    assert row.kernel.release == case.truth.get("uts", {}).get("release", row.kernel.release)
    for vcpu in vcpus.run(opened.dump, vcpus.Options(kernels=[case.vmlinux])).rows:
        assert vcpu.symbol is not None or (vcpu.vcpu.registers or {})["rip"] >> 63 == 0


@pytest.mark.parametrize("with_vmlinux", [True, False])
def test_every_frame_of_every_task(case: Case, with_vmlinux: bool) -> None:
    opened = xk.open(case.path).domain(0, case.vmlinux if with_vmlinux else None)
    found = {int(task["task"], 16): task for task in all_tasks(opened)}
    compared = 0
    for expected in case.truth["tasks"]:
        if expected["frames"]:
            task = found[int(expected["task"], 16)]
            assert ours(task) == kernel_frames(expected["frames"]), task["comm"]
            compared += 1
    assert compared > 90


def test_running_vcpus(case: Case) -> None:
    """The registers of the vCPUs are those of the host's dump."""
    opened = xk.open(case.path).domain(0, case.vmlinux)
    expected = {vcpu.number: vcpu.registers for vcpu in case.domain.vcpus}
    found = {row.vcpu.id: row.vcpu.registers for row in vcpus.run(opened.dump).rows}
    assert set(found) == set(expected)
    for number, registers in expected.items():
        for name in ("rip", "rsp", "rflags", "rbx", "r12"):
            assert (found[number] or {})[name] == registers[name]
    assert "frames" in rendering.json(bt.run(opened, bt.Options(active=True)))["tasks"][0]


def test_memory(case: Case) -> None:
    """Virtual memory of the kernel and of processes, by single reads and by batches."""
    opened = xk.open(case.path).domain(0, case.vmlinux)
    start = opened.kernel.symbol("_stext")
    assert opened.virtual.read(start, 1 << 20) == case.host.virtual.read(start, 1 << 20)
    addresses = np.arange(start, start + (8 << 20), 4096 + 8, dtype=np.uint64)
    found, expected = (domain.virtual.read_many(addresses, 64) for domain in (opened, case.host))
    assert (found == expected).all()
    compared = 0
    others = {task.pid: task for task in case.host.kernel.tasks()}
    for task in opened.kernel.tasks():
        try:
            user = opened.user(task)
        except xk.AbsentError:
            continue  # a kernel thread
        other = case.host.user(others[task.pid])
        for part in islice(user.iter_mapped(0, 1 << 47), 20):
            assert user.read(part.address, 4096) == other.read(part.address, 4096)
            compared += 1
    assert compared > 100
