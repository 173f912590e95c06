"""task_struct, thread_info and signal_struct."""

import re
from collections import Counter
from collections.abc import Callable

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_CPUS, MAX_PIDS, MAX_SAMPLED_THREADS, MAX_THREAD_INFO
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .task_sample import Block, TaskSample, share

SIGCHLD = 17
PF_KTHREAD = 0x0020_0000  # 2.6.27, 246bb0b1deb2
#: Names of threads that are bound to the CPU in their name: migration/1, kworker/1:0H.
_BOUND = rb"[a-z_]+/([0-9]+)(?:$|:)"
#: The share of these that are on their CPU.
_MOST_BOUND = 0.8
_STACK_END_MAGIC = 0x57AC_6E9D
_PAGE = 4096


def task_struct(kernel: Kernel, inference: Inferences) -> Struct:
    """Members of task_struct; later ones are found by means of earlier ones."""
    sample = inference.sample
    word = sample.word
    found: dict[str, Inferred] = {
        "": Inferred(0, sample.size),
        "comm": Inferred(sample.comm, 16, count=16),
        "tasks": Inferred(sample.tasks, 2 * word),
    }

    def add(path: str, infer: Callable[[], int | None], size: int, signed: bool = False) -> bool:
        offset = infer()
        if offset is None:
            return False
        found[path] = Inferred(offset, size, signed)
        return True

    def at(path: str) -> int:
        return found[path].offset

    if not add("pid", lambda: _pid(sample), 4, True):
        raise AbsentError("no member of task_struct has the properties of pid")
    found["tgid"] = Inferred(at("pid") + 4, 4, True)
    if add("real_parent", lambda: _parents(sample, at("pid")), word):
        found["parent"] = Inferred(at("real_parent") + word, word)
    add("group_leader", lambda: _group_leader(sample, at("pid")), word)
    if add("mm", lambda: _mm(sample, at("pid")), word):
        found["active_mm"] = Inferred(at("mm") + word, word)
    if add("stack", lambda: _stack(kernel, sample), word):
        add("__state", lambda: _state(sample, at("stack")), 4)
        # void *stack, refcount_t usage, unsigned int flags: in this order since 2.6.16.
        flags = at("stack") + word + 4
        if "mm" in found and _are_flags(sample, flags, at("mm")):
            found["flags"] = Inferred(flags, 4)
        add("thread.sp", lambda: _stack_pointer(kernel, sample, at("stack")), word)
        if "thread.sp" in found:
            add("thread.ip", lambda: _resume_address(kernel, sample, at("thread.sp")), word)
        if not _has_thread_info_on_stack(kernel, sample, at("stack")):
            found["thread_info.flags"] = Inferred(0, word)
            add("cpu", lambda: _cpu(sample.leaders), 4)
    if "mm" in found and add(
        "exit_state", lambda: _exit_state(sample, at("mm"), at("pid")), 4, True
    ):
        counts = _cached_rss(sample, at("mm"), at("exit_state"))
        if counts is not None:
            found["rss_stat.count"] = counts
    threads = _threads(kernel, sample, at("tgid"))
    found.update(threads)
    return found


def _pid(sample: TaskSample) -> int | None:
    """pid and tgid: equal in a leader, different in every task, 0 in init_task; 1 is among them."""
    for offset in sample.ints():
        if sample.init.int(offset) or sample.init.int(offset + 4):
            continue
        pids = {block.int(offset) for block in sample.leaders}
        if (
            len(pids) == len(sample.leaders)
            and 1 in pids
            and min(pids) > 0
            and max(pids) <= MAX_PIDS
            and all(block.int(offset) == block.int(offset + 4) for block in sample.leaders)
        ):
            return offset
    return None


