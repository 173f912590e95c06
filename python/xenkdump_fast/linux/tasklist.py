"""Where tasks are listed: the task list and its threads, and the table of pids beside them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from .._native import AbsentError, MemoryFault
from . import pids
from .kernel import Kernel

#: No task_struct was ever smaller, whatever the types say.
MIN_SIZE = 0x200


def addresses(kernel: Kernel) -> list[int]:
    """Every task but the idle ones of further CPUs, init_task first.

    A break in one list does not hide what another leads to; what was found so is said in
    ``kernel.warnings``.
    """
    room = kernel.most(_size(kernel))
    listed = _distinct(_listed(kernel, room), room)
    more = []
    if len(listed) <= room:
        with suppress(AbsentError):  # no types: nothing tells where the table's parts lie
            more = [task for task in _distinct(pids.tasks(kernel), room) if task not in listed]
    if more:
        kernel.warn(f"the task list lacks {len(more)} tasks, which the table of pids has")
    found = [*listed, *more]
    if len(found) > room:
        kernel.warn(f"there are more tasks than the dump can hold: the first {room} are told")
    return found[:room]


def _size(kernel: Kernel) -> int:
    try:
        return max(kernel.types.sizeof("task_struct"), MIN_SIZE)
    except AbsentError:
        return MIN_SIZE


def _distinct(addresses: Iterable[int], room: int) -> dict[int, None]:
    """Each address once, as they come; one more than there can be says that there are more."""
    return dict.fromkeys(islice(addresses, room + 1))


def _listed(kernel: Kernel, room: int) -> Iterator[int]:
    """Every task that the task list leads to: each process's leader, then its other threads."""
    init_task = kernel.symbol("init_task")
    yield init_task
    seen: set[int] = set()
    for leader in _leaders(kernel, init_task, room):
        yield leader
        yield from _threads(kernel, leader, seen)


def _leaders(kernel: Kernel, init_task: int, room: int) -> Iterator[int]:
    offset = kernel.offset("task_struct.tasks")
    head = init_task + offset
    last = head
    found = set()
    for node in kernel.list(head, room):
        last = node
        found.add(node)
        yield kernel.containing(node, offset)
    try:
        if kernel.pointer(head + kernel.word) == last:
            return
    except MemoryFault:
        return
    # The last node of the list is not where this walk ended: walk the other way too.
    rest = []
    for node in kernel.list(head, room, backward=True):
        if node in found:
            break
        rest.append(kernel.containing(node, offset))
    yield from reversed(rest)


def _threads(kernel: Kernel, leader: int, seen: set[int]) -> Iterator[int]:
    """The threads of a group but its leader; ``seen`` has the nodes of the groups before it.

    A thread belongs to one group: what follows a node of another was told with that one.
    """
    try:
        head, offset = _thread_list(kernel, leader)
    except MemoryFault as fault:
        kernel.warn(f"the threads of the task at {leader:#x} cannot be read: {fault}")
        return
    if head == 0:
        return
    for node in kernel.list(head):
        if node in seen:
            kernel.warn(f"the threads of the task at {leader:#x} go on in another group's")
            return
        seen.add(node)
        task = kernel.containing(node, offset)
        if task != leader:
            yield task


def _thread_list(kernel: Kernel, leader: int) -> tuple[int, int]:
    """The head of a group's list of threads, and where a task has its node; the head may be 0."""
    # 3.14 (0c740d0afc3b) gave signal_struct a list of threads; thread_group went with 6.7.
    if kernel.has("task_struct.thread_node"):
        offset = kernel.offset("task_struct.thread_node")
        signal = kernel.read(leader, "task_struct.signal")
        if signal == 0:  # released already: a zombie that is being reaped
            return 0, offset
        return signal + kernel.offset("signal_struct.thread_head"), offset
    if kernel.has("task_struct.thread_group"):
        offset = kernel.offset("task_struct.thread_group")
        return leader + offset, offset
    # Before 2.6.17 (47e65328a7b1): the second of its struct pids, PIDTYPE_TGID, has the list.
    if kernel.has("pid.pid_list"):
        offset = kernel.offset("task_struct.pids") + kernel.types.sizeof("pid")
        offset += kernel.offset("pid.pid_list")
        return leader + offset, offset
    return 0, 0
