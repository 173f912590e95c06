"""Run queues: groups, classes and damage."""

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, words
from tests.linux.objects import overlapping
from xenkdump_fast import AbsentError
from xenkdump_fast.linux.run_queues import Group, Queued, RunQueue, RunQueues

RQ = 0xFFFF888000010000
CFS, DL, RT = 0x200, 0x300, 0x400
#: Of the structs of tasks, groups and cgroups.
TASKS, GROUPS = 0xFFFF888000020000, 0xFFFF888000030000
SIZE = 0x200
SE, RT_SE, DL_SE = 0x40, 0xA0, 0xC0


def word(offset: int) -> FakeMember:
    return FakeMember(offset, 8)


LAYOUT: dict[str, int | FakeMember] = {
    "rq.curr": word(0),
    "rq.clock": word(8),
    "rq.cfs": word(CFS),
    "rq.dl.root": word(DL),
    "rq.rt.active": word(RT),
    "rq.scx.nr_running": FakeMember(16, 4),
    "cfs_rq.curr": word(0),
    "cfs_rq.tasks_timeline": word(8),
    "cfs_rq.tg": word(16),
    "cfs_rq.throttled": FakeMember(24, 4),
    "task_group.css.cgroup": word(0),
    "cgroup.kn": word(0),
    "kernfs_node.name": word(0),
    "rt_prio_array.queue": FakeMember(0, 16 * 3, count=3),
    "sched_entity": 0x60,
    "sched_entity.run_node": word(0),
    "sched_entity.my_q": word(0x18),
    "sched_entity.cfs_rq": word(0x20),
    "sched_entity.parent": word(0x28),
    "sched_rt_entity": 0x20,
    "sched_rt_entity.run_list": word(0),
    "sched_dl_entity.rb_node": word(0),
    "sched_dl_entity.dl_server": FakeMember(0x18, 4),
    "rb_root.rb_node": word(0),
    "rb_node.__rb_parent_color": word(0),
    "rb_node.rb_right": word(8),
    "rb_node.rb_left": word(16),
    "task_struct": SIZE,
    "task_struct.pid": FakeMember(0),
    "task_struct.tgid": FakeMember(4),
    "task_struct.prio": FakeMember(8),
    "task_struct.comm": FakeMember(16, 16),
    "task_struct.stack": word(32),
    "task_struct.se": word(SE),
    "task_struct.rt": word(RT_SE),
    "task_struct.dl": word(DL_SE),
    "task_struct.sched_info.last_arrival": word(0x180),
}


class Made:
    """A kernel with one CPU, whose queues tests fill."""

    def __init__(self, *without: str, **more: int | FakeMember) -> None:
        layout = {name: at for name, at in LAYOUT.items() if name not in without}
        self.kernel = FakeKernel({"runqueues": RQ}, {**layout, **more})
        self.memory = self.kernel.memory
        self.memory.write(RQ, bytes(0x1000))
        self.memory.write(GROUPS, bytes(0x1000))
        for i in range(3):
            head = RQ + RT + 16 * i
            self.memory.write(head, words(8, head, head))
        for pid in range(8):
            at = TASKS + SIZE * pid
            self.memory.write(at, bytes(SIZE))
            self.memory.write(at, words(4, pid, pid, 120))
            self.memory.write(at + 16, b"task%d\0" % pid)
        self.memory.number(RQ, self.task(0), 8)

    def task(self, pid: int) -> int:
        return TASKS + SIZE * pid

    def queue(self, root: int, nodes: list[int]) -> None:
        """A tree of these nodes: each the right child of the one before."""
        for at, below in zip([root, *nodes], [*nodes, 0], strict=True):
            self.memory.number(at if at == root else at + 8, below, 8)
            if below:
                self.memory.number(below, 0 if at == root else at, 8)

    def read(self) -> RunQueue:
        (found,) = RunQueues(self.kernel).read([0])
        return found


def shown(queue: RunQueue) -> list[tuple[int, int | str]]:
    return [
        (one.depth, one.item.task.pid if isinstance(one.item, Queued) else one.item.name)
        for one in queue.fair
    ]


def with_groups() -> Made:
    """Tasks 1 and 2, and between them a group with the task 3."""
    made = Made()
    group, inner = GROUPS, GROUPS + 0x100
    entity = GROUPS + 0x200
    made.memory.number(entity + 0x18, inner, 8)
    made.queue(RQ + CFS + 8, [made.task(1) + SE, entity, made.task(2) + SE])
    made.queue(inner + 8, [made.task(3) + SE])
    made.memory.write(inner + 16, words(8, group, 1))
    for i, at in enumerate((group, GROUPS + 0x300, GROUPS + 0x308, GROUPS + 0x310)):
        following = (GROUPS + 0x300, GROUPS + 0x308, GROUPS + 0x310)
        made.memory.number(at, following[i], 8) if i < 3 else made.memory.write(at, b"slice\0")
    return made