def _parents(sample: TaskSample, pid: int) -> int | None:
    """real_parent and parent, shortly after pid: pointers to tasks; init_task is its own parent.

    A parent may be a thread that is not a leader, so that not all are in the sample.
    """
    addresses = {block.address for block in sample.all_tasks}
    for offset in sample.words(pid + 8, pid + 8 + 8 * sample.word):
        pair = (offset, offset + sample.word)
        if all(sample.init.word(at) == sample.init.address for at in pair) and all(
            share(sample.leaders, lambda block, at=at: block.word(at) in addresses) > 0.9  # type: ignore[misc]
            for at in pair
        ):
            return offset
    return None


def _group_leader(sample: TaskSample, pid: int) -> int | None:
    """The pointer after the parents that points from each leader to itself."""
    for offset in sample.words(pid + 8, pid + 8 + 16 * sample.word):
        if all(block.word(offset) == block.address for block in sample.all_tasks):
            return offset
    return None


def _mm(sample: TaskSample, pid: int) -> int | None:
    """mm and active_mm: equal if there is an mm; init_task has none, init has one."""
    for offset in sample.words():
        if sample.init.word(offset):
            continue
        with_mm = [block for block in sample.leaders if block.word(offset)]
        if (
            with_mm
            and any(block.int(pid) == 1 for block in with_mm)
            and not any(block.int(pid) == 2 for block in with_mm)
            and all(
                sample.is_kernel(block.word(offset))
                and block.word(offset) == block.word(offset + sample.word)
                for block in with_mm
            )
        ):
            return offset
    return None


def _stack(kernel: Kernel, sample: TaskSample) -> int | None:
    """The stack: that of init_task has a symbol, all others have pages of their own.

    A task that has exited may have none. Without ``CONFIG_KALLSYMS_ALL`` there is no symbol: the
    lowest word of a stack is a magic number (if thread_info is not there: 4.9 on).
    """
    known = {
        address
        for name in ("init_thread_union", "init_stack", "init_thread_info")
        if (address := kernel.symbols.get(name)) is not None
    }
    for offset in sample.words():
        if sample.init.word(offset) not in known and (
            known
            or not all(_has_end_magic(kernel, block.word(offset)) for block in sample.all_tasks[:8])
        ):
            continue
        stacks = [block.word(offset) for block in sample.leaders if block.word(offset)]
        if (
            len(stacks) > 0.9 * len(sample.leaders)
            and len(set(stacks)) == len(stacks)
            and all(stack % _PAGE == 0 and sample.is_kernel(stack) for stack in stacks)
        ):
            return offset
    return None


def _has_end_magic(kernel: Kernel, stack: int) -> bool:
    """Whether a stack ends there (``STACK_END_MAGIC``, 2.6.29 on)."""
    try:
        return stack % _PAGE == 0 and kernel.number(stack, 4) == _STACK_END_MAGIC
    except MemoryFault:
        return False


def _state(sample: TaskSample, stack: int) -> int | None:
    """Before the stack: nearly all tasks sleep (bit 1 or 2 is set), init_task never does."""
    best, highest = None, 0.6
    for offset in sample.ints(0, stack):
        if sample.init.int(offset):
            continue
        if not all(0 <= block.int(offset) < 1 << 16 for block in sample.leaders):
            continue
        sleeping = share(sample.leaders, lambda block, at=offset: block.int(at) & 3 in (1, 2))  # type: ignore[misc]
        if sleeping > highest:
            best, highest = offset, sleeping
    return best


def _are_flags(sample: TaskSample, flags: int, mm: int) -> bool:
    """Whether PF_KTHREAD is set in tasks without mm, except for exiting ones."""
    if not sample.init.int(flags) & PF_KTHREAD:
        # Before 2.6.27 bits from 27 up have no meaning.
        return all(0 <= block.int(flags) < 1 << 27 for block in sample.leaders)
    users = [block for block in sample.leaders if block.word(mm)]
    others = [block for block in sample.leaders if not block.word(mm)]
    return (
        share(users, lambda block: not block.int(flags) & PF_KTHREAD) == 1
        and share(others, lambda block: bool(block.int(flags) & PF_KTHREAD)) > 0.7
    )


