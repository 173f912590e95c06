"""The run queues of a kernel's CPUs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from .._native import AbsentError, MemoryFault
from ..isolation import isolated
from ..limits import (
    MAX_REALTIME_ENTITIES,
    MAX_RT_PRIORITIES,
    MAX_RUN_QUEUE_READ,
    MAX_TASK_GROUP_DEPTH,
)
from . import percpu, trees
from .kernel import Kernel
from .linked_structs import LinkedStructs, Places
from .structs import batches
from .tasks import Task, TaskStructs

_MAX_NAME = 256
#: From a task_group to the name of its cgroup, that of a kernfs_node since 3.15.
_NAMES = "task_group.css.cgroup", "cgroup.kn", "kernfs_node.name"


class Queued(NamedTuple):
    """A task in a run queue."""

    task: Task
    #: ``task_struct.prio``: 0 to 99 of a realtime task, 100 to 139 of a fair one.
    priority: int | None
    #: Whether its CPU runs it.
    current: bool = False


class Group(NamedTuple):
    """A task group with its run queue on one CPU."""

    #: Address of the struct task_group.
    address: int
    #: Address of its struct cfs_rq on this CPU.
    queue: int
    #: The name of its cgroup; empty if it has none.
    name: str
    throttled: bool


class Entry(NamedTuple):
    """A task or a task group in the hierarchy of a fair run queue."""

    depth: int
    item: Queued | Group


class RunQueue(NamedTuple):
    """The run queue of one CPU."""

    cpu: int
    #: Address of the struct rq.
    address: int
    #: The task that it runs; None if it cannot be read.
    current: Task | None
    #: Address of the rt_prio_array.
    realtime_queue: int
    realtime: Sequence[Queued]
    deadline: Sequence[Queued]
    #: Address of the struct cfs_rq, and of the root of its tree.
    fair_queue: int
    fair_root: int
    #: The fair tasks and their groups, also the task that runs: each group before its members.
    fair: Sequence[Entry]
    #: Whether all tasks could be read; if not, ``kernel.warnings`` says why.
    complete: bool


class Clock(NamedTuple):
    """The times of one CPU, in nanoseconds."""

    cpu: int
    #: ``rq.clock``, when the run queue was last updated.
    clock: int
    #: Since when the task runs; None if it is not known.
    arrival: int | None
    current: Task | None


class RunQueues:
    """Reads the run queues of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        variable = kernel.symbol("runqueues")
        self._complete = True
        #: The address of each CPU's struct rq.
        self.addresses = {
            cpu: variable + at & kernel.last for cpu, at in percpu.offsets(kernel).items()
        }
        self._entities = kernel.object_budget(
            "entities in run queues", kernel.types.sizeof("sched_entity")
        )
        self._tasks = Places(kernel.types.sizeof("task_struct"))

    @cached_property
    def _realtime_entities(self) -> LinkedStructs:
        return LinkedStructs(self._kernel, "sched_rt_entity.run_list", MAX_REALTIME_ENTITIES)

    @cached_property
    def root_group(self) -> int | None:
        """The address of the root task group; None without CONFIG_CGROUP_SCHED."""
        return self._kernel.symbols.get("root_task_group")

    def clocks(self, cpus: Sequence[int]) -> list[Clock]:
        """The times of these CPUs. AbsentError without CONFIG_SCHED_INFO or types."""
        kernel = self._kernel
        kernel.numeric("task_struct.sched_info.last_arrival")
        found = []
        for cpu in cpus:
            with isolated(f"the run queue of CPU {cpu} cannot be read", kernel.warn):
                current = self._current(cpu)
                clock = kernel.read(self.addresses[cpu], "rq.clock")
                arrival = None
                if current is not None:
                    with suppress(MemoryFault):
                        arrival = kernel.read(
                            current.address, "task_struct.sched_info.last_arrival"
                        )
                found.append(Clock(cpu, clock, arrival, current))
        return found

    def read(self, cpus: Sequence[int]) -> list[RunQueue]:
        """The run queues of these CPUs. What is damaged is left out with a warning."""
        kernel = self._kernel
        found = []
        with kernel.budget("run queues", MAX_RUN_QUEUE_READ):
            for cpu in cpus:
                with isolated(f"the run queue of CPU {cpu} cannot be read", kernel.warn):
                    found.append(self._read(cpu))
        return found

    def _read(self, cpu: int) -> RunQueue:
        kernel, address = self._kernel, self.addresses[cpu]
        self._complete = True
        current = self._current(cpu)
        running = 0 if current is None else current.address
        realtime = address + kernel.offset("rq.rt.active") & kernel.last
        fair = address + kernel.offset("rq.cfs") & kernel.last
        entities = self._fair(cpu, fair, running)
        self._warn_of_others(cpu, address)
        return RunQueue(
            cpu,
            address,
            current,
            realtime,
            self._queued(cpu, self._realtime(cpu, realtime, 0), running),
            self._queued(cpu, self._deadline(cpu, address), running),
            fair,
            fair + kernel.offset("cfs_rq.tasks_timeline") & kernel.last,
            entities,
            self._complete,
        )

    def _problem(self, text: str) -> None:
        """Warns that a run queue is not complete."""
        self._complete = False
        self._kernel.warn(text)

    def _current(self, cpu: int) -> Task | None:
        kernel = self._kernel
        address = kernel.read(self.addresses[cpu], "rq.curr")
        try:
            return TaskStructs(kernel, [address]).task(address, cpu, is_active=True)
        except MemoryFault as fault:
            kernel.warn(f"the current task of CPU {cpu} is not known: {fault}")
            return None

    def _queued(self, cpu: int, addresses: Sequence[int], running: int) -> list[Queued]:
        """The tasks at these addresses."""
        kernel, found = self._kernel, []
        for batch in batches(self._apart(cpu, addresses)):
            structs = TaskStructs(kernel, batch)
            for at in batch:
                what = f"a task in the run queue of CPU {cpu}, at {at:#x}, cannot be read"
                with isolated(what, self._problem, MemoryFault):
                    task = structs.task(at, cpu, is_active=at == running)
                    priority = kernel.read(at, "task_struct.prio")
                    found.append(Queued(task, priority, at == running))
        return found

    def _apart(self, cpu: int, addresses: Iterable[int]) -> Iterator[int]:
        """These tasks, up to one that overlaps another task."""
        for at in addresses:
            other = self._tasks.add(at)
            if other is not None:
                self._problem(
                    f"the tasks of CPU {cpu} are not complete: the task at {at:#x} overlaps that "
                    f"at {other:#x}"
                )
                return
            yield at

    # Realtime tasks

    def _realtime(self, cpu: int, array: int, depth: int) -> list[int]:
        """The tasks in an rt_prio_array, by priority, those of groups within."""
        kernel = self._kernel
        queue = kernel.member("rt_prio_array.queue")
        count = min(queue.count or 0, MAX_RT_PRIORITIES)
        step = 2 * kernel.word
        heads = [array + queue.offset + i * step for i in range(count)]
        entity = kernel.offset("task_struct.rt")
        groups = kernel.has("sched_rt_entity.my_q")  # with CONFIG_RT_GROUP_SCHED
        found: list[int] = []
        for one in self._realtime_entities.lists(heads):
            if one.problem is not None:
                self._problem(f"the realtime tasks of CPU {cpu} are not complete: {one.problem}")
            for start in self._entities.take(one.entries):
                below = kernel.read(start, "sched_rt_entity.my_q") if groups else 0
                if not below:
                    found.append(kernel.containing(start, entity))
                elif depth < MAX_TASK_GROUP_DEPTH:
                    inner = below + kernel.offset("rt_rq.active")
                    found += self._realtime(cpu, inner, depth + 1)
                else:
                    raise AbsentError(f"task groups are nested deeper than {MAX_TASK_GROUP_DEPTH}")
        return found

    # Deadline tasks

    def _deadline(self, cpu: int, queue: int) -> list[int]:
        """The tasks in the tree of deadline tasks (3.14, aab03e05e8f7)."""
        kernel = self._kernel
        if not kernel.has("rq.dl.root"):
            return []
        node, entity = kernel.offset("sched_dl_entity.rb_node"), kernel.offset("task_struct.dl")
        # 6.8, 63ba8422f876: entities that serve tasks of another class are no tasks.
        serves = kernel.has("sched_dl_entity.dl_server")
        found: list[int] = []
        with isolated(f"the deadline tasks of CPU {cpu} are not complete", self._problem):
            root = queue + kernel.offset("rq.dl.root")
            for one in self._entities.take(trees.walk(kernel, "rbtree", root)):
                start = kernel.containing(one.value, node)
                if not (serves and kernel.read(start, "sched_dl_entity.dl_server")):
                    found.append(kernel.containing(start, entity))
        return found

    def _warn_of_others(self, cpu: int, queue: int) -> None:
        """Tasks of BPF schedulers (6.12, f0e1a0643a59) are in queues that are not read."""
        with suppress(AbsentError):
            count = self._kernel.read(queue, "rq.scx.nr_running")
            if count:
                self._problem(
                    f"CPU {cpu} has {count} tasks of the class sched_ext, which are not listed"
                )

    # Fair tasks

    def _fair(self, cpu: int, queue: int, running: int) -> list[Entry]:
        """The hierarchy below a cfs_rq, as far as it can be read."""
        kernel = self._kernel
        places: list[tuple[int, int, bool]] = []
        with isolated(f"the fair tasks of CPU {cpu} are not complete", self._problem):
            # 7.3, 85570f10a4c6: one tree for the tasks of all groups.
            flat = kernel.has("cfs_rq.h_curr") and kernel.has("cfs_rq.rq")
            walk = self._flat(queue) if flat else self._nested(queue, 0)
            for place in walk:
                places.append(place)  # noqa: PERF402 - those before an error are kept
        entity = kernel.offset("task_struct.se")
        addresses = [kernel.containing(at, entity) for _, at, is_task in places if is_task]
        queued = {one.task.address: one for one in self._queued(cpu, addresses, running)}
        found: list[Entry] = []
        for depth, at, is_task in places:
            if is_task:
                task = queued.get(kernel.containing(at, entity))
                if task is not None:
                    found.append(Entry(depth, task))
            else:
                with isolated(f"a task group of CPU {cpu} cannot be read", self._problem):
                    found.append(Entry(depth, self._group(at)))
        return found

    def _entities_of(self, queue: int) -> Iterator[int]:
        """The entities in a cfs_rq: that which runs, which is not in the tree, and the others."""
        kernel = self._kernel
        current = kernel.read(queue, "cfs_rq.curr")
        if current:
            self._entities.spend(1)
            yield current
        node = kernel.offset("sched_entity.run_node")
        root = queue + kernel.offset("cfs_rq.tasks_timeline")
        for one in self._entities.take(trees.walk(kernel, "rbtree", root)):
            yield kernel.containing(one.value, node)

    def _nested(self, queue: int, depth: int) -> Iterator[tuple[int, int, bool]]:
        """Depth and address of each entity or group below a cfs_rq, and whether it is a task."""
        if depth > MAX_TASK_GROUP_DEPTH:
            raise AbsentError(f"task groups are nested deeper than {MAX_TASK_GROUP_DEPTH}")
        kernel = self._kernel
        groups = kernel.has("sched_entity.my_q")  # with CONFIG_FAIR_GROUP_SCHED
        for at in self._entities_of(queue):
            below = kernel.read(at, "sched_entity.my_q") if groups else 0
            if below:
                yield depth, below, False
                yield from self._nested(below, depth + 1)
            else:
                yield depth, at, True

    def _flat(self, queue: int) -> Iterator[tuple[int, int, bool]]:
        """The same where only tasks are queued: groups are found from each task upwards."""
        kernel = self._kernel
        #: Entities of each cfs_rq: address, and the group's own cfs_rq; 0 for a task.
        members: dict[int, list[tuple[int, int]]] = defaultdict(list)
        seen: set[int] = set()
        for lowest in self._entities_of(queue):
            at, is_task = lowest, True
            for _ in range(MAX_TASK_GROUP_DEPTH):
                if not at or at in seen:
                    break
                seen.add(at)
                owner = kernel.read(at, "sched_entity.cfs_rq")
                below = 0 if is_task else kernel.read(at, "sched_entity.my_q")
                members[owner].append((at, below))
                if owner == queue:
                    break
                at, is_task = kernel.read(at, "sched_entity.parent"), False
            else:
                raise AbsentError(f"task groups are nested deeper than {MAX_TASK_GROUP_DEPTH}")
        stack = [iter(members.pop(queue, ()))]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                continue
            at, below = following
            yield len(stack) - 1, below or at, not below
            if below:
                stack.append(iter(members.pop(below, ())))
        lost = sum(not below for rest in members.values() for _, below in rest)
        if lost:
            raise AbsentError(f"{lost} tasks are in groups that do not lead to {queue:#x}")

    def _group(self, queue: int) -> Group:
        kernel = self._kernel
        group = kernel.read(queue, "cfs_rq.tg")
        throttled = False
        if kernel.has("cfs_rq.throttled"):  # with CONFIG_CFS_BANDWIDTH
            throttled = bool(kernel.read(queue, "cfs_rq.throttled"))
        return Group(group, queue, self._group_name(group), throttled)

    def _group_name(self, group: int) -> str:
        kernel = self._kernel
        if not group or not all(map(kernel.has, _NAMES)):
            return ""
        with isolated(f"the name of the task group at {group:#x} is not known", kernel.warn):
            cgroup = kernel.read(group, _NAMES[0])
            if not cgroup:
                return ""
            node = kernel.read(cgroup, _NAMES[1])
            return kernel.string(kernel.read(node, _NAMES[2]), _MAX_NAME)
        return "?"
