"""Namespaces of tasks, through ``struct nsproxy``."""

from typing import Literal

from .._native import AbsentError
from .kernel import Kernel

#: Members of nsproxy.
Kind = Literal["mnt_ns", "net_ns", "ipc_ns"]


def of_task(kernel: Kernel, task: int, kind: Kind) -> int:
    """The address of a namespace of the task at an address. AbsentError if it has none.

    That is so once it has exited; early in boot of all tasks.
    """
    proxy = kernel.read(task, "task_struct.nsproxy")
    found = kernel.read(proxy, f"nsproxy.{kind}") if proxy else 0
    if not found:
        why = f"nsproxy.{kind} is NULL" if proxy else "it has exited"
        raise AbsentError(f"the task {task:#x} has no namespace of this kind: {why}")
    return found


def initial(kernel: Kernel, kind: Kind) -> int:
    """The address of the namespace that the kernel started with."""
    return of_task(kernel, kernel.symbol("init_task"), kind)