def _stack_pointer(kernel: Kernel, sample: TaskSample, stack: int) -> int | None:
    """thread.sp points into the task's own stack, to different depths (unlike sp0)."""
    size = kernel.stack_size
    best, highest = None, 0.9
    stacks = [(block, base) for block in sample.leaders if (base := block.word(stack))]
    for offset in sample.words():
        if offset == stack:
            continue
        inside = []
        # Most members differ in the first tasks.
        outside = (1 - highest) * len(stacks)
        for block, base in stacks:
            depth = block.word(offset) - base
            if 0 < depth < size and depth % sample.word == 0:
                inside.append(depth)
            else:
                outside -= 1
                if outside < 0:
                    break
        if outside >= 0 and len(set(inside)) > 1 and len(inside) / len(stacks) > highest:
            best, highest = offset, len(inside) / len(stacks)
    return best


def _resume_address(kernel: Kernel, sample: TaskSample, sp: int) -> int | None:
    """thread.ip, near thread.sp on i386 before 4.9: where a task resumes, mostly in schedule()."""
    if sample.word == 8:
        return None
    for offset in sample.words(sp - 4 * sample.word, sp + 5 * sample.word):
        names = [
            symbol.name
            for block in sample.leaders
            if (symbol := kernel.symbols.lookup(block.word(offset))) is not None
        ]
        if len(names) > 0.9 * len(sample.leaders) and all(
            "schedule" in name or "switch" in name or "fork" in name or "context" in name
            for name in names
        ):
            return offset
    return None


def _has_thread_info_on_stack(kernel: Kernel, sample: TaskSample, stack: int) -> bool:
    """Whether thread_info is at the base of the stack (before 4.9): it starts with its task."""
    try:
        return all(
            kernel.pointer(block.word(stack)) == block.address for block in sample.leaders[:16]
        )
    except MemoryFault:
        return False


def _cpu(blocks: list[Block], end: int | None = None) -> int | None:
    """The lowest int that is a small number in all and N in most threads named migration/N.

    A young kworker/N:0 may still be on the CPU where it was created. None with only one CPU: no
    member can be distinguished then.
    """
    if not blocks:
        return None
    bound = []
    for block in blocks:
        name = re.match(_BOUND, block.name)
        if name:
            bound.append((block, int(name[1])))
    total = Counter(cpu for _, cpu in bound)
    if len(total) < 2:
        return None
    for offset in range(0, end or len(blocks[0].data) - 4, 4):
        equal = Counter(cpu for block, cpu in bound if block.int(offset) == cpu)
        # A member that is 0 in all has most threads of CPU 0 only.
        most = sum(2 * equal[cpu] > total[cpu] for cpu in total)
        if (
            most > 1
            and equal.total() > _MOST_BOUND * total.total()
            and all(0 <= block.int(offset) < MAX_CPUS for block in blocks)
        ):
            return offset
    return None


def _exit_state(sample: TaskSample, mm: int, pid: int) -> int | None:
    """exit_state, exit_code, exit_signal: mostly 0, 0 and SIGCHLD."""
    low, high = sorted((mm, pid))
    for offset in sample.ints(low, high):
        if (
            share(sample.leaders, lambda block, at=offset: block.int(at + 8) == SIGCHLD) > 0.6  # type: ignore[misc]
            and share(sample.leaders, lambda block, at=offset: block.int(at) == 0) > 0.8  # type: ignore[misc]
            and share(sample.leaders, lambda block, at=offset: block.int(at + 4) == 0) > 0.8  # type: ignore[misc]
        ):
            return offset
    return None


def _cached_rss(sample: TaskSample, mm: int, exit_state: int) -> Inferred | None:
    """rss_stat (2.6.34 to 6.1): between active_mm and exit_state, 0 in tasks without mm."""
    # int events, at most 64, then int count[NR_MM_COUNTERS]: 3 before 4.5 (eca56ff906bd).
    users = [block for block in sample.leaders if block.word(mm)]
    others = [block for block in sample.leaders if not block.word(mm)]
    for counters in (4, 3):
        start = exit_state - 4 * (counters + 1)
        counts = range(start + 4, exit_state, 4)
        if (
            start >= mm + 2 * sample.word
            and all(block.int(at) == 0 for block in others for at in (start, *counts))
            and all(0 <= block.int(start) <= 64 for block in users)
            and share(users, lambda block, at=start: block.int(at) > 0) > 0.5  # type: ignore[misc]
            and all(abs(block.int(at)) < 1 << 20 for block in users for at in counts)
        ):
            return Inferred(start + 4, 4 * counters, count=counters)
    return None


