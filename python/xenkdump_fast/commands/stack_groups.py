"""``bt --group``: tasks with equal stacks, each stack once."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, NotRequired, TypedDict

from ..linux.backtrace import Trace
from ..linux.tasks import Task
from ..output.escape import visible
from ..output.frames import place
from ..output.json_types import Count, Hex

#: Tasks that the heading of a group names.
MAX_NAMED = 8
#: The orders of the groups, the default first.
SORTS = ("count", "pid", "cpu")


class Group(NamedTuple):
    """Tasks with equal stacks."""

    #: By pid.
    tasks: list[Task]
    #: The position of the first of them among the traces.
    first: int


class FrameJson(TypedDict):
    """A frame that several stacks have."""

    pc: Hex
    symbol: str | None
    offset: Count
    guess: bool
    interrupted: bool
    module: NotRequired[str]


class MemberJson(TypedDict):
    """A task of a group."""

    pid: int
    task: Hex
    cpu: Count
    comm: str


class GroupJson(TypedDict):
    """Tasks with equal stacks; ``user`` if they entered the kernel from user space."""

    count: Count
    tasks: list[MemberJson]
    frames: list[FrameJson]
    user: bool
    why: NotRequired[str]


def grouped(traces: Sequence[Trace], tasks: Sequence[Task], sort: str) -> list[Group]:
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


def text(groups: Sequence[Group], traces: Sequence[Trace], word: int) -> Iterator[str]:
    """A heading with the count and the tasks, then the frames; empty lines between groups."""
    for i, group in enumerate(groups):
        if i:
            yield ""
        named = [f"{task.pid} ({visible(task.comm)})" for task in group.tasks[:MAX_NAMED]]
        if len(group.tasks) > MAX_NAMED:
            named.append(f"and {len(group.tasks) - MAX_NAMED} more")
        yield f"COUNT: {len(group.tasks):<5}  PIDS: {', '.join(named)}"
        yield from _frames(traces[group.first], word)


def _frames(trace: Trace, word: int) -> Iterator[str]:
    number = 0
    for frame in trace.frames:
        mark = "  (guess)" if frame.guess else ""
        if frame.user:
            yield "    [user space]"
        elif frame.interrupted:
            yield f"    [exception RIP: {place(frame)}]{mark}"
        else:
            name = "(unknown)" if frame.symbol is None else place(frame)
            module = "" if frame.module is None else f" [{frame.module}]"
            yield f"{f'#{number}':>3} {name} at {frame.pc:0{word * 2}x}{module}{mark}"
            number += 1
    if trace.stopped:
        yield f"    ({trace.stopped})"


def json(groups: Sequence[Group], traces: Sequence[Trace]) -> Iterator[GroupJson]:
    """The groups with all their tasks."""
    for group in groups:
        trace = traces[group.first]
        found: GroupJson = {
            "count": len(group.tasks),
            "tasks": [
                {"pid": task.pid, "task": hex(task.address), "cpu": task.cpu, "comm": task.comm}
                for task in group.tasks
            ],
            "frames": list(_frames_json(trace)),
            "user": any(frame.user for frame in trace.frames),
        }
        if trace.stopped is not None:
            found["why"] = trace.stopped
        yield found


def _frames_json(trace: Trace) -> Iterator[FrameJson]:
    for frame in trace.frames:
        if frame.user:
            continue
        found: FrameJson = {
            "pc": hex(frame.pc),
            "symbol": frame.symbol,
            "offset": frame.offset,
            "guess": frame.guess,
            "interrupted": frame.interrupted,
        }
        if frame.module is not None:
            found["module"] = frame.module
        yield found
