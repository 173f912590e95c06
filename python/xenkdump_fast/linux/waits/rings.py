"""The structs on stacks by which tasks wait, and the circular lists that they are in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_WAITERS
from ..kernel import Kernel
from ..tasks import Task

#: Structs by which a task waits: the members with the task, with the links, and, of wait queues,
#: with the function that wakes it. 4.13 (ac6424b981bc) renamed __wait_queue and its members.
_LAYOUTS = {
    "mutex_waiter": ("task", "list", None),
    "rwsem_waiter": ("task", "list", None),
    "semaphore_waiter": ("task", "list", None),
    "swait_queue": ("task", "task_list", None),
    "wait_queue_entry": ("private", "entry", "func"),
    "__wait_queue": ("private", "task_list", "func"),
}
#: The lock that each is for, whose ``first_waiter`` may replace a list head (seen in 7.3).
_HEADLESS = {
    "mutex_waiter": "mutex",
    "rwsem_waiter": "rw_semaphore",
    "semaphore_waiter": "semaphore",
}


class Layout(NamedTuple):
    """Offsets in a struct by which a task waits."""

    name: str
    task: int
    links: int
    #: Of wait queues, whose entries need not be on stacks.
    function: int | None


class Ring(NamedTuple):
    """A circular list of waiters."""

    #: The addresses of the structs.
    waiters: frozenset[int]
    #: The ``list_head`` that is no waiter; None if there is none.
    head: int | None
    #: Why it proves nothing; None if it does.
    problem: str | None


class Waiter(NamedTuple):
    """A struct on the stack of a task, by which the task is in a list of waiters."""

    layout: Layout
    address: int
    ring: Ring


class Rings:
    """Finds waiters and their lists; every list is walked once."""

    def __init__(self, kernel: Kernel, tasks: Mapping[int, Task]) -> None:
        """``tasks`` are all tasks by their addresses."""
        self._kernel = kernel
        self._tasks = tasks
        self._known: dict[tuple[str, int], Ring] = {}
        self._layouts: dict[str, Layout | None] = {}

    def layout(self, name: str) -> Layout | None:
        """The offsets of a struct; None if its type is not known."""
        if name not in self._layouts:
            task, links, function = _LAYOUTS[name]
            try:
                self._layouts[name] = Layout(
                    name,
                    self._kernel.offset(f"{name}.{task}"),
                    self._kernel.offset(f"{name}.{links}"),
                    None if function is None else self._kernel.offset(f"{name}.{function}"),
                )
            except AbsentError:
                self._layouts[name] = None
        return self._layouts[name]

    def waiters(
        self, task: Task, stack: bytes, start: int, names: Sequence[str]
    ) -> Iterator[Waiter]:
        """The structs with these names by which a task waits, the innermost first.

        ``stack`` is the part of its stack that is in use, from ``start`` on. A struct that is
        linked in no list is left out: such remains of earlier waits are on every stack.
        """
        kernel = self._kernel
        needle = task.address.to_bytes(kernel.word, "little")
        at = stack.find(needle)
        while at >= 0:
            if at % kernel.word == 0:
                for name in names:
                    layout = self.layout(name)
                    if layout is not None and at >= layout.task:
                        address = start + at - layout.task
                        if self._is_linked(address + layout.links, name):
                            yield Waiter(layout, address, self.ring(layout, address))
            at = stack.find(needle, at + 1)

    def _is_linked(self, node: int, name: str) -> bool:
        """Whether the neighbours of a ``list_head`` point to it, and are others.

        Where locks have no list head, a single waiter is its own neighbour.
        """
        kernel = self._kernel
        lock = _HEADLESS.get(name)
        alone = lock is not None and kernel.has(f"{lock}.first_waiter")
        try:
            following, before = kernel.pointer(node), kernel.pointer(node + kernel.word)
            return (
                (alone or following != node)
                and kernel.pointer(following + kernel.word) == node
                and kernel.pointer(before) == node
            )
        except MemoryFault:
            return False

    def ring(self, layout: Layout, address: int) -> Ring:
        """The list that a waiter is in."""
        known = self._known.get((layout.name, address))
        if known is not None:
            return known
        kernel = self._kernel
        (walked,) = kernel.lists([address + layout.links], MAX_WAITERS)
        structs = [address, *(kernel.containing(at, layout.links) for at in walked.entries)]
        waiters = self._those_that_wait(layout, structs)
        heads = [at for at in structs if at not in waiters]
        problem = walked.problem
        if problem is None and len(heads) > 1:
            problem = f"{len(heads)} entries of the list at {address:#x} are no waiters"
        head = (heads[0] + layout.links) & kernel.last if len(heads) == 1 else None
        ring = Ring(frozenset(waiters), head, problem)
        self._known.update(((layout.name, at), ring) for at in structs)
        return ring

    def _those_that_wait(self, layout: Layout, structs: Sequence[int]) -> set[int]:
        kernel = self._kernel
        offset = layout.task if layout.function is None else layout.function
        kernel.charge(len(structs) * kernel.word)
        (column,) = kernel.virtual.read_members(structs, [(offset, kernel.word)])
        found = set()
        for address, value in zip(structs, column, strict=True):
            if not isinstance(value, int):
                continue
            if layout.function is not None:
                symbol = kernel.code.lookup(value)
                if symbol is not None and symbol.address == value:
                    found.add(address)
                continue
            task = self._tasks.get(value)
            if task is not None and task.stack <= address < kernel.end(
                task.stack, kernel.stack_size
            ):
                found.add(address)
        return found

    def tasks(self, waiter: Waiter) -> list[Task]:
        """The tasks in a waiter's list, by pid."""
        kernel, structs = self._kernel, list(waiter.ring.waiters)
        kernel.charge(len(structs) * kernel.word)
        members = [(waiter.layout.task, kernel.word)]
        (column,) = kernel.virtual.read_members(structs, members)
        found = (self._tasks.get(value) for value in column if isinstance(value, int))
        return sorted((task for task in found if task is not None), key=lambda task: task.pid)

    def pointed_to(self, task: Task, stack: bytes, waiter: Waiter, offset: int) -> list[int]:
        """Objects that words on a stack point to, and whose word at ``offset`` is a waiter.

        So is a lock with ``first_waiter`` found, to which its waiters have no pointer. None of them
        is on the stack itself, where copies of the waiter's address are, or has the links of a
        waiter there.
        """
        word = self._kernel.word
        waiters, links = waiter.ring.waiters, waiter.layout.links
        return [
            address
            for address, value in self._pointed_to(task, stack, offset, on_stack=False)
            if value in waiters
            and not {address + offset - links, address + offset - links - word} & waiters
        ]

    def targets(
        self, task: Task, stack: bytes, offset: int, value: int, *, on_stack: bool = False
    ) -> list[int]:
        """Objects that words on a stack point to, and whose word at ``offset`` is ``value``.

        With ``on_stack`` they may be on the stack itself.
        """
        found = self._pointed_to(task, stack, offset, on_stack=on_stack)
        return [address for address, word in found if word == value]

    def _pointed_to(
        self, task: Task, stack: bytes, offset: int, *, on_stack: bool
    ) -> Iterator[tuple[int, int | bytes | None]]:
        """What words on a stack point to, each with its word at ``offset``."""
        kernel, word = self._kernel, self._kernel.word
        words = dict.fromkeys(
            int.from_bytes(stack[at : at + word], "little")
            for at in range(0, len(stack) - word + 1, word)
        )
        half = 1 << 8 * word - 1
        top = kernel.end(task.stack, kernel.stack_size)
        objects = [
            value
            for value in words
            if value >= half and value % word == 0 and (on_stack or not task.stack <= value < top)
        ]
        kernel.charge(len(objects) * word)
        (column,) = kernel.virtual.read_members(objects, [(offset, word)])
        return zip(objects, column, strict=True)
