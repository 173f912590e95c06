"""All tasks of a kernel, as columns of numbers: there may be a million."""

from array import array
from collections.abc import Iterable, Iterator, Sequence

from .._native import MemoryFault
from .._typing import overload
from ..isolation import isolated
from . import tasklist, tasks
from .kernel import Kernel
from .structs import BATCH, batches
from .tasks import Task

_Rest = tuple[int, int | None, int, bool, bool]


class Column:
    """Numbers of one kind, eight bytes each; those of wrong types may be larger."""

    __slots__ = ("_others", "_values")

    def __init__(self, typecode: str) -> None:
        """``typecode`` is that of ``array``: "q" or "Q"."""
        self._values = array(typecode)
        self._others: dict[int, int] = {}

    def append(self, value: int) -> None:
        """Adds a number."""
        try:
            self._values.append(value)
        except OverflowError:
            self._others[len(self._values)] = value
            self._values.append(0)

    def __getitem__(self, row: int) -> int:
        value = self._values[row]
        return self._others.get(row, value) if self._others else value

    def part(self, start: int, stop: int) -> Sequence[int]:
        """The numbers of consecutive rows."""
        part = self._values[start:stop]
        if not self._others:
            return part
        return [self._others.get(start + i, value) for i, value in enumerate(part)]

    def rearrange(self, order: Sequence[int]) -> None:
        """Puts the numbers of these rows first, second and so on."""
        self._values = array(self._values.typecode, map(self._values.__getitem__, order))
        if self._others:
            others = self._others
            self._others = {i: others[row] for i, row in enumerate(order) if row in others}


class TaskTable(Sequence[Task]):
    """Tasks in a fixed order. Each is created when it is used."""

    def __init__(self, rows: Iterable[Task] = ()) -> None:
        self._address, self._stack = Column("Q"), Column("Q")
        self._pid, self._tgid = Column("q"), Column("q")
        self._comm: list[str] = []
        #: What many tasks have in common: cpu, state, exit_state, active, idle. Each once.
        self._rest: list[_Rest] = []
        self._known: dict[_Rest, _Rest] = {}
        for task in rows:
            self.append(task)

    def append(self, task: Task) -> None:
        """Adds a task."""
        address, pid, tgid, comm, cpu, state, exit_state, stack, active, idle = task
        self._address.append(address)
        self._pid.append(pid)
        self._tgid.append(tgid)
        self._comm.append(comm)
        self._stack.append(stack)
        rest = (cpu, state, exit_state, active, idle)
        self._rest.append(self._known.setdefault(rest, rest))

    def sort(self, start: int = 0) -> None:
        """Sorts the tasks from position ``start`` on by pid, then by address."""
        # Pairs of both as keys would take more memory than the tasks' own.
        order = sorted(range(start, len(self)), key=self._address.__getitem__)
        order.sort(key=self._pid.__getitem__)
        order[:0] = range(start)
        for column in (self._address, self._stack, self._pid, self._tgid):
            column.rearrange(order)
        self._comm = list(map(self._comm.__getitem__, order))
        self._rest = list(map(self._rest.__getitem__, order))

    def _between(self, start: int, stop: int) -> Iterator[Task]:
        """The tasks of consecutive rows."""
        numbers = (self._address, self._pid, self._tgid, self._stack)
        columns = zip(
            *(column.part(start, stop) for column in numbers),
            self._comm[start:stop],
            self._rest[start:stop],
            strict=True,
        )
        for address, pid, tgid, stack, comm, (cpu, state, exit_state, active, idle) in columns:
            yield Task(address, pid, tgid, comm, cpu, state, exit_state, stack, active, idle)

    def __len__(self) -> int:
        return len(self._comm)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...

    def __getitem__(self, index: int | slice) -> "Task | Sequence[Task]":
        rows = range(len(self))[index]
        if isinstance(rows, int):
            return next(self._between(rows, rows + 1))
        if rows.step == 1:
            return list(self._between(rows.start, rows.stop))
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[Task]:
        for start in range(0, len(self), BATCH):
            yield from self._between(start, start + BATCH)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment] # as that of a list


class Rows(Sequence[Task]):
    """Some of the tasks of another sequence, by their positions in it."""

    __slots__ = ("_rows", "_tasks")

    def __init__(self, every: Sequence[Task], rows: Sequence[int]) -> None:
        self._tasks = every
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> "Rows": ...

    def __getitem__(self, index: int | slice) -> "Task | Rows":
        if isinstance(index, slice):
            return Rows(self._tasks, self._rows[index])
        return self._tasks[self._rows[index]]

    def __iter__(self) -> Iterator[Task]:
        return map(self._tasks.__getitem__, self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # as that of a list


def read(kernel: Kernel) -> TaskTable:
    """Every task: idle tasks by CPU, then the others by pid.

    ``kernel.warnings`` says if lists are damaged.
    """
    idle_tasks = tasks.idle(kernel)
    active_tasks = tasks.active(kernel)
    cpu_of = {address: cpu for cpu, address in active_tasks.items()}
    cpu_of.update((address, cpu) for cpu, address in idle_tasks.items())
    running = set(active_tasks.values())
    idle_addresses = set(idle_tasks.values())

    def load(addresses: Iterable[int], is_idle: bool) -> None:
        for batch in batches(addresses):
            structs = tasks.TaskStructs(kernel, batch)
            for address in batch:
                with isolated(f"the task at {address:#x} cannot be read", kernel.warn, MemoryFault):
                    cpu = cpu_of.get(address)
                    found.append(structs.task(address, cpu, address in running, is_idle))

    # The addresses of a million tasks as objects are freed before the tasks are read.
    others = array("Q", tasklist.addresses(kernel))
    others.extend(sorted(running.difference(others)))
    found = TaskTable()
    load(idle_tasks.values(), True)
    idle_count = len(found)
    load((one for one in others if one not in idle_addresses), False)
    found.sort(idle_count)
    return found
