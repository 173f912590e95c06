"""The run queue of a CPU: its running task and its idle task."""

from itertools import islice

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_RUNQUEUE
from ..kernel import Kernel
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
            queues.append(Block(at, kernel.data(at, size), sample.word))
        except MemoryFault:
            continue
    idles = [at for at in sample.words(0, size) if _are_idle(kernel, sample, queues, at, pid)]
    # On an idle CPU both point to the idle task: the later one is idle.
    for idle in reversed(idles):
        for words in range(1, _REACH + 1):
            curr = idle - words * sample.word
            if curr >= 0 and all(sample.is_task(queue.word(curr)) for queue in queues):
                return {
                    "": Inferred(0, size),
                    "curr": Inferred(curr, sample.word),
                    "idle": Inferred(idle, sample.word),
                }
    raise AbsentError("no member of the run queues points to the idle tasks")


def _are_idle(
    kernel: Kernel, sample: TaskSample, queues: list[Block], offset: int, pid: int
) -> bool:
    """Whether the words at ``offset`` point to different idle tasks."""
    tasks = {queue.word(offset) for queue in queues}
    if not queues or len(tasks) < len(queues) or not all(map(sample.is_kernel, tasks)):
        return False
    try:
        return all(
            kernel.data(task + sample.comm, 7) == b"swapper" and kernel.number(task + pid, 4) == 0
            for task in tasks
        )
    except MemoryFault:
        return False
