"""Where tasks are listed: the task list and its threads, and the table of pids beside them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from .._native import AbsentError, MemoryFault
from . import pids
from .kernel import Kernel, LinkedList
from .structs import Structs

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
    # No more than can be used: what the list says of the rest does not matter then.
    leaders = list(islice(_leaders(kernel, init_task, room), room))
    for leader, threads in zip(leaders, _threads(kernel, leaders, room), strict=True):
        yield leader
        yield from threads


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


def _threads(kernel: Kernel, leaders: list[int], room: int) -> Iterator[Iterator[int]]:
    """For each group its threads but the leader.

    A thread belongs to one group: what follows a node of another was told with that one.
    """
    offset, heads = _thread_lists(kernel, leaders)
    walked = dict(zip(heads, kernel.lists(list(heads.values()), room + 1), strict=True))
    for leader in leaders:
        yield _others(kernel, leader, offset, walked.get(leader))


def _others(kernel: Kernel, leader: int, offset: int, threads: LinkedList | None) -> Iterator[int]:
    """The tasks on a group's list of threads but its leader."""
    if threads is None:
        return
    for node in threads.entries:
        task = kernel.containing(node, offset)
        if task != leader:
            yield task
    if threads.end == "shared":
        kernel.warn(f"the threads of the task at {leader:#x} go on in another group's")
    elif threads.problem is not None:
        kernel.warn(threads.problem)


def _thread_lists(kernel: Kernel, leaders: list[int]) -> tuple[int, dict[int, int]]:
    """Where a task has its node in its group's list of threads, and the head of each list."""
    # 3.14 (0c740d0afc3b) gave signal_struct a list of threads; thread_group went with 6.7.
    if kernel.has("task_struct.thread_node"):
        offset = kernel.offset("task_struct.thread_node")
        head = kernel.offset("signal_struct.thread_head")
        structs = Structs(kernel, leaders, ["task_struct.signal"])
        heads = {}
        for leader in leaders:
            try:
                signal = structs.read(leader, "task_struct.signal")
            except MemoryFault as fault:
                kernel.warn(f"the threads of the task at {leader:#x} cannot be read: {fault}")
                continue
            if signal:  # else released already: a zombie that is being reaped
                heads[leader] = signal + head
        return offset, heads
    if kernel.has("task_struct.thread_group"):
        offset = kernel.offset("task_struct.thread_group")
    # Before 2.6.17 (47e65328a7b1): the second of its struct pids, PIDTYPE_TGID, has the list.
    elif kernel.has("pid.pid_list"):
        offset = kernel.offset("task_struct.pids") + kernel.types.sizeof("pid")
        offset += kernel.offset("pid.pid_list")
    else:
        return 0, {}
    return offset, {leader: leader + offset for leader in leaders}
