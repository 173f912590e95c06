"""Tasks with equal stacks."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from .._typing import NamedTuple
from .backtrace import Trace
from .tasks import Task

#: The orders of the groups, the default first.
SORTS = ("count", "pid", "cpu")


class Group(NamedTuple):
    """Tasks with equal stacks."""

    #: By pid.
    tasks: Sequence[Task]
    #: The position of the first of them among the traces.
    first: int


def grouped(traces: Iterable[Trace], tasks: Sequence[Task], sort: str) -> list[Group]:
    """The groups; ``tasks`` are those of the traces, in the same order.

    Stacks are kept as digests, tasks as positions: all frames together, and a million tasks, may
    exceed the memory of this process.
    """
    from .task_table import Rows  # not needed by other backtraces

    by_stack: dict[bytes, array[int]] = {}
    position = 0
    for trace in traces:
        # A task without a trace was left out.
        while tasks[position].address != trace.task.address:
            position += 1
        by_stack.setdefault(_digest(trace), array("L")).append(position)
        position += 1
    groups = []
    for digest in list(by_stack):
        rows = _by_number(by_stack.pop(digest), tasks)
        groups.append(Group(Rows(tasks, rows), rows[0]))
    return sorted(groups, key=_ORDERS[sort])


def _by_number(rows: "array[int]", tasks: Sequence[Task]) -> "array[int]":
    """Positions of tasks by pid, then by address; they may be so already."""

    def key(row: int) -> tuple[int, int]:
        task = tasks[row]
        return task.pid, task.address

    if all(a <= b for a, b in pairwise(map(key, rows))):
        return rows
    return array("L", sorted(rows, key=key))


def _by_count(group: Group) -> tuple[int, ...]:
    return (-len(group.tasks), *_by_pid(group))


def _by_pid(group: Group) -> tuple[int, ...]:
    return group.tasks[0].pid, group.tasks[0].address


def _by_cpu(group: Group) -> tuple[int, ...]:
    return (min(task.cpu for task in group.tasks), *_by_pid(group))


_ORDERS: dict[str, Callable[[Group], tuple[int, ...]]] = {
    "count": _by_count,
    "pid": _by_pid,
    "cpu": _by_cpu,
}


def _digest(trace: Trace) -> bytes:
    """Equal for equal stacks.

    These have the same return addresses, which are the same symbols and offsets, with the same
    marks, and end for the same reason. Stack pointers, registers and the place in user space may
    differ.
    """
    from hashlib import blake2b  # it loads OpenSSL

    found = blake2b(digest_size=16)
    for frame in trace.frames:
        if frame.user:
            found.update(b"user;")
        else:
            found.update(b"%x,%d,%d;" % (frame.pc, frame.guess, frame.interrupted))
    found.update((trace.stopped or "").encode("utf-8", "surrogateescape"))
    return found.digest()
