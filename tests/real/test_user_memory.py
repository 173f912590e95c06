"""User memory of tasks: the command lines of processes, read through their own page tables."""

import re
from collections.abc import Callable

import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast.commands import vtop

Open = Callable[..., xk.Domain]

#: Dumps of which the size of a PFN entry, the P2M and the release differ; all with types.
NAMES = ("bare-x86_64", "bare-i386-pae", "linux73-bare", "xen417-dom0")


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_of_processes(name: str, domain: Open) -> None:
    dom = domain(name)
    kernel = dom.kernel
    found = {}
    for task in kernel.tasks():
        mm = kernel.read(task.address, "task_struct.mm")
        if mm == 0:
            with pytest.raises(xk.AbsentError, match="has no user space"):
                dom.user(task)
            continue
        memory = dom.user(task)
        found[task.comm] = memory.cstring(kernel.read(mm, "mm_struct.arg_start"), 64)
    # The tests' programs rename themselves to t-NAME, busybox's applets are named after themselves.
    assert found["t-busyloop"] == b"busyloop"
    assert found["sleep"] == b"sleep"
    assert found["do_kdump"] == b"/bin/sh"


@pytest.mark.parametrize("name", NAMES)
def test_vtop_of_a_task(name: str, domain: Open) -> None:
    dom = domain(name)
    kernel = dom.kernel
    (task,) = [task for task in kernel.tasks() if task.comm == "do_kdump"]
    mm = kernel.read(task.address, "task_struct.mm")
    address = kernel.read(mm, "mm_struct.arg_start")
    unmapped = vtop.run(dom, vtop.Options([f"{address:x}"]))
    assert [found.mapping for found in unmapped.translations] == [None]
    assert f"{address:#x} is not mapped" in (unmapped.failure or "")
    result = vtop.run(dom, vtop.Options([f"{address:x}"], pid=str(task.pid)))
    (found,) = result.translations
    assert found.mapping is not None
    assert found.physical is not None
    assert dom.dump.machine.read(found.mapping.machine, 8) == b"/bin/sh\0"
    assert dom.physical.read(found.physical, 8) == b"/bin/sh\0"
    assert {"PRESENT", "USER"} <= set(found.mapping.flag_names)
    assert result.json()["pid"] == task.pid
    # The frame of the table is the machine address of mm->pgd.
    pgd = kernel.virtual.translate(kernel.read(mm, "mm_struct.pgd"))
    assert found.mapping.levels[0][1] == pgd
    # Every entry of the walk has a line: PGD, PUD, PMD and PTE, or PGD, PMD and PTE.
    names = re.findall(r"(?m)^ +(\w+): +[0-9a-f]+ => ", rendering.text(result))
    expected = ["PGD", "PMD", "PTE"] if kernel.word == 4 else ["PGD", "PUD", "PMD", "PTE"]
    assert names == expected


def test_kernel_addresses_by_the_tables_of_a_task(domain: Open) -> None:
    dom = domain("bare-x86_64")
    (own,) = vtop.run(dom, vtop.Options(["linux_banner+0x4"])).translations
    (of_task,) = vtop.run(dom, vtop.Options(["linux_banner+4"], pid="do_kdump")).translations
    assert own.mapping is not None
    assert of_task.mapping is not None
    assert own.mapping.machine == of_task.mapping.machine


def test_a_task_without_types(domain: Open) -> None:
    dom = domain("bare-i386")
    with pytest.raises(xk.AbsentError, match=r"no type information for mm_struct.pgd"):
        dom.user(next(task for task in dom.kernel.tasks() if task.comm == "do_kdump"))
