"""The tasks that invariants are held against: all that the task list leads to from init_task."""

from collections.abc import Callable, Iterator
from functools import cached_property

from ..._native import AbsentError, MemoryFault
from ..kernel import Kernel
from ..tasklist import MIN_SIZE

#: Bounds on what a task_struct can be, and on how many are looked at.
MAX_SIZE, MAX_TASKS = 0x4000, 4096
#: Twice as many as there can be pids.
MAX_STEPS = 1 << 23
COMM_LENGTH = 16
#: Where the kernel's half of the address space may begin: with 32 bits, as it was built.
_HALF_32, _HALF_48, _HALF_57 = 0x4000_0000, 0xFFFF_8000_0000_0000, 0xFF00_0000_0000_0000
#: The name of the first task: "swapper" before 3.3, "swapper/0" since.
_NAMES = (b"swapper/0\0", b"swapper\0")


class Block:
    """The bytes of one struct in memory, as words and as ints by their offset."""

    def __init__(self, address: int, data: bytes, word: int, name: bytes = b"") -> None:
        self.address = address
        self.data = data
        #: The name of the task whose it is.
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


class Sample:
    """init_task and every thread group's leader, with the offsets by which they were found."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.word = kernel.word
        wide = kernel.location.paging == "x86_64-la57"
        self._kernel_half = _HALF_32 if self.word == 4 else _HALF_57 if wide else _HALF_48
        init_task = kernel.symbol("init_task")
        sizes = [symbol.size for symbol in kernel.symbols.all("init_task") if symbol.size]
        self.size = min(max(sizes, default=MAX_SIZE), MAX_SIZE)
        if self.size < MIN_SIZE:
            raise AbsentError(f"init_task of {self.size} bytes is no task_struct")
        self.init = Block(init_task, kernel.data(init_task, self.size), self.word)
        self.comm = self._comm()
        # A node of a list has two words of its own, and is looked at twice: for the list of tasks,
        # and for those of threads.
        self._steps = min(MAX_STEPS, kernel.most(self.word))
        self._most = min(MAX_TASKS, kernel.most(self.size))
        self.tasks, addresses = self._task_list()
        self.leaders = [self._block(address) for address in addresses]

    def _block(self, address: int) -> Block:
        data = self._kernel.data(address, self.size)
        name = data[self.comm : self.comm + COMM_LENGTH].partition(b"\0")[0]
        return Block(address, data, self.word, name)

    @cached_property
    def everyone(self) -> list[Block]:
        """init_task, then the leaders."""
        return [self.init, *self.leaders]

    def words(self, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Offsets at which a word may stand."""
        yield from range(-(-start // self.word) * self.word, end or self.size, self.word)

    def ints(self, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Offsets at which an int may stand."""
        yield from range(-(-start // 4) * 4, end or self.size, 4)

    def is_kernel(self, pointer: int) -> bool:
        """Whether a word can point into the kernel's half of the address space, aligned."""
        if pointer % 4:
            return False
        return pointer >= self._kernel_half

    def is_task(self, address: int) -> bool:
        """Whether what lies at ``address`` has a task's name where tasks have it."""
        try:
            return is_name(self._kernel.data(address + self.comm, COMM_LENGTH))
        except MemoryFault:
            return False

    def step(self) -> bool:
        """Whether one more node of a list may be looked at, wherever it is on."""
        self._steps -= 1
        return self._steps >= 0

    def _comm(self) -> int:
        for name in _NAMES:
            found = self.init.data.find(name)
            if found > 0:
                return found
        raise AbsentError("init_task has no name: it is not swapper")

    def _task_list(self) -> tuple[int, list[int]]:
        """The offset of the list that most tasks are on, and these tasks but init_task."""
        best: tuple[int, list[int]] = (0, [])
        for offset in self.words():
            node = self.init.address + offset
            first, last = self.init.word(offset), self.init.word(offset + self.word)
            if first == node or not (self.is_kernel(first) and self.is_kernel(last)):
                continue
            found = self._walk(offset)
            if len(found) > len(best[1]):
                best = offset, found
        # kthreadd and init at the least.
        if len(best[1]) < 2:
            raise AbsentError("no list leads from init_task to other tasks")
        return best

    def _walk(self, offset: int) -> list[int]:
        """The tasks on the list through ``offset``, as far as all of them are tasks."""
        head = self.init.address + offset
        found: list[int] = []
        near = {self.init.address // MIN_SIZE: self.init.address}
        at, seen = self.init.word(offset), {head}
        try:
            before = head
            while at not in seen and len(found) < self._most and self.step():
                task = self._kernel.containing(at, offset)
                if self._kernel.pointer(at + self.word) != before or not self.is_task(task):
                    return found
                # No two of them overlap.
                part = task // MIN_SIZE
                beside = (near.get(i) for i in (part - 1, part, part + 1))
                if any(other is not None and abs(task - other) < MIN_SIZE for other in beside):
                    return found
                near[part] = task
                found.append(task)
                seen.add(at)
                before, at = at, self._kernel.pointer(at)
        except MemoryFault:
            pass
        return found


def is_name(comm: bytes) -> bool:
    """Whether 16 bytes can be a task's name: text, then a NUL."""
    name, nul, _ = comm.partition(b"\0")
    return bool(name and nul) and all(byte >= 0x20 and byte != 0x7F for byte in name)


def share(blocks: list[Block], holds: Callable[[Block], bool]) -> float:
    """Of which share of the blocks something holds."""
    return sum(map(holds, blocks)) / len(blocks) if blocks else 0.0
