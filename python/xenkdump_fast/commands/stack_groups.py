"""``bt --group``: tasks with equal stacks, each stack once."""

from collections.abc import Iterator, Sequence

from .._typing import NotRequired, TypedDict
from ..linux.backtrace import Trace
from ..linux.stack_groups import Group
from ..linux.tasks import Task
from ..output.escape import visible
from ..output.frames import place
from ..output.json_types import Count, Hex, Stream

#: Tasks that the heading of a group names.
MAX_NAMED = 8


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
    tasks: Stream[MemberJson]
    frames: list[FrameJson]
    user: bool
    why: NotRequired[str]


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
            "tasks": map(_member_json, group.tasks),
            "frames": list(_frames_json(trace)),
            "user": any(frame.user for frame in trace.frames),
        }
        if trace.stopped is not None:
            found["why"] = trace.stopped
        yield found


def _member_json(task: Task) -> MemberJson:
    return {"pid": task.pid, "task": hex(task.address), "cpu": task.cpu, "comm": task.comm}


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
