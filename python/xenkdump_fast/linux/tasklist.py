"""The addresses of all tasks: the task list with its threads, and the table of pids."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from .._native import AbsentError, MemoryFault
from ..budget import Budget, BudgetExceededError
from . import pids
from .kernel import Kernel, LinkedList
from .structs import Structs

#: Bytes of the smallest task_struct, in case that the types have a smaller one.
MIN_SIZE = 0x200


def addresses(kernel: Kernel) -> list[int]:
    """Every task except the idle tasks of secondary CPUs; init_task first.

    If one list is damaged, the others are used; ``kernel.warnings`` says so.
    """
    budget = kernel.object_budget("tasks", _size(kernel))
    found: dict[int, None] = {}
    try:
        _add(found, _listed(kernel, budget.remaining), budget)
        _add_by_pid(kernel, found, budget)
    except BudgetExceededError as error:
        kernel.warn(f"{error}: using the first {len(found)}")
    return list(found)


def _add_by_pid(kernel: Kernel, found: dict[int, None], budget: Budget) -> None:
    """Adds the tasks that only the table of pids has."""
    listed = len(found)
    try:
        _add(found, pids.tasks(kernel), budget)
    except BudgetExceededError:
        raise
    except AbsentError:
        _check_count(kernel, listed - 1)  # no types: no layout of the table
    finally:
        if len(found) > listed:
            more = len(found) - listed
            kernel.warn(f"the task list lacks {more} tasks, which the table of pids has")


def _check_count(kernel: Kernel, found: int) -> None:
    """Warns if the kernel counts more tasks than were found; idle tasks are not counted."""
    with suppress(AbsentError, MemoryFault):
        counted = kernel.variable("nr_threads", 4)
        if found < counted:
            kernel.warn(
                f"tasks are missing: the kernel counts {counted} of them, {found} were found"
            )


def _size(kernel: Kernel) -> int:
    try:
        return max(kernel.types.sizeof("task_struct"), MIN_SIZE)
    except AbsentError:
        return MIN_SIZE


def _add(found: dict[int, None], addresses: Iterable[int], budget: Budget) -> None:
    """Adds those that are not in it."""
    for address in addresses:
        if address not in found:
            budget.spend(1)
            found[address] = None


def _listed(kernel: Kernel, limit: int) -> Iterator[int]:
    """Every task on the task list: the leader of each process, then its other threads."""
    init_task = kernel.symbol("init_task")
    yield init_task
    # No more than are used.
    leaders = list(islice(_leaders(kernel, init_task, limit), limit))
    for leader, threads in zip(leaders, _threads(kernel, leaders, limit), strict=True):
        yield leader
        yield from threads


def _leaders(kernel: Kernel, init_task: int, limit: int) -> Iterator[int]:
    offset = kernel.offset("task_struct.tasks")
    head = init_task + offset
    last = head
    found = set()
    for node in kernel.list(head, limit):
        last = node
        found.add(node)
        yield kernel.containing(node, offset)
    try:
        if kernel.pointer(head + kernel.word) == last:
            return
    except MemoryFault:
        return
    # The walk did not reach the end of the list: walk it backward, too.
    rest = []
    for node in kernel.list(head, limit, backward=True):
        if node in found:
            break
        rest.append(kernel.containing(node, offset))
    yield from reversed(rest)


def _threads(kernel: Kernel, leaders: list[int], limit: int) -> Iterator[Iterator[int]]:
    """For each group its threads without the leader.

    A thread belongs to one group: a list ends at a node of another one.
    """
    offset, heads = _thread_lists(kernel, leaders)
    walked = dict(zip(heads, kernel.lists(list(heads.values()), limit + 1), strict=True))
    for leader in leaders:
        # Each list is freed once it was used: there may be a million.
        yield _others(kernel, leader, offset, walked.pop(leader, None))


def _others(kernel: Kernel, leader: int, offset: int, threads: LinkedList | None) -> Iterator[int]:
    """The tasks on a group's list of threads without its leader."""
    if threads is None:
        return
    for node in threads.entries:
        task = kernel.containing(node, offset)
        if task != leader:
            yield task
    if threads.end == "shared":
        kernel.warn(f"the thread list of the task at {leader:#x} runs into another thread group")
    elif threads.problem is not None:
        kernel.warn(threads.problem)


def _thread_lists(kernel: Kernel, leaders: list[int]) -> tuple[int, dict[int, int]]:
    """The offset of a task's node in the list of threads, and the head of each group's list."""
    # 3.14 (0c740d0afc3b) added the list in signal_struct; 6.7 removed thread_group.
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
            if signal:  # else it was released: a zombie that is being reaped
                heads[leader] = signal + head
        return offset, heads
    if kernel.has("task_struct.thread_group"):
        offset = kernel.offset("task_struct.thread_group")
    # Before 2.6.17 (47e65328a7b1): in the second struct pid of the task, PIDTYPE_TGID.
    elif kernel.has("pid.pid_list"):
        offset = kernel.offset("task_struct.pids") + kernel.types.sizeof("pid")
        offset += kernel.offset("pid.pid_list")
    else:
        return 0, {}
    return offset, {leader: leader + offset for leader in leaders}
