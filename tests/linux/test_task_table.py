"""Tasks as columns."""

from xenkdump_fast.linux.task_table import TaskTable
from xenkdump_fast.linux.tasks import Task

TOP = 0xFFFF_8880_0000_0000


def task(pid: int, address: int = TOP, **members: object) -> Task:
    whole = Task(address, pid, pid, f"task{pid}", 0, 1, 0, 0, active=False, idle=False)
    return whole._replace(**members)  # type: ignore[arg-type]


TASKS = [
    task(7, state=None),
    task(-1, cpu=3, active=True),
    # Of wrong types, members may be larger than a column holds.
    task(2**64 - 1, tgid=-5, state=2**64 - 1, exit_state=2**63),
    task(7, TOP - 8, idle=True),
    task(7, 2**64 - 1, stack=2**64 - 1, comm=""),
]


def test_a_table_is_a_list_of_tasks() -> None:
    table = TaskTable(TASKS)
    assert list(table) == TASKS
    assert table == TASKS
    assert table != TASKS[:-1]
    assert table != 5
    assert [table[i] for i in range(-5, 5)] == TASKS * 2
    assert table[1:4] == TASKS[1:4]
    assert table[1:][::-2] == TASKS[1:][::-2]
    assert table[1:][1] == TASKS[2]
    assert list(reversed(table)) == TASKS[::-1]
    assert TASKS[2] in table
    assert len(TaskTable()) == 0


def test_order_is_by_pid_and_address() -> None:
    for start in range(len(TASKS) + 1):
        found = TaskTable(TASKS)
        found.sort(start)
        rest = sorted(TASKS[start:], key=lambda one: (one.pid, one.address))
        assert list(found) == TASKS[:start] + rest
