"""Who holds an RCU grace period: CPUs without a quiescent state, and tasks within a reader."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..._native import AbsentError, Frame
from ...limits import MAX_LIST_ENTRIES, MAX_LISTED_PROBLEMS, MAX_RCU_NODES
from ..kernel import Kernel
from ..tasks import Task
from .locks import Owner

#: Functions that wait for a grace period of RCU, and for an expedited one. Those of SRCU and of
#: RCU for tasks wait for others.
_WAITS = (
    r"_*(cond_)?synchronize_rcu(_normal|_expedited)?(\.|$)|synchronize_net(\.|$)|rcu_barrier(\.|$)"
)
_EXPEDITED = r"_*synchronize_rcu_expedited|_*rcu_exp_|exp_funnel_lock"
_OTHERS = r"_*synchronize_srcu|srcu_barrier|\w*_rcu_tasks"
#: rcu_state.gp_seq: its low bits are the phase, 0 between grace periods.
_PHASE = 3


class GracePeriod(NamedTuple):
    """The grace period of RCU at the moment of the crash."""

    #: Address of ``rcu_state``.
    address: int
    #: ``rcu_state.gp_seq`` as a signed number, as in messages about stalls.
    sequence: int
    expedited: bool
    in_progress: bool
    #: CPUs that have not passed a quiescent state.
    cpus: list[int]
    #: Tasks that were preempted within a reader.
    tasks: list[Task]

    def __str__(self) -> str:
        kind = "expedited grace period" if self.expedited else f"grace period {self.sequence}"
        if not self.in_progress:
            return f"no {'expedited ' if self.expedited else ''}grace period in progress"
        parts = []
        if self.cpus:
            parts.append(f"CPU{'s' if len(self.cpus) > 1 else ''} {_some(self.cpus)}")
        if self.tasks:
            pids = [task.pid for task in self.tasks]
            parts.append(f"task{'s' if len(pids) > 1 else ''} {_some(pids)}")
        return f"{kind}, held by {' and '.join(parts) or 'nobody any more'}"


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:MAX_LISTED_PROBLEMS]))
    return shown + (", ..." if len(numbers) > MAX_LISTED_PROBLEMS else "")


def waits(frames: Sequence[Frame]) -> bool | None:
    """Whether a stack waits for an expedited grace period; None if it waits for none."""
    names = [frame.symbol for frame in frames if frame.symbol is not None and not frame.user]
    if _is_in(_OTHERS, names) or not _is_in(_WAITS, names):
        return None
    return _is_in(_EXPEDITED, names)


def _is_in(pattern: str, names: Sequence[str]) -> bool:
    return any(re.match(pattern, name) for name in names)


def grace_period(kernel: Kernel, tasks: Mapping[int, Task], *, expedited: bool) -> GracePeriod:
    """The grace period in progress, and its blockers; AbsentError if it is not known.

    ``tasks`` are all tasks by their addresses.
    """
    # Before 4.20 there is one for each flavour of RCU, with other names.
    state = kernel.symbol("rcu_state")
    mask, first = ("expmask", "exp_tasks") if expedited else ("qsmask", "gp_tasks")
    cpus: list[int] = []
    blocked: list[Task] = []
    for node in _leaves(kernel, state):
        bits = kernel.read(node, f"rcu_node.{mask}")
        lowest, highest = (kernel.read(node, f"rcu_node.{n}") for n in ("grplo", "grphi"))
        cpus += [lowest + i for i in range(highest - lowest + 1) if bits >> i & 1]
        if kernel.has(f"rcu_node.{first}"):
            blocked += _blocked(kernel, tasks, node, kernel.read(node, f"rcu_node.{first}"))
    sequence = kernel.read(state, "rcu_state.gp_seq")
    if sequence > kernel.last // 2:
        # The first one of a boot is -300.
        sequence -= kernel.last + 1
    in_progress = bool(cpus or blocked) if expedited else bool(sequence & _PHASE)
    return GracePeriod(state, sequence, expedited, in_progress, cpus, blocked)


def _leaves(kernel: Kernel, state: int) -> Iterator[int]:
    """The ``struct rcu_node`` that CPUs belong to: those of the lowest level in use."""
    array = kernel.member("rcu_state.node")
    size = kernel.types.sizeof("rcu_node")
    count = min(array.size // size if size else 0, MAX_RCU_NODES)
    start = kernel.offset("rcu_state.node")
    nodes = [(state + start + i * size) & kernel.last for i in range(count)]
    levels = [kernel.read(node, "rcu_node.level") for node in nodes]
    for node, level in zip(nodes, levels, strict=True):
        lowest, highest = (kernel.read(node, f"rcu_node.{name}") for name in ("grplo", "grphi"))
        if level == max(levels) and 0 <= lowest <= highest < lowest + 8 * kernel.word:
            yield node


def _blocked(kernel: Kernel, tasks: Mapping[int, Task], node: int, first: int) -> Iterator[Task]:
    """The tasks in a node's list from the first one that holds the grace period on."""
    if not first:
        return
    offset = kernel.offset("task_struct.rcu_node_entry")
    (found,) = kernel.lists([node + kernel.offset("rcu_node.blkd_tasks")], MAX_LIST_ENTRIES)
    if found.problem is not None or first not in found.entries:
        raise AbsentError(f"the list of blocked tasks of the rcu_node at {node:#x} is damaged")
    for entry in found.entries[found.entries.index(first) :]:
        task = tasks.get(kernel.containing(entry, offset))
        if task is not None:
            yield task


def owner(found: GracePeriod, running: Mapping[int, Task]) -> Owner | None:
    """The task that has to act first: a reader, else what runs on a CPU that holds it.

    ``running`` are the tasks by the CPUs that they run on.
    """
    holders = len(found.cpus) + len(found.tasks)
    doubt = None if holders == 1 else f"one of {holders} that hold the grace period"
    if found.tasks:
        by = "rcu_node.exp_tasks" if found.expedited else "rcu_node.gp_tasks"
        return Owner(found.tasks[0], by, doubt)
    by = "rcu_node.expmask" if found.expedited else "rcu_node.qsmask"
    for cpu in found.cpus:
        task = running.get(cpu)
        # An idle CPU is in a quiescent state that nobody has noticed yet.
        if task is not None and not task.idle:
            where = f"it runs on CPU {cpu}, which has not passed a quiescent state"
            return Owner(task, by, where if doubt is None else f"{where}; {doubt}")
    return None
