"""Tasks with equal stacks."""

from collections.abc import Callable, Iterable, Sequence

from .._typing import NamedTuple
from .backtrace import Trace
from .tasks import Task

#: The orders of the groups, the default first.
SORTS = ("count", "pid", "cpu")


class Group(NamedTuple):
    """Tasks with equal stacks."""

    #: By pid.
    tasks: list[Task]
    #: The position of the first of them among the traces.
    first: int


def grouped(traces: Iterable[Trace], tasks: Sequence[Task], sort: str) -> list[Group]:
    """The groups; ``tasks`` are those of the traces, in the same order.

    Stacks are kept as digests: all frames together may exceed the memory of this process.
    """
    positions = {task.address: i for i, task in enumerate(tasks)}
    by_stack: dict[bytes, list[Task]] = {}
    for trace in traces:
        by_stack.setdefault(_digest(trace), []).append(trace.task)
    groups = []
    for members in by_stack.values():
        members.sort(key=lambda task: (task.pid, task.address))
        groups.append(Group(members, positions[members[0].address]))
    return sorted(groups, key=_ORDERS[sort])


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
