"""The tasks on which invariants are checked: init_task and the tasks on its list."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property

from ..._native import AbsentError, MemoryFault
from ...budget import Budget
from ...limits import (
    MAX_SAMPLED_TASKS,
    MAX_TASK_SAMPLE_READS,
    MAX_TASK_SAMPLE_WALKS,
    MAX_TASK_STRUCT,
)
from ..kernel import Kernel
from ..tasklist import MIN_SIZE

COMM_LENGTH = 16
#: kthreadd and init: any property holds for fewer.
MIN_LEADERS = 2
#: The lowest kernel address: by word size and paging format; on i386 by CONFIG_VMSPLIT.
_HALF_32, _HALF_48, _HALF_57 = 0x4000_0000, 0xFFFF_8000_0000_0000, 0xFF00_0000_0000_0000
#: The name of the first task: "swapper" before 3.3, "swapper/0" since.
_NAMES = (b"swapper/0\0", b"swapper\0")


class Block:
    """The bytes of one struct in memory, read as words and as ints."""

    def __init__(self, address: int, data: bytes, word: int, name: bytes = b"") -> None:
        self.address = address
        self.data = data
        #: The name of the task that the struct belongs to.
        self.name = name
        view = memoryview(data)[: len(data) & ~7]
        self._words = view.cast("Q" if word == 8 else "I")
        self._ints = view.cast("i")
        self._word = word

    def word(self, offset: int) -> int:
        """The word at ``offset``; 0 beyond the end."""
        index = offset // self._word
        return self._words[index] if 0 <= index < len(self._words) else 0

    def int(self, offset: int) -> int:
        """The signed number of 4 bytes at ``offset``; 0 beyond the end."""
        index = offset // 4
        return self._ints[index] if 0 <= index < len(self._ints) else 0


class TaskSample:
    """init_task and the leaders of thread groups, with the offsets by which they were found."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.word = kernel.word
        wide = kernel.location.paging == "x86_64-la57"
        self._kernel_half = _HALF_32 if self.word == 4 else _HALF_57 if wide else _HALF_48
        init_task = kernel.symbol("init_task")
        sizes = [symbol.size for symbol in kernel.symbols.all("init_task") if symbol.size]
        self.size = min(max(sizes, default=MAX_TASK_STRUCT), MAX_TASK_STRUCT)
        if self.size < MIN_SIZE:
            raise AbsentError(f"init_task has {self.size} bytes: not a task_struct")
        self.init = Block(init_task, kernel.data(init_task, self.size), self.word)
        self.comm = self._comm()
        #: Of all walks of lists, to find the task list and the lists of threads.
        self.budget = Budget(
            "lists of tasks",
            min(MAX_TASK_SAMPLE_READS, MAX_TASK_SAMPLE_WALKS * kernel.memory_held),
        )
        #: Of the tasks that are read.
        self._tasks = kernel.object_budget("tasks", self.size, MAX_SAMPLED_TASKS)
        with kernel.charging(self.budget):
            self.tasks, addresses = self._task_list()
        self.leaders = list(self._blocks(addresses))
        if len(self.leaders) < MIN_LEADERS:
            raise AbsentError("no task_struct on the list of init_task is complete in the dump")

    def _blocks(self, addresses: list[int]) -> Iterator[Block]:
        """Those tasks of which the dump has every byte: some pages may be left out."""
        for address in addresses:
            with suppress(MemoryFault):
                yield self._block(address)

    def _block(self, address: int) -> Block:
        data = self._kernel.data(address, self.size)
        name = data[self.comm : self.comm + COMM_LENGTH].partition(b"\0")[0]
        return Block(address, data, self.word, name)

    @cached_property
    def all_tasks(self) -> list[Block]:
        """init_task and the leaders."""
        return [self.init, *self.leaders]

    def words(self, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Offsets of aligned words."""
        yield from range(-(-start // self.word) * self.word, end or self.size, self.word)

    def ints(self, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Offsets of aligned ints."""
        yield from range(-(-start // 4) * 4, end or self.size, 4)

    def is_kernel(self, pointer: int) -> bool:
        """Whether a word can be an aligned pointer to kernel memory."""
        if pointer % 4:
            return False
        return pointer >= self._kernel_half

    def is_task(self, address: int) -> bool:
        """Whether the struct at ``address`` has a valid name at the offset of ``comm``."""
        try:
            return is_name(self._kernel.data(address + self.comm, COMM_LENGTH))
        except MemoryFault:
            return False

    def _comm(self) -> int:
        for name in _NAMES:
            found = self.init.data.find(name)
            if found > 0:
                return found
        raise AbsentError("init_task does not contain the name swapper")

    def _task_list(self) -> tuple[int, list[int]]:
        """The offset of the list with most tasks, and these tasks without init_task."""
        best: tuple[int, list[int]] = (0, [])
        for offset in self.words():
            node = self.init.address + offset
            first, last = self.init.word(offset), self.init.word(offset + self.word)
            if first == node or not (self.is_kernel(first) and self.is_kernel(last)):
                continue
            found = self._walk(offset)
            if len(found) > len(best[1]):
                best = offset, found
        if len(best[1]) < MIN_LEADERS:
            raise AbsentError("init_task is on no list with other tasks")
        return best

    def _walk(self, offset: int) -> list[int]:
        """The tasks on the list at ``offset``, up to the first node that is not of a task."""
        head = self.init.address + offset
        found: list[int] = []
        by_slot = {self.init.address // MIN_SIZE: self.init.address}
        at, seen = self.init.word(offset), {head}
        try:
            before = head
            while at not in seen and len(found) < self._tasks.remaining:
                task = self._kernel.containing(at, offset)
                if self._kernel.pointer(at + self.word) != before or not self.is_task(task):
                    return found
                # task_structs do not overlap.
                slot = task // MIN_SIZE
                neighbours = (by_slot.get(i) for i in (slot - 1, slot, slot + 1))
                if any(other is not None and abs(task - other) < MIN_SIZE for other in neighbours):
                    return found
                by_slot[slot] = task
                found.append(task)
                seen.add(at)
                before, at = at, self._kernel.pointer(at)
        except MemoryFault:
            pass
        return found


def is_name(comm: bytes) -> bool:
    """Whether 16 bytes can be the name of a task: text, then a NUL."""
    name, nul, _ = comm.partition(b"\0")
    return bool(name and nul) and all(byte >= 0x20 and byte != 0x7F for byte in name)


def share(blocks: list[Block], holds: Callable[[Block], bool]) -> float:
    """The share of the blocks for which ``holds`` is true."""
    return sum(map(holds, blocks)) / len(blocks) if blocks else 0.0
