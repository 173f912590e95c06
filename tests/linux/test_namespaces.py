"""Namespaces of tasks."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import namespaces

from .objects import Objects

LAYOUTS = """
task_struct: nsproxy
nsproxy: ipc_ns mnt_ns net_ns
"""


def test_of_a_task() -> None:
    objects = Objects(LAYOUTS)
    proxy = objects.make("nsproxy", net_ns=0x1000)
    task = objects.make("task_struct", nsproxy=proxy)
    exited = objects.make("task_struct")
    objects.symbols(init_task=task)
    assert namespaces.of_task(objects.kernel, task, "net_ns") == 0x1000
    assert namespaces.initial(objects.kernel, "net_ns") == 0x1000
    with pytest.raises(AbsentError, match="it has exited"):
        namespaces.of_task(objects.kernel, exited, "net_ns")
    # Early in boot.
    with pytest.raises(AbsentError, match="mnt_ns is NULL"):
        namespaces.initial(objects.kernel, "mnt_ns")
