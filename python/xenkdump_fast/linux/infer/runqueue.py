"""The run queue of a CPU: the task that it runs, and its idle task."""

from itertools import islice

from ..._native import AbsentError, MemoryFault
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .sample import Block, Sample

#: Where the symbol has no size.
DEFAULT_SIZE = 0x1000
MAX_SIZE = 0x8000
#: How many words idle can lie behind curr: 6.12 has dl_server between them.
_REACH = 3


def rq(kernel: Kernel, inference: Inferences) -> Struct:
    """curr, then idle: on every CPU both lead to tasks, the latter to a swapper with pid 0."""
    from .. import percpu

    sample = inference.sample
    pid = inference.member("task_struct.pid").offset
    symbol = kernel.symbol("runqueues")
    sizes = [found.size for found in kernel.symbols.all("runqueues") if found.size]
    size = min(max(sizes, default=DEFAULT_SIZE), MAX_SIZE)
    queues = []
    for cpu in islice(percpu.areas(kernel), kernel.most(size)):
        try:
            at = percpu.shifted(kernel, symbol, cpu)
            queues.append(Block(at, kernel.data(at, size), sample.word))
        except MemoryFault:
            continue
    idles = [at for at in sample.words(0, size) if _are_idle(kernel, sample, queues, at, pid)]
    # A CPU that idles has its idle task in both: the later is idle.
    for idle in reversed(idles):
        for words in range(1, _REACH + 1):
            curr = idle - words * sample.word
            if curr >= 0 and all(sample.is_task(queue.word(curr)) for queue in queues):
                return {
                    "": Inferred(0, size),
                    "curr": Inferred(curr, sample.word),
                    "idle": Inferred(idle, sample.word),
                }
    raise AbsentError("no member of the run queues leads to the idle tasks")


def _are_idle(kernel: Kernel, sample: "Sample", queues: list[Block], offset: int, pid: int) -> bool:
    """Whether the words at ``offset`` lead to an idle task each, all different."""
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
