"""The addresses of all tasks: the task list with its threads, and the table of pids."""

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from .._native import AbsentError, MemoryFault
from ..budget import Budget, BudgetExceededError
from . import pids
from .kernel import Kernel, LinkedList
from .structs import Structs, batches

#: Bytes of the smallest task_struct, in case that the types have a smaller one.
MIN_SIZE = 0x200
#: Thread groups whose lists are walked in one call.
THREAD_GROUPS = 1 << 14


def addresses(kernel: Kernel) -> list[int]:
    """Every task except the idle tasks of secondary CPUs; init_task first.

    If one list is damaged, the others are used; ``kernel.warnings`` says so.
    """
    budget = kernel.object_budget("tasks", _size(kernel))
    found: dict[int, None] = {}
    try:
        _add(found, _listed(kernel, found, budget.remaining), budget)
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


def _listed(kernel: Kernel, found: Container[int], limit: int) -> Iterator[int]:
    """Every task on the task list: the leader of each process, then its other threads.

    ``found`` are those of them that were used.
    """
    init_task = kernel.symbol("init_task")
    yield init_task
    # No more than are used.
    leaders = array("Q", islice(_leaders(kernel, init_task, limit), limit))
    groups = _Groups(kernel, leaders, limit)
    for leader, threads in zip(leaders, groups.threads(found), strict=True):
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


class _Groups:
    """The lists of threads of all groups, walked in batches: there may be a million.

    A thread belongs to one group: a list ends at a node of another one.
    """

    def __init__(self, kernel: Kernel, leaders: Sequence[int], limit: int) -> None:
        self._kernel = kernel
        self._leaders = leaders
        #: Entries of all lists together.
        self._left = limit + 1
        self._offset = _node_offset(kernel)
        #: Of each group the head of its list; 0 if it has none, or if it cannot be read.
        self._heads = array("Q")
        for batch in batches(leaders):
            self._heads.extend(_heads(kernel, batch))
        #: Sorted, if there are several batches.
        self._every = array("Q", sorted(self._heads) if len(leaders) > THREAD_GROUPS else ())

    def threads(self, found: Container[int]) -> Iterator[Iterator[int]]:
        """For each group its threads without the leader. ``found`` has those of earlier groups."""
        for start in range(0, len(self._leaders), THREAD_GROUPS):
            leaders = self._leaders[start : start + THREAD_GROUPS]
            heads = self._heads[start : start + THREAD_GROUPS]
            walked = self._kernel.lists([head for head in heads if head], max(self._left, 1))
            self._left -= sum(len(one.entries) for one in walked)
            each = iter(walked)
            for leader, head in zip(leaders, heads, strict=True):
                if head:
                    yield self._others(leader, next(each), found if start else ())
                else:
                    yield iter(())

    def _others(self, leader: int, threads: LinkedList, before: Container[int]) -> Iterator[int]:
        """The tasks on a group's list without its leader; ``before`` has those of other batches."""
        is_shared = threads.end == "shared"
        for node in threads.entries:
            task = self._kernel.containing(node, self._offset)
            if task == leader:
                continue
            if before and (task in before or self._is_head(node)):
                is_shared = True
                break
            yield task
        if is_shared:
            text = f"the thread list of the task at {leader:#x} runs into another thread group"
            self._kernel.warn(text)
        elif threads.problem is not None:
            self._kernel.warn(threads.problem)

    def _is_head(self, node: int) -> bool:
        """Whether a node is the head of a list that is not in a task."""
        at = bisect_left(self._every, node)
        return at < len(self._every) and self._every[at] == node


def _node_offset(kernel: Kernel) -> int:
    """The offset of a task's node in the list of threads."""
    # 3.14 (0c740d0afc3b) added the list in signal_struct; 6.7 removed thread_group.
    if kernel.has("task_struct.thread_node"):
        return kernel.offset("task_struct.thread_node")
    if kernel.has("task_struct.thread_group"):
        return kernel.offset("task_struct.thread_group")
    # Before 2.6.17 (47e65328a7b1): in the second struct pid of the task, PIDTYPE_TGID.
    if kernel.has("pid.pid_list"):
        offset = kernel.offset("task_struct.pids") + kernel.types.sizeof("pid")
        return offset + kernel.offset("pid.pid_list")
    return 0


def _heads(kernel: Kernel, leaders: Sequence[int]) -> Iterator[int]:
    """The head of each group's list of threads; 0 if it has none, or if it cannot be read."""
    if not kernel.has("task_struct.thread_node"):
        offset = _node_offset(kernel)
        for leader in leaders:
            yield (leader + offset) & kernel.last if offset else 0
        return
    head = kernel.offset("signal_struct.thread_head")
    structs = Structs(kernel, leaders, ["task_struct.signal"])
    for leader in leaders:
        try:
            signal = structs.read(leader, "task_struct.signal")
        except MemoryFault as fault:
            kernel.warn(f"the threads of the task at {leader:#x} cannot be read: {fault}")
            at = 0
        else:
            # Without one it was released: a zombie that is being reaped.
            at = (signal + head) & kernel.last if signal else 0
        yield at
