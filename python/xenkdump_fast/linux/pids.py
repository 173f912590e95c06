"""The kernel's table of pids: a second source of tasks, independent of the task list.

=================  ==============================================================================
2.6.0 to 2.6.16    a hash for each type of pid, of the struct pids in the tasks
2.6.17 to 2.6.23   one hash of struct pid, which points to its tasks
2.6.24 to 4.14     one hash of struct upid, one for each namespace of a pid
4.15 on            a radix tree (IDR) of struct pid for each namespace (95846ecf9dac)
=================  ==============================================================================
"""

from collections.abc import Iterator

from .._native import AbsentError, MemoryFault
from ..limits import MAX_PID_HASH_BITS, MAX_PIDS, MAX_RADIX_LEVELS, MAX_RADIX_SLOTS
from .kernel import Kernel
from .layouts import Number
from .structs import Structs, batches

#: Words of the smallest struct pid: count, level, and lists for at least three types.
PID_WORDS = 4


def tasks(kernel: Kernel) -> Iterator[int]:
    """The address of every task that has a pid; AbsentError if the layout is not known.

    Damaged parts are skipped; ``kernel.warnings`` lists them.
    """
    if kernel.has("pid_namespace.idr"):
        found = _by_pid(kernel, _tree(kernel))
    elif kernel.has("pid.pid_list"):
        found = _in_tasks(kernel)
    elif kernel.has("upid.pid_chain"):
        found = _by_pid(kernel, _numbered(kernel))
    else:
        chain = kernel.offset("pid.pid_chain")
        found = _by_pid(
            kernel, (kernel.containing(node, chain) for node in _hashed(kernel, _table(kernel)))
        )
    yield from found


def _by_pid(kernel: Kernel, pids: Iterator[int]) -> Iterator[int]:
    """The task of each struct pid: the first of its tasks[PIDTYPE_PID], if any."""
    first = Number(kernel.offset("pid.tasks"), kernel.word)
    link = kernel.offset("pid.link")
    if not kernel.has("task_struct.pid_links"):
        link += kernel.offset("pid_link.node")
    for batch in batches(pids):
        structs = Structs(kernel, batch, [first])
        for pid in batch:
            try:
                node = structs.read(pid, first)
            except MemoryFault:
                _damaged(kernel, pid)
                continue
            if node:
                yield kernel.containing(node, link)


def _damaged(kernel: Kernel, at: int) -> None:
    kernel.warn(f"the table of pids is damaged at {at:#x}")


# Hashes


def _table(kernel: Kernel, kind: int = 0) -> int:
    """The address of the buckets of a hash."""
    return kernel.pointer(kernel.symbol("pid_hash") + kind * kernel.word)


def _hashed(kernel: Kernel, table: int) -> Iterator[int]:
    """Every hlist_node in the buckets at ``table``."""
    # int before 4.9, unsigned int since.
    shift = kernel.variable("pidhash_shift", 4)
    if shift > MAX_PID_HASH_BITS:
        raise AbsentError(f"pidhash_shift is {shift}: not the size of a hash")
    buckets = [table + bucket * kernel.word for bucket in range(1 << shift)]
    chains = kernel.lists(buckets, MAX_PIDS, "null-terminated")
    for bucket, chain in zip(buckets, chains, strict=True):
        yield from chain.entries
        if chain.end != "complete":  # for instance if two buckets share a node
            _damaged(kernel, chain.entries[-1] if chain.entries else bucket)


def _in_tasks(kernel: Kernel) -> Iterator[int]:
    """By the struct pids in the tasks: PIDTYPE_PID is the first, and each task has one."""
    chain = kernel.offset("task_struct.pids") + kernel.offset("pid.pid_chain")
    for node in _hashed(kernel, _table(kernel, 0)):
        yield kernel.containing(node, chain)


def _numbered(kernel: Kernel) -> Iterator[int]:
    """The struct pids, by the upids in the hash: a pid has one for each level of namespaces."""
    chain = kernel.offset("upid.pid_chain")
    numbers, size = kernel.offset("pid.numbers"), kernel.types.sizeof("upid")
    for batch in batches(_hashed(kernel, _table(kernel))):
        upids = Structs(kernel, [kernel.containing(node, chain) for node in batch], ["upid.ns"])
        namespaces = Structs(kernel, upids.values("upid.ns"), ["pid_namespace.level"])
        for node in batch:
            try:
                level = namespaces.read(
                    upids.read(kernel.containing(node, chain), "upid.ns"), "pid_namespace.level"
                )
            except MemoryFault:
                _damaged(kernel, node)
                continue
            if level == 0:  # the initial namespace has all pids
                yield kernel.containing(node, chain + numbers + level * size)


# Radix trees


def _tree(kernel: Kernel) -> Iterator[int]:
    """Every entry in the IDR of the initial namespace."""
    root = kernel.symbol("init_pid_ns") + kernel.offset("pid_namespace.idr")
    root += kernel.offset("idr.idr_rt")
    # 4.20 (f8d5d0cc145c) replaced radix trees by xarrays, whose low bits mark a node by 2, not 1.
    if kernel.has("xarray.xa_head"):
        mark, head, node = 2, "xarray.xa_head", "xa_node.slots"
    else:
        mark, head, node = 1, "radix_tree_root.rnode", "radix_tree_node.slots"
    slots = kernel.member(node)
    count = min(slots.count or 1, MAX_RADIX_SLOTS)
    # Nodes do not overlap, and a tree of all pids has fewer than twice as many slots as pids.
    nodes = kernel.object_budget("nodes of pids", count * kernel.word, 2 * MAX_PIDS // count)
    entries = kernel.object_budget("struct pids", PID_WORDS * kernel.word, MAX_PIDS)
    seen: set[int] = set()
    pids: set[int] = set()
    stack = [iter([kernel.read(root, head)])]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        if entry & 3 != mark:
            if entry and entry & 3 == 0 and entry not in pids:
                if not entries.remaining:
                    _damaged(kernel, entry)
                    return
                entries.spend(1)
                pids.add(entry)
                yield entry
            continue
        at = entry - mark
        # A value this low is not a pointer: it refers to another slot of the node.
        if at < 4096:
            continue
        if at in seen or len(stack) > MAX_RADIX_LEVELS:
            _damaged(kernel, at)
            continue
        if not nodes.remaining:
            _damaged(kernel, at)
            return
        nodes.spend(1)
        seen.add(at)
        try:
            data = kernel.data(at + slots.offset, count * kernel.word)
        except MemoryFault:
            _damaged(kernel, at)
            continue
        stack.append(_words(data, kernel.word))


def _words(data: bytes, word: int) -> Iterator[int]:
    return (int.from_bytes(data[i : i + word], "little") for i in range(0, len(data), word))
