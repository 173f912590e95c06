"""Up to a million more tasks of a Linux 6.1, written as arrays.

They are copies of tasks that the kernel has already: of a process, its thread and a kernel thread.
Each has a ``task_struct``, a stack, a place in the lists and in the table of pids; each process has
an ``mm_struct``, each thread group a ``signal_struct``. To save space on disk, tasks share the
frames of the lower pages of their stacks, and those after ``DISTINCT_STACKS`` tasks also that of
the uppermost one: only page tables show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...memory.machine import PAGE
from ...memory.paging import ACCESSED, DIRTY, NX, PRESENT, USER, WRITE
from ..tasks import Task
from .functions import NOTHING
from .kernel import STACKS, Linux61

#: Of each eight tasks, four are kernel threads, one is a process, and three are its threads.
GROUP, LEADER = 8, 4
#: The kernel's own tasks of which these are copies.
KERNEL_THREAD, PROCESS, THREAD = "kworker/0:1H", "rsyslogd", "in:imuxsock"
#: Stacks whose uppermost page is their own.
DISTINCT_STACKS = 1 << 17
#: Pages of virtual memory from one stack to the next: four and a gap.
_STRIDE, _STACK_PAGES = 8, 4
#: Structs that are written at once.
_AT_ONCE = 1 << 14
#: Pages of the guest for each task, at most: its structs, its stack and its page tables.
PAGES_PER_TASK = 1.5
_SLOTS = 64
_DATA = PRESENT | WRITE | USER | ACCESSED | DIRTY | NX

Words = NDArray[np.uint64]

#: The table of pids (include/linux/pid_namespace.h, idr.h, xarray.h).
EXTRA = replace(
    NOTHING,
    types="""
struct xarray { spinlock_t xa_lock; unsigned int xa_flags; void *xa_head; };
struct xa_node { unsigned char shift, offset, count, nr_values; struct xa_node *parent;
    struct xarray *array; struct list_head private_list; void *slots[64];
    unsigned long tags[3]; };
struct idr { struct xarray idr_rt; unsigned int idr_base, idr_next; };
struct pid_namespace { struct idr idr; unsigned int pid_allocated;
    struct task_struct *child_reaper; unsigned int level; };
