"""The run queue of a CPU: its running task and its idle task."""

from itertools import islice

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_RUNQUEUE
from ..kernel import Kernel
from ..partial_buffer import PartialBuffer
from .inferred import Inferences, Inferred, Struct
from .task_sample import Block, TaskSample

#: The size of a run queue if its symbol has none.
DEFAULT_SIZE = 0x1000
#: idle is at most this many words after curr: 6.12 has dl_server between them.
_REACH = 3


def rq(kernel: Kernel, inference: Inferences) -> Struct:
    """curr, then idle: both point to tasks on every CPU, the latter to a swapper with pid 0."""
    from .. import percpu

    sample = inference.sample
    pid = inference.member("task_struct.pid").offset
    symbol = kernel.symbol("runqueues")
    sizes = [found.size for found in kernel.symbols.all("runqueues") if found.size]
    size = min(max(sizes, default=DEFAULT_SIZE), MAX_RUNQUEUE)
    queues = []
    budget = kernel.object_budget("run queues", size)
    for cpu in islice(percpu.areas(kernel), budget.remaining):
        try:
            at = percpu.shifted(kernel, symbol, cpu)
        except MemoryFault:
            continue
        queues.append(_Queue(kernel, at, size))
    idles = [at for at in sample.words(0, size) if _are_idle(kernel, sample, queues, at, pid)]
    # On an idle CPU both point to the idle task: the later one is idle.
    for idle in reversed(idles):
        for words in range(1, _REACH + 1):
            curr = idle - words * sample.word
            tasks = [queue.word(curr) for queue in queues if queue.has(idle) and queue.has(curr)]
            if curr >= 0 and tasks and all(map(sample.is_task, tasks)):
                return {
                    "": Inferred(0, size),
                    "curr": Inferred(curr, sample.word),
                    "idle": Inferred(idle, sample.word),
                }
    raise AbsentError("no member of the run queues points to the idle tasks")


class _Queue(Block):
    """A run queue. It is longer than a page, and the dump may lack pages of zeros."""

    def __init__(self, kernel: Kernel, address: int, size: int) -> None:
        self._buffer = PartialBuffer(kernel, address, size)
        super().__init__(address, bytes(self._buffer.data), kernel.word)

    def has(self, offset: int) -> bool:
        """Whether the dump has the word at ``offset``."""
        return self._buffer.is_complete(offset, offset + self._word)


def _are_idle(
    kernel: Kernel, sample: TaskSample, queues: list[_Queue], offset: int, pid: int
) -> bool:
    """Whether those words at ``offset`` that the dump has point to different idle tasks."""
    words = [queue.word(offset) for queue in queues if queue.has(offset)]
    tasks = set(words)
    if not words or len(tasks) < len(words) or not all(map(sample.is_kernel, tasks)):
        return False
    try:
        return all(
            kernel.data(task + sample.comm, 7) == b"swapper" and kernel.number(task + pid, 4) == 0
            for task in tasks
        )
    except MemoryFault:
        return False
