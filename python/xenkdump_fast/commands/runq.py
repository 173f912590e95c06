"""``runq``: the run queues of a kernel's CPUs, or of Xen's scheduler."""

import argparse
from collections.abc import Iterator, Sequence

from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..linux.run_queues import Clock, Entry, Group, Queued, RunQueue, RunQueues
from ..linux.tasks import Task
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..session import Domain
from . import cpu_lists, sched
from .contract import UsageError

if TYPE_CHECKING:
    from ..xen.host import XenHost

_EMPTY, _PARTIAL = "     [no tasks queued]", "     [not complete]"
_SECOND = 1_000_000_000


class Options(NamedTuple):
    """What to show of which CPUs."""

    #: The times of the run queues and of the tasks that run.
    timestamps: bool = False
    #: How far the run queues are behind the latest one.
    lag: bool = False
    #: For how long the tasks run.
    elapsed: bool = False
    #: The task groups of fair tasks.
    groups: bool = False
    #: CPUs as in "0,3-4"; None for all.
    cpus: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``runq``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "-t",
        "--timestamps",
        action="store_true",
        help="when each run queue was updated, and since when its task runs",
    )
    what.add_argument(
        "-T",
        "--lag",
        action="store_true",
        help="how far each run queue is behind the latest one",
    )
    what.add_argument(
        "-m", "--elapsed", action="store_true", help="for how long each CPU's task runs"
    )
    what.add_argument("-g", "--groups", action="store_true", help="by task groups")
    parser.add_argument("-c", "--cpus", metavar="CPUS", help="only these CPUs, as in 0,3-4")


HYPERVISOR_JSON = sched.JSON


def run(
    target: "Domain | XenHost", options: Options = Options()
) -> "Times | Queues | sched.RunQueues":
    """Reads the run queues. AbsentError if the types are not known or there is no such CPU."""
    if not isinstance(target, Domain):
        if options != Options():
            raise UsageError("-t, -T, -m, -g and -c are not available with --hypervisor")
        return sched.of_host(target)
    queues = RunQueues(target.kernel)
    cpus = cpu_lists.chosen(options.cpus, queues.addresses)
    if sum((options.timestamps, options.lag, options.elapsed, options.groups)) > 1:
        raise UsageError("only one of -t, -T, -m and -g")
    if options.timestamps or options.lag or options.elapsed:
        order = "timestamps" if options.timestamps else "lag" if options.lag else "elapsed"
        return Times(target.id, order, queues.clocks(cpus))
    return Queues(target.id, queues.root_group, queues.read(cpus), options.groups)


class TaskJson(TypedDict):
    """A task. ``priority`` is that of the kernel: 0 to 99 of a realtime task."""

    pid: Count
    task: Hex
    comm: str
    priority: NotRequired[int | None]


class EntryJson(TypedDict):
    """A fair task or a task group; ``depth`` is that in the hierarchy of groups."""

    depth: Count
    task: NotRequired[TaskJson]
    group: NotRequired[Hex]
    cfs_rq: NotRequired[Hex]
    name: NotRequired[str]
    throttled: NotRequired[bool]


class CpuJson(TypedDict):
    """A CPU: its queues, or with ``-t``, ``-T`` and ``-m`` its times in nanoseconds."""

    cpu: Count
    current: TaskJson | None
    rq: NotRequired[Hex]
    realtime: NotRequired[list[TaskJson]]
    deadline: NotRequired[list[TaskJson]]
    fair: NotRequired[list[EntryJson]]
    complete: NotRequired[bool]
    clock: NotRequired[Count]
    last_arrival: NotRequired[Count | None]


class JSON(TypedDict):
    """What ``runq --json`` prints."""

    domain: Count
    cpus: list[CpuJson]


class Queues(NamedTuple):
    """The tasks in the run queues."""

    domain: int
    root_group: int | None
    queues: Sequence[RunQueue]
    groups: bool

    def text(self) -> Iterator[str]:
        """As crash prints them."""
        for i, queue in enumerate(self.queues):
            if i:
                yield ""
            yield from self._by_group(queue) if self.groups else _by_class(queue)

    def _by_group(self, queue: RunQueue) -> Iterator[str]:
        yield f"CPU {queue.cpu}"
        yield f"  CURRENT: {_task(queue.current)}"
        if self.root_group is None:
            yield f"  CFS_RQ: {queue.fair_queue:x}"
        else:
            yield f"  ROOT_TASK_GROUP: {self.root_group:x}  CFS_RQ: {queue.fair_queue:x}"
        yield from map(_entry, queue.fair)
        yield from _end(queue, queue.fair)

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "cpus": [_queue_json(queue) for queue in self.queues]}