def test_groups() -> None:
    read = with_groups().read()
    assert shown(read) == [(0, 1), (0, "slice"), (1, 3), (0, 2)]
    group = read.fair[1].item
    assert isinstance(group, Group)
    assert (group.address, group.queue, group.throttled) == (GROUPS, GROUPS + 0x100, True)


def test_the_name_of_a_group_that_cannot_be_read() -> None:
    """It is ``?``, with a warning."""
    made = with_groups()
    made.memory.number(GROUPS + 0x300, 0xDEAD0000, 8)
    assert shown(made.read()) == [(0, 1), (0, "?"), (1, 3), (0, 2)]
    text = f"the name of the task group at {GROUPS:#x} is not known: "
    assert any(warning.startswith(text) for warning in made.kernel.warnings)


def test_the_running_task_is_first() -> None:
    made = Made()
    made.memory.number(RQ + CFS, made.task(0) + SE, 8)
    made.queue(RQ + CFS + 8, [made.task(1) + SE])
    read = made.read()
    assert [one.item.current for one in read.fair if isinstance(one.item, Queued)] == [True, False]


def test_groups_that_contain_each_other() -> None:
    made = with_groups()
    # The entity in the inner queue is that of the group itself.
    made.queue(GROUPS + 0x100 + 8, [GROUPS + 0x200])
    assert len(made.read().fair) < 1000
    assert any("fair tasks of CPU 0 are not complete" in text for text in made.kernel.warnings)


def test_one_tree_for_all_groups() -> None:
    """7.3: tasks of all groups are in the tree of the CPU."""
    made = Made(**{"cfs_rq.h_curr": word(0x28), "cfs_rq.rq": word(0x30)})
    entity, inner = GROUPS + 0x200, GROUPS + 0x100
    queue = RQ + CFS
    made.memory.write(entity + 0x18, words(8, inner, queue, 0))
    for pid, owner, parent in ((1, queue, 0), (3, inner, entity), (2, queue, 0)):
        made.memory.write(made.task(pid) + SE + 0x20, words(8, owner, parent))
    made.queue(queue + 8, [made.task(pid) + SE for pid in (1, 3, 2)])
    assert shown(made.read()) == [(0, 1), (0, ""), (1, 3), (0, 2)]
    # A task whose group leads nowhere is not lost silently.
    made.memory.number(entity + 0x20, 0x1234, 8)
    made.memory.number(entity + 0x28, 0, 8)
    made.read()
    assert any("do not lead to" in text for text in made.kernel.warnings)


def test_realtime_and_deadline_tasks() -> None:
    made = Made()
    head, node = RQ + RT + 16, made.task(4) + RT_SE
    made.memory.write(head, words(8, node, node))
    made.memory.write(node, words(8, head, head))
    server = GROUPS
    made.memory.number(server + 0x18, 1, 4)
    made.queue(RQ + DL, [made.task(5) + DL_SE, server])
    read = made.read()
    assert [one.task.pid for one in read.realtime] == [4]
    assert [one.task.pid for one in read.deadline] == [5]
    assert not made.kernel.warnings


def test_tasks_of_bpf_schedulers() -> None:
    made = Made()
    made.memory.number(RQ + 16, 2, 4)
    made.read()
    assert made.kernel.warnings == [
        "CPU 0 has 2 tasks of the class sched_ext, which are not listed"
    ]


@pytest.mark.parametrize("node", [0x10, 0xDEAD0000, TASKS + SIZE + SE])
def test_broken_trees(node: int) -> None:
    made = Made()
    made.queue(RQ + CFS + 8, [made.task(1) + SE])
    made.memory.number(made.task(1) + SE + 8, node, 8)
    assert not made.read().complete
    assert any("fair tasks of CPU 0 are not complete" in text for text in made.kernel.warnings)


def test_an_unreadable_run_queue() -> None:
    made = Made()
    made.memory.drop(RQ)
    assert RunQueues(made.kernel).read([0]) == []
    assert made.kernel.warnings


def test_without_sched_info() -> None:
    made = Made("task_struct.sched_info.last_arrival")
    with pytest.raises(AbsentError, match="last_arrival"):
        RunQueues(made.kernel).clocks([0])


def test_overlapping_entities() -> None:
    made = Made()
    overlapping(made.kernel, RQ + RT)
    made.memory.reads = 0
    read = made.read()
    assert len(read.realtime) <= 1
    assert not read.complete
    assert made.memory.reads - made.memory.walked < 100
    assert any("the struct sched_rt_entity at" in text for text in made.kernel.warnings)


def test_overlapping_tasks() -> None:
    """Entities that do not overlap, in tasks that do."""
    made = Made()
    nodes = [made.task(1) + RT_SE, made.task(1) + RT_SE + 0x20]
    made.memory.write(RQ + RT, words(8, nodes[0]))
    made.memory.write(nodes[0], words(8, nodes[1]))
    made.memory.write(nodes[1], words(8, RQ + RT))
    read = made.read()
    assert [one.task.pid for one in read.realtime] == [1]
    assert not read.complete
    assert any("the tasks of CPU 0 are not complete" in text for text in made.kernel.warnings)
