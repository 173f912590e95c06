"""inactive_task_frame: what __switch_to_asm pushes on the stack of a sleeping task (4.9 on)."""

from collections import Counter

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_INACTIVE_FRAME_WORDS
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct

#: The registers saved below the return address, downwards (0100301bfdf5).
_SAVED = {8: ("bp", "bx", "r12", "r13", "r14", "r15"), 4: ("bp", "bx", "di", "si")}
#: The functions to which __switch_to_asm returns.
_CALLERS = {"__schedule", "schedule", "context_switch", "ret_from_fork", "ret_from_fork_asm"}


def inactive_task_frame(kernel: Kernel, inference: Inferences) -> Struct:
    """The return address is the word that points into __schedule in nearly all tasks."""
    if "__switch_to_asm" not in kernel.symbols:
        raise AbsentError("the kernel has no __switch_to_asm")
    sample = inference.sample
    word = sample.word
    sp = inference.member("task_struct.thread.sp").offset
    votes: Counter[int] = Counter()
    for block in sample.leaders:
        try:
            saved = kernel.data(block.word(sp), MAX_INACTIVE_FRAME_WORDS * word)
        except MemoryFault:
            continue
        for i in range(MAX_INACTIVE_FRAME_WORDS):
            pc = int.from_bytes(saved[i * word : (i + 1) * word], "little")
            symbol = kernel.symbols.lookup(pc) if sample.is_kernel(pc & ~3) else None
            if symbol is not None and symbol.name in _CALLERS:
                votes[i] += 1
                break
    if not votes:
        raise AbsentError("no stack of a sleeping task has a return address in __schedule")
    index, count = votes.most_common(1)[0]
    names = _SAVED[word]
    if count < 0.8 * len(sample.leaders) or index < len(names):
        raise AbsentError("the frames of sleeping tasks differ")
    found = {"": Inferred(0, (index + 1) * word), "ret_addr": Inferred(index * word, word)}
    for i, name in enumerate(names, 1):
        found[name] = Inferred((index - i) * word, word)
    return found
