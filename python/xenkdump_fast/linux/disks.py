"""Disks, and the requests that they work on."""

from collections.abc import Iterator
from typing import NamedTuple

from .._native import AbsentError
from ..budget import Budget
from ..isolation import isolated
from ..limits import MAX_CPUS, MAX_DISK_TAGS
from . import percpu, trees
from .device_numbers import owner
from .kernel import Kernel
from .linked_structs import LinkedStructs

_MAX_NAME = 32
_PART_NUMBER = 0xFF
#: The lowest bit of an operation is that of writes; since 4.10 (87374179c535).
_WRITE = 1


class Disk(NamedTuple):
    """A disk."""

    #: Address of the struct gendisk.
    address: int
    major: int
    minor: int
    name: str
    #: Address of its operations, and the module that has them; empty for the kernel.
    operations: int
    module: str
    #: Address of its struct request_queue.
    queue: int


class Requests(NamedTuple):
    """How many requests a disk works on."""

    reads: int
    writes: int


def disks(kernel: Kernel) -> list[Disk]:
    """All disks, in the order of their class.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    found = []
    for device in _devices(kernel):
        with isolated(f"the block device at {device:#x} cannot be read", kernel.warn):
            at = _whole(kernel, device)
            if at:
                operations = kernel.read(at, "gendisk.fops")
                found.append(
                    Disk(
                        at,
                        kernel.read(at, "gendisk.major"),
                        kernel.read(at, "gendisk.first_minor"),
                        kernel.text(at, "gendisk.disk_name", _MAX_NAME),
                        operations,
                        owner(kernel, operations, "block_device_operations.owner"),
                        kernel.read(at, "gendisk.queue"),
                    )
                )
    return found


def _devices(kernel: Kernel) -> Iterator[int]:
    """The struct device of each block device."""
    wanted = kernel.symbol("block_class")
    head = kernel.pointer(kernel.symbol("class_kset")) + kernel.offset("kset.list")
    classes = LinkedStructs(kernel, "subsys_private.subsys.kobj.entry")
    devices = None
    for private in classes.list(head):
        if kernel.read(private, "subsys_private.class") == wanted:
            devices = private + kernel.offset("subsys_private.klist_devices.k_list")
            break
    if devices is None:
        raise AbsentError(f"{kernel.image.path}: the class of block devices is not registered")
    # 5.1 (570d0200123f) moved the node to device_private.
    moved = kernel.has("device_private.knode_class.n_node")
    struct = "device_private" if moved else "device"
    for at in LinkedStructs(kernel, f"{struct}.knode_class.n_node").list(devices):
        with isolated(f"the device of {at:#x} cannot be read", kernel.warn):
            yield kernel.read(at, "device_private.device") if moved else at


def _whole(kernel: Kernel, device: int) -> int:
    """The struct gendisk of a device that is a whole disk; 0 of a partition."""
    # 5.11 (0d02129e76ed): struct block_device in place of struct hd_struct.
    if kernel.has("block_device.bd_device"):
        part = kernel.containing(device, kernel.offset("block_device.bd_device"))
        # 6.10 (1116b9fa15c0): the number is in the flags.
        if kernel.has("block_device.__bd_flags"):
            number = kernel.read(part, "block_device.__bd_flags.counter") & _PART_NUMBER
        else:
            number = kernel.read(part, "block_device.bd_partno")
        return 0 if number else kernel.read(part, "block_device.bd_disk")
    part = kernel.containing(device, kernel.offset("hd_struct.__dev"))
    if kernel.read(part, "hd_struct.partno"):
        return 0
    return kernel.containing(part, kernel.offset("gendisk.part0"))


def requests(kernel: Kernel, disk: Disk) -> Requests | None:
    """The requests of a disk; None if they cannot be counted.

    A request counts from when it has a tag of the scheduler, or of the driver without a scheduler.
    Disks without requests count in their statistics what was submitted to them.
    """
    if not disk.queue:
        return None
    tags = kernel.read(disk.queue, "request_queue.tag_set")
    if not tags:
        # The legacy block layer, before 5.0 (a1ce35fa4985), has requests without tags.
        has_legacy = kernel.has("request_queue.request_fn")
        if has_legacy and kernel.read(disk.queue, "request_queue.request_fn"):
            return None
        return _submitted(kernel, disk)
    writes = [
        kernel.read(at, "request.cmd_flags") & _WRITE for at in set(_busy(kernel, disk.queue, tags))
    ]
    return Requests(writes.count(0), writes.count(_WRITE))


def _submitted(kernel: Kernel, disk: Disk) -> Requests | None:
    """The bios of a disk without requests, by the statistics of each CPU (since 5.0)."""
    if not kernel.has("disk_stats.in_flight"):
        return None
    if kernel.has("block_device.bd_stats"):
        part = kernel.read(disk.address, "gendisk.part0")
        stats = kernel.read(part, "block_device.bd_stats")
    else:
        part = disk.address + kernel.offset("gendisk.part0")
        stats = kernel.read(part, "hd_struct.dkstats")
    at = kernel.offset("disk_stats.in_flight")
    totals = [0, 0]
    for cpu in percpu.areas(kernel):
        for i in range(2):
            counter = percpu.shifted(kernel, stats + at + i * kernel.word, cpu)
            totals[i] += kernel.pointer(counter)
    # A CPU may have counted the end of what another one began.
    mask = kernel.last
    return Requests(*(max(_signed(total & mask, kernel.word), 0) for total in totals))


def _signed(value: int, word: int) -> int:
    return value - (1 << 8 * word) if value >> (8 * word - 1) else value


def _busy(kernel: Kernel, queue: int, tag_set: int) -> Iterator[int]:
    """The requests of a queue that have a tag."""
    budget = Budget("tags of a disk", MAX_DISK_TAGS)
    if kernel.read(queue, "request_queue.elevator"):
        # 5.16 (e155b0c238b2): a queue with shared tags has one struct blk_mq_tags for all contexts.
        member = "request_queue.sched_shared_tags"
        shared = kernel.read(queue, member) if kernel.has(member) else 0
        # Where contexts share only the bitmap (5.10 to 5.15), requests of others are not in use.
        for tags in [shared] if shared else _scheduler_tags(kernel, queue):
            rows = kernel.read(tags, "blk_mq_tags.static_rqs") if tags else 0
            for tag in _tags(kernel, tags, budget) if rows else ():
                request = kernel.pointer(rows + tag * kernel.word)
                if request and _references(kernel, request):
                    yield request
        return
    count = min(kernel.read(tag_set, "blk_mq_tag_set.nr_hw_queues"), MAX_CPUS)
    array = kernel.read(tag_set, "blk_mq_tag_set.tags")
    seen: set[int] = set()
    for i in range(count):
        tags = kernel.pointer(array + i * kernel.word)
        if not tags or tags in seen:
            continue
        seen.add(tags)
        rows = kernel.read(tags, "blk_mq_tags.rqs")
        for tag in _tags(kernel, tags, budget):
            request = kernel.pointer(rows + tag * kernel.word)
            # The entry of a tag is that of its last request, which may be one of another queue.
            if not request or kernel.read(request, "request.q") != queue:
                continue
            if kernel.read(request, "request.tag") == tag:
                yield request


def _references(kernel: Kernel, request: int) -> int:
    """The references to a request: 0 if it is free."""
    # 5.15 (ee37eddbfa9e): an atomic_t in place of a refcount_t in this member.
    if kernel.has("request.ref.refs"):
        return kernel.read(request, "request.ref.refs.counter")
    return kernel.read(request, "request.ref.counter")


def _scheduler_tags(kernel: Kernel, queue: int) -> Iterator[int]:
    for context in _contexts(kernel, queue):
        yield kernel.read(context, "blk_mq_hw_ctx.sched_tags")


def _contexts(kernel: Kernel, queue: int) -> Iterator[int]:
    """The hardware contexts of a queue."""
    # An xarray from 5.18 (4e5cc99e1e48) to 6.18 (d0c98769ee7d).
    if kernel.has("request_queue.hctx_table"):
        root = queue + kernel.offset("request_queue.hctx_table")
        for entry in trees.walk(kernel, "xarray", root & kernel.last):
            yield entry.value
        return
    count = min(kernel.read(queue, "request_queue.nr_hw_queues"), MAX_CPUS)
    array = kernel.read(queue, "request_queue.queue_hw_ctx")
    for i in range(count):
        context = kernel.pointer(array + i * kernel.word)
        if context:
            yield context


def _tags(kernel: Kernel, tags: int, budget: Budget) -> Iterator[int]:
    """The tags in use: the reserved ones come first."""
    reserved = kernel.read(tags, "blk_mq_tags.nr_reserved_tags")
    # From 5.10 (222a5ae03cdd) to 5.15 these are pointers.
    are_pointers = kernel.has("blk_mq_tags.__bitmap_tags")
    for member, first in (("breserved_tags", 0), ("bitmap_tags", reserved)):
        at = tags + kernel.offset(f"blk_mq_tags.{member}")
        at = kernel.pointer(at) if are_pointers else at
        bitmap = at + kernel.offset("sbitmap_queue.sb") & kernel.last
        if member == "bitmap_tags" or reserved:
            yield from (first + bit for bit in _bits(kernel, bitmap, budget))


def _bits(kernel: Kernel, bitmap: int, budget: Budget) -> Iterator[int]:
    """The bits that are set in a struct sbitmap."""
    depth, shift, words = (
        kernel.read(bitmap, f"sbitmap.{name}") for name in ("depth", "shift", "map_nr")
    )
    per_word = 8 * kernel.word
    if shift >= per_word.bit_length() or words != -(-depth >> shift):
        raise AbsentError(
            f"the bitmap at {bitmap:#x} has {depth} bits in {words} words, by a shift of {shift}: "
            "it is damaged"
        )
    array = kernel.read(bitmap, "sbitmap.map")
    size = kernel.types.sizeof("sbitmap_word")
    has_cleared = kernel.has("sbitmap_word.cleared")  # 5.0, ea86ea2cdced
    for i in range(words):
        budget.spend(1)
        at = array + i * size
        value = kernel.read(at, "sbitmap_word.word")
        if has_cleared:
            value &= ~kernel.read(at, "sbitmap_word.cleared")
        start = i << shift
        for bit in range(min(1 << shift, max(depth - start, 0))):
            if value >> bit & 1:
                budget.spend(1)
                yield start + bit
