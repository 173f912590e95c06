"""``list``, ``tree`` and ``waits`` on real dumps, compared with what else the dump says."""

from collections.abc import Callable

import pytest

from xenkdump_fast import Domain
from xenkdump_fast.commands import list as list_command
from xenkdump_fast.commands import tree, waits
from xenkdump_fast.linux import modules
from xenkdump_fast.linux.waits import rcu

pytestmark = pytest.mark.real

TYPED = ("xen417-dom0", "xen420-pv-pvh", "bare-x86_64", "linux73-bare", "bare-i386-pae")
DomainOf = Callable[[str], Domain]


@pytest.mark.parametrize("name", TYPED)
def test_modules(domain: DomainOf, name: str) -> None:
    options = list_command.Options(["module.list", "modules"], head=True)
    found = list_command.run(domain(name), options)
    assert found.failure is None
    assert sorted(entry.address for entry in found.found) == sorted(
        module.address for module in modules.modules(domain(name).kernel)
    )


@pytest.mark.parametrize("name", TYPED)
def test_areas_of_processes(domain: DomainOf, name: str) -> None:
    """Each mm_struct counts its areas, and each area has the range at which the tree has it."""
    kernel = domain(name).kernel
    counts = {}
    for task in kernel.tasks():
        mm = kernel.read(task.address, "task_struct.mm")
        if mm and not task.exit_state:
            counts[mm] = kernel.read(mm, "mm_struct.map_count")
    assert len(counts) > 50
    for mm, count in counts.items():
        root = f"{mm + kernel.offset('mm_struct.mm_mt'):x}"
        found = tree.run(domain(name), tree.Options([root], "maple"))
        assert (len(found.found), found.failure) == (count, None)
        for area, range_, _ in found.found:
            start = kernel.read(area, "vm_area_struct.vm_start")
            end = kernel.read(area, "vm_area_struct.vm_end")
            assert range_ == (start, end - 1)


@pytest.mark.parametrize("name", TYPED)
def test_pids(domain: DomainOf, name: str) -> None:
    """The IDR has each task's struct pid at the index of its pid."""
    kernel = domain(name).kernel
    root = kernel.symbols["init_pid_ns"] + kernel.offset("pid_namespace.idr")
    found = tree.run(domain(name), tree.Options([f"{root:x}"], "xarray"))
    by_index = {entry.range: entry.address for entry in found.found}
    for task in kernel.tasks():
        if task.pid and not task.exit_state:
            pid = kernel.read(task.address, "task_struct.thread_pid")
            assert by_index[task.pid, task.pid] == pid


@pytest.mark.parametrize("name", TYPED)
def test_free_ranges(domain: DomainOf, name: str) -> None:
    kernel = domain(name).kernel
    options = tree.Options(["free_vmap_area_root"], offset="vmap_area.rb_node")
    starts = [
        kernel.read(entry.address, "vmap_area.va_start")
        for entry in tree.run(domain(name), options).found
    ]
    assert len(starts) > 5
    assert starts == sorted(starts)


@pytest.mark.parametrize("name", TYPED)
def test_vfork(domain: DomainOf, name: str) -> None:
    """The only uninterruptible tasks wait for a child by vfork()."""
    found = waits.run(domain(name))
    assert found.tasks
    for waiting in found.tasks:
        assert (waiting.wait.kind, waiting.wait.caller) == ("completion", "kernel_clone")
        thing = waiting.object
        assert thing is not None
        assert thing.owner is not None
        # vfork() keeps the completion on the stack of the parent.
        assert 0 <= thing.address - waiting.task.stack < domain(name).kernel.stack_size
        assert thing.owner.by == "task_struct.vfork_done"
        assert (
            domain(name).kernel.read(thing.owner.task.address, "task_struct.real_parent")
            == waiting.task.address
        )
    assert found.deadlocks == []


def test_the_event_channel_of_the_xenstore(domain: DomainOf) -> None:
    """The xenbus thread of dom0, and the channel that Xen has for its port."""
    found = waits.run(domain("xen420-pv-pvh"), waits.Options(["xenbus"]))
    (task,) = found.json()["tasks"]
    channel = task["channel"]
    assert (channel["use"], channel["remote_domain"]) == ("xenstore", 0)
    # xenstored runs in dom0, too.
    assert channel["remote_port"] is not None
    assert channel["remote_port"] != channel["port"]


def test_the_grace_period_of_rcu(domain: DomainOf) -> None:
    """One is in progress when xen420-pv-pvh crashes: the task that makes it crash holds it."""
    kernel = domain("xen420-pv-pvh").kernel
    tasks = {task.address: task for task in kernel.tasks()}
    found = rcu.grace_period(kernel, tasks, expedited=False)
    running = {task.cpu: task for task in tasks.values() if task.active}
    assert (found.in_progress, found.cpus, found.tasks) == (True, [1], [])
    owner = rcu.owner(found, running)
    assert owner is not None
    assert owner.task.comm == "do_kdump"
    assert not rcu.grace_period(kernel, tasks, expedited=True).in_progress


def test_without_types(domain: DomainOf) -> None:
    found = waits.run(domain("bare-i386"))
    assert [(waiting.wait.kind, waiting.object) for waiting in found.tasks] == [
        ("completion", None)
    ] * 2
    warnings = domain("bare-i386").kernel.warnings
    assert any("only the functions that wait are known" in text for text in warnings)