def _threads(kernel: Kernel, sample: TaskSample, tgid: int) -> dict[str, Inferred]:
    """The lists of threads: signal and thread_node since 3.14, before that thread_group."""
    word = sample.word
    signals = kernel.symbols.get("init_signals")
    if signals is not None:
        signal = next((at for at in sample.words() if sample.init.word(at) == signals), None)
        for offset in sample.words():
            head = sample.init.word(offset)
            if signal is None or not signals <= head < signals + 0x1000 or head % word:
                continue
            if head == sample.init.word(offset + word) and _starts_with_leader(
                kernel, sample, signal, head - signals, offset
            ):
                return {
                    "signal": Inferred(signal, word),
                    "thread_node": Inferred(offset, 2 * word),
                }
    for offset in sample.words():
        # INIT_TASK of 2.6.17 and 2.6.18 leaves thread_group zero.
        if sample.init.word(offset) not in (sample.init.address + offset, 0):
            continue
        if offset == sample.tasks:
            continue
        if _are_thread_groups(kernel, sample, offset, tgid):
            return {"thread_group": Inferred(offset, 2 * word)}
    return {}


def _starts_with_leader(
    kernel: Kernel, sample: TaskSample, signal: int, head: int, node: int
) -> bool:
    """Whether the list at ``head`` in each leader's signal_struct starts with the leader."""
    try:
        return all(
            kernel.pointer(block.word(signal) + head) == block.address + node
            for block in sample.leaders
            if block.word(signal)
        )
    except MemoryFault:
        return False


def _are_thread_groups(kernel: Kernel, sample: TaskSample, offset: int, tgid: int) -> bool:
    """Whether the lists at ``offset`` have tasks of one tgid, and some have more than one."""
    several = False
    try:
        with kernel.charging(sample.budget):
            for block in sample.leaders:
                at, seen = block.word(offset), {block.address + offset}
                while at not in seen and len(seen) < MAX_SAMPLED_THREADS:
                    task = kernel.containing(at, offset)
                    same = kernel.number(task + tgid, 4) == block.int(tgid)
                    if not (same and sample.is_task(task)):
                        return False
                    seen.add(at)
                    at = kernel.pointer(at)
                if at != block.address + offset:
                    return False
                several |= len(seen) > 1
    except MemoryFault:
        return False
    return several


def signal_struct(kernel: Kernel, inference: Inferences) -> Struct:
    """signal_struct.thread_head: thread_node of init_task points to it."""
    node = inference.member("task_struct.thread_node").offset
    head = inference.sample.init.word(node) - kernel.symbol("init_signals")
    return {"thread_head": Inferred(head, 2 * inference.sample.word)}


def thread_info(kernel: Kernel, inference: Inferences) -> Struct:
    """thread_info at the base of the stack, before 4.9: its CPU."""
    sample = inference.sample
    stack = inference.member("task_struct.stack").offset
    if not _has_thread_info_on_stack(kernel, sample, stack):
        raise AbsentError("thread_info is in task_struct")
    found: dict[str, Inferred] = {"task": Inferred(0, sample.word)}
    blocks = []
    for block in sample.leaders:
        try:
            data = kernel.data(block.word(stack), MAX_THREAD_INFO)
        except MemoryFault:
            continue
        blocks.append(Block(block.address, data, sample.word, block.name))
    cpu = _cpu(blocks, MAX_THREAD_INFO)
    if cpu is not None:
        found["cpu"] = Inferred(cpu, 4)
    return found