""",
    variables="struct pid_namespace init_pid_ns __data;\n",
)


@dataclass
class Structs:
    """Structs of one type in consecutive memory, and what differs from struct to struct."""

    name: str
    #: The address of each.
    at: Words
    stride: int
    #: Members by offset: their size in bytes, their value in each struct.
    members: dict[int, tuple[int, Words]] = field(default_factory=dict)

    def put(self, offset: int, values: Words, size: int = 8) -> None:
        """Sets a member."""
        self.members[offset] = (size, values)

    def link(self, offset: int, following: Words, before: Words) -> None:
        """Sets a ``list_head``."""
        self.put(offset, following)
        self.put(offset + 8, before)


class Crowd:
    """Tasks that are added to those of a kernel, after ``make_tasks``."""

    def __init__(self, kernel: Linux61, count: int, first_pid: int = 2000) -> None:
        self.kernel = kernel
        #: Whole groups only.
        self.count = -(-count // GROUP) * GROUP
        index = np.arange(self.count, dtype=np.uint64)
        kind = index % np.uint64(GROUP)
        self.pids = index + np.uint64(first_pid)
        #: Indices of the tasks that lead a group (kernel threads, too), and of processes.
        self.leaders = np.flatnonzero(kind <= LEADER)
        self.processes = np.flatnonzero(kind == LEADER)
        #: The index of each task's leader.
        self.leader = np.where(kind <= LEADER, index, index - kind + np.uint64(LEADER)).astype(int)
        self.kinds = tuple(
            (np.flatnonzero(chosen), next(t for t in kernel.tasks if t.job.comm == comm))
            for chosen, comm in (
                (kind < LEADER, KERNEL_THREAD),
                (kind == LEADER, PROCESS),
                (kind > LEADER, THREAD),
            )
        )
        self.tasks = self._new("task_struct", self.count)
        low = -(-(len(kernel.tasks) + len(kernel.idle)) // _SLOTS) * _SLOTS
        self.stacks = np.uint64(STACKS) + (np.uint64(low) + index) * np.uint64(_STRIDE * PAGE)
        self._describe()
        self._link_families()
        self._link_groups()
        self._give_memory()
        self._number()
        for chosen, like in self.kinds:
            self._write(self.tasks, like.address, chosen)
        self.frames = self._write_stacks()
        kernel.assign(nr_threads=len(kernel.tasks) + self.count, total_forks=int(self.pids[-1]))

    def _offset(self, path: str) -> int:
        return self.kernel.types.offset(path)

    def _word(self, at: int) -> int:
        return int.from_bytes(self.kernel.guest.read(at, 8), "little")

    def _new(self, name: str, count: int) -> Structs:
        """Allocates structs."""
        stride = -(-self.kernel.types.sizeof(name) // 64) * 64
        pages = max(-(-stride * count // PAGE), 1)
        first = self.kernel.direct(self.kernel.guest.allocate(pages))
        at = np.uint64(first) + np.arange(count, dtype=np.uint64) * np.uint64(stride)
        return Structs(name, at, stride)

    def _write(self, structs: Structs, like: int, chosen: NDArray[np.intp]) -> None:
        """Writes the chosen structs: copies of the one at ``like``, with their own members."""
        size = self.kernel.types.sizeof(structs.name)
        raw = np.frombuffer(self.kernel.guest.read(like, size), np.uint8)
        for part in _pieces(chosen):
            rows = np.tile(raw, (len(part), 1))
            for offset, (width, values) in structs.members.items():
                rows[:, offset : offset + width] = (
                    values[part].astype(np.uint64).view(np.uint8).reshape(-1, 8)[:, :width]
                )
            for at, row in zip(structs.at[part].tolist(), rows, strict=True):
                self.kernel.guest.write(at, row.tobytes())

    def _describe(self) -> None:
        """Pids, stacks and saved stack pointers."""
        tasks = self.tasks
        tasks.put(self._offset("task_struct.pid"), self.pids, 4)
        tasks.put(self._offset("task_struct.tgid"), self.pids[self.leader], 4)
        tasks.put(self._offset("task_struct.stack"), self.stacks)
        below = self._of_kind(lambda like: self._word(like.view.at("thread.sp")) - like.stack)
        tasks.put(self._offset("task_struct.thread.sp"), self.stacks + below)

    def _of_kind(self, value: Callable[[Task], int]) -> Words:
        """A value of the task of which each is a copy."""
        out = np.zeros(self.count, np.uint64)
        for chosen, like in self.kinds:
            out[chosen] = value(like)
        return out

    def _link_families(self) -> None:
        """The list of all leaders, and the lists of children: of init, and of kthreadd."""
        tasks = self.tasks
        at = self._offset("task_struct.tasks")
        self._splice(self.kernel.idle[0].view.at("tasks"), at, self.leaders)
        tasks.put(self._offset("task_struct.group_leader"), tasks.at[self.leader])
        parents = self._of_kind(lambda like: self._word(like.view.at("real_parent")))
        for member in ("real_parent", "parent"):
            tasks.put(self._offset(f"task_struct.{member}"), parents)
        children = tasks.at + np.uint64(self._offset("task_struct.children"))
        tasks.link(self._offset("task_struct.children"), children, children)
        sibling = self._offset("task_struct.sibling")
        for chosen, like in self.kinds[:2]:
            parent = self._word(like.view.at("real_parent"))
            self._splice(parent + self._offset("task_struct.children"), sibling, chosen)

    def _splice(self, head: int, offset: int, chosen: NDArray[np.intp]) -> None:
        """Appends the ``list_head``s at an offset in the chosen tasks to a list."""
        last = self._word(head + 8)
        nodes = self.tasks.at[chosen] + np.uint64(offset)
        columns = [
            self.tasks.members.get(at, (8, np.zeros(self.count, np.uint64)))[1]
            for at in (offset, offset + 8)
        ]
        columns[0][chosen] = [*nodes[1:], head]
        columns[1][chosen] = [last, *nodes[:-1]]
        self.tasks.link(offset, *columns)
        self.kernel.guest.write(last, int(nodes[0]).to_bytes(8, "little"))
        self.kernel.guest.write(head + 8, int(nodes[-1]).to_bytes(8, "little"))

    def _link_groups(self) -> None:
        """A signal_struct for each leader, with the list of the threads of its group."""
        tasks, leaders = self.tasks, self.leaders
        signals = self._new("signal_struct", len(leaders))
        rank = np.zeros(self.count, int)
        rank[leaders] = np.arange(len(leaders))
        tasks.put(self._offset("task_struct.signal"), signals.at[rank[self.leader]])
        is_process = leaders % GROUP == LEADER
        sizes = np.where(is_process, GROUP - LEADER, 1).astype(np.uint64)
        signals.put(self._offset("signal_struct.nr_threads"), sizes, 4)
        signals.put(self._offset("signal_struct.live"), sizes, 4)
        node = tasks.at + np.uint64(self._offset("task_struct.thread_node"))
        head = signals.at + np.uint64(self._offset("signal_struct.thread_head"))
        last = leaders + sizes.astype(int) - 1
        signals.link(self._offset("signal_struct.thread_head"), node[leaders], node[last])
        following, before = np.roll(node, -1), np.roll(node, 1)
        following[last], before[leaders] = head, head
        tasks.link(self._offset("task_struct.thread_node"), following, before)
        node = tasks.at + np.uint64(self._offset("task_struct.thread_group"))
        following, before = np.roll(node, -1), np.roll(node, 1)
        following[last], before[leaders] = node[leaders], node[last]
        tasks.link(self._offset("task_struct.thread_group"), following, before)
        like = self._word(self.kinds[0][1].view.at("signal"))
        self._write(signals, like, np.arange(len(leaders)))

    def _give_memory(self) -> None:
        """An mm_struct for each process; all of them have the same page tables."""
        spaces = self._new("mm_struct", len(self.processes))
        spaces.put(self._offset("mm_struct.owner"), self.tasks.at[self.processes])
        mine = np.zeros(self.count, np.uint64)
        mine[self.processes] = spaces.at
        mine = mine[self.leader]
        for member in ("mm", "active_mm"):
            self.tasks.put(self._offset(f"task_struct.{member}"), mine)
        like = self._word(self.kinds[1][1].view.at("mm"))
        self._write(spaces, like, np.arange(len(self.processes)))

    def _number(self) -> None:
        """A struct pid for each task of the kernel, in the radix tree of the first namespace."""
        kernel, tasks = self.kernel, self.tasks
        every = np.array([t.address for t in kernel.tasks] + tasks.at.tolist(), np.uint64)
        numbers = np.array([t.job.pid for t in kernel.tasks] + self.pids.tolist(), np.uint64)
        pids = self._new("pid", len(every))
        link = np.uint64(self._offset("task_struct.pid_links"))
        first = self._offset("pid.tasks")
        pids.put(first, every + link)
        pids.put(self._offset("pid.numbers"), numbers, 4)
        blank = kernel.new("pid")
        self._write(pids, blank.address, np.arange(len(every)))
        own = pids.at[len(kernel.tasks) :]
        tasks.put(self._offset("task_struct.thread_pid"), own)
        tasks.link(int(link), np.zeros(self.count, np.uint64), own + np.uint64(first))
        top = kernel.variable("init_pid_ns")
        top["idr.idr_rt.xa_head"] = self._tree(numbers, pids.at)
        top["pid_allocated"] = len(every)

    def _tree(self, numbers: Words, entries: Words) -> int:
        """Writes a radix tree; returns its head."""
        shift = 0
        while True:
            slots = np.zeros((int(numbers[-1]) // _SLOTS + 1) * _SLOTS, np.uint64)
            slots[numbers.astype(int)] = entries
            rows = slots.reshape(-1, _SLOTS)
            used = np.flatnonzero(rows.any(axis=1))
            nodes = self._new("xa_node", len(used))
            nodes.put(self._offset("xa_node.shift"), np.full(len(used), shift, np.uint64), 1)
            at = self._offset("xa_node.slots")
            for i in range(_SLOTS):
                nodes.put(at + 8 * i, rows[used, i])
            blank = self.kernel.new("xa_node")
            self._write(nodes, blank.address, np.arange(len(used)))
            # xa_mk_node()
            numbers, entries = used.astype(np.uint64), nodes.at | np.uint64(2)
            if len(used) == 1 and not used[0]:
                return int(entries[0])
            shift += 6

    def _write_stacks(self) -> Words:
        """Writes the uppermost pages of the stacks; returns the mfns of all pages of each."""
        guest = self.kernel.guest
        frames = np.zeros((self.count, _STRIDE), np.uint64)
        for chosen, like in self.kinds:
            mfns = [guest.mfn(guest.pfn_of(like.stack + i * PAGE)) for i in range(_STACK_PAGES)]
            frames[chosen, :_STACK_PAGES] = mfns
            own = chosen[chosen < DISTINCT_STACKS]
            top = like.stack + (_STACK_PAGES - 1) * PAGE
            words = np.frombuffer(guest.read(top, PAGE), np.uint64)
            # Saved frame pointers and the like.
            is_own = (words >= like.stack) & (words < like.stack + _STACK_PAGES * PAGE)
            first = guest.allocate(len(own))
            for part in _pieces(np.arange(len(own))):
                moved = self.stacks[own[part]] - np.uint64(like.stack)
                pages = np.where(is_own, words + moved[:, None], words)
                guest.write_pfn(first + int(part[0]), pages.tobytes())
            new = np.array([guest.mfn(first + i) for i in range(len(own))], np.uint64)
            frames[chosen, _STACK_PAGES - 1] = new[np.arange(len(chosen)) % len(own)]
        return frames

    def map_stacks(self) -> None:
        """Maps the stacks, after ``write_page_tables``."""
        tables = self.kernel.page_tables(self.kernel.root_address())
        entries = np.where(
            self.frames, self.frames * np.uint64(PAGE) | np.uint64(_DATA), np.uint64(0)
        )
        per_table = PAGE // 8 // _STRIDE
        for i in range(0, self.count, per_table):
            raw = entries[i : i + per_table].tobytes()
            frame = self.kernel.guest.machine.frame(tables.table(int(self.stacks[i]), 1))
            frame[: len(raw)] = raw


def _pieces(indices: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The indices in pieces of at most ``_AT_ONCE``."""
    for i in range(0, len(indices), _AT_ONCE):
        yield indices[i : i + _AT_ONCE]