def _by_class(queue: RunQueue) -> Iterator[str]:
    yield f"CPU {queue.cpu} RUNQUEUE: {queue.address:x}"
    yield f"  CURRENT: {_task(queue.current)}"
    if queue.deadline:
        yield "  DEADLINE:"
        yield from map(_queued, queue.deadline)
    yield f"  RT PRIO_ARRAY: {queue.realtime_queue:x}"
    yield from map(_queued, queue.realtime)
    yield from _end(queue, queue.realtime)
    yield f"  CFS RB_ROOT: {queue.fair_root:x}"
    fair = [one.item for one in queue.fair if isinstance(one.item, Queued)]
    waiting = [one for one in fair if not one.current]
    yield from map(_queued, waiting)
    yield from _end(queue, waiting)


def _end(queue: RunQueue, listed: Sequence[object]) -> Iterator[str]:
    """What follows the tasks of one class."""
    if not queue.complete:
        yield _PARTIAL
    elif not listed:
        yield _EMPTY


def _task(task: Task | None) -> str:
    if task is None:
        return "(unknown)"
    return f'PID: {task.pid:<5}  TASK: {task.address:x}  COMMAND: "{visible(task.comm)}"'


def _queued(queued: Queued, indent: int = 5) -> str:
    priority = "  ?" if queued.priority is None else f"{queued.priority:3}"
    return f"{'':{indent}}[{priority}] {_task(queued.task)}"


def _entry(entry: Entry) -> str:
    indent, item = 5 + 3 * entry.depth, entry.item
    if isinstance(item, Queued):
        return _queued(item, indent) + (" [CURRENT]" if item.current else "")
    name = f" <{visible(item.name)}>" if item.name else ""
    throttled = " (THROTTLED)" if item.throttled else ""
    return f"{'':{indent}}TASK_GROUP: {item.address:x}  CFS_RQ: {item.queue:x} {name}{throttled}"


class Times(NamedTuple):
    """When run queues were updated, and since when tasks run."""

    domain: int
    #: What the text has: ``timestamps``, ``lag`` or ``elapsed``.
    order: str
    clocks: Sequence[Clock]

    def text(self) -> Iterator[str]:
        """As crash prints them."""
        if self.order == "lag":
            yield from self._lag()
            return
        width = max((len(str(one.cpu)) for one in self.clocks), default=1)
        times = [one.clock for one in self.clocks]
        times += [one.arrival for one in self.clocks if one.arrival is not None]
        digits = max((len(str(time)) for time in times), default=1)
        for one in self.clocks:
            if self.order == "timestamps":
                yield f" CPU {one.cpu:{width}}: {one.clock:0{digits}}"
                arrival = "?" if one.arrival is None else f"{one.arrival:0{digits}}"
                yield f"        {arrival:>{digits}}  {_task(one.current)}"
            else:
                yield f" CPU {one.cpu:{width}}: [{_elapsed(one)}]  {_task(one.current)}"

    def _lag(self) -> Iterator[str]:
        latest = max((one.clock for one in self.clocks), default=0)
        width = max((len(str(one.cpu)) for one in self.clocks), default=1)
        for one in sorted(self.clocks, key=lambda one: one.clock, reverse=True):
            yield f"  CPU {one.cpu:{width}}: {(latest - one.clock) / _SECOND:.2f} secs"

    def json(self) -> JSON:
        """The times in nanoseconds."""
        return {
            "domain": self.domain,
            "cpus": [
                {
                    "cpu": one.cpu,
                    "current": None if one.current is None else _task_json(one.current),
                    "clock": one.clock,
                    "last_arrival": one.arrival,
                }
                for one in self.clocks
            ],
        }


def _elapsed(one: Clock) -> str:
    """Days, hours, minutes, seconds and milliseconds."""
    if one.arrival is None:
        return "?"
    seconds, rest = divmod(max(one.clock - one.arrival, 0), _SECOND)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} {hours:02}:{minutes:02}:{seconds:02}.{rest // 1_000_000:03}"


def _task_json(task: Task) -> TaskJson:
    return {"pid": task.pid, "task": hex(task.address), "comm": task.comm}


def _queued_json(queued: Queued) -> TaskJson:
    return {**_task_json(queued.task), "priority": queued.priority}


def _entry_json(entry: Entry) -> EntryJson:
    item = entry.item
    if isinstance(item, Group):
        return {
            "depth": entry.depth,
            "group": hex(item.address),
            "cfs_rq": hex(item.queue),
            "name": item.name,
            "throttled": item.throttled,
        }
    return {"depth": entry.depth, "task": _queued_json(item)}


def _queue_json(queue: RunQueue) -> CpuJson:
    return {
        "cpu": queue.cpu,
        "current": None if queue.current is None else _task_json(queue.current),
        "rq": hex(queue.address),
        "realtime": [_queued_json(one) for one in queue.realtime],
        "deadline": [_queued_json(one) for one in queue.deadline],
        "fair": [_entry_json(one) for one in queue.fair],
        "complete": queue.complete,
    }
