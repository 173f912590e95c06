"""Disks and their requests in the layouts of several versions, and damage in them."""

import pytest

from xenkdump_fast import AbsentError, MemoryFault
from xenkdump_fast.budget import BudgetExceededError
from xenkdump_fast.limits import MAX_DISK_TAGS
from xenkdump_fast.linux import disks
from xenkdump_fast.linux.disks import Disk, Requests

from .objects import NOWHERE, Objects

COMMON = """
kset: list:16 kobj.entry:16
subsys_private: pad:16 subsys.kobj.entry:16 class klist_devices.k_list:16
klist_node: n_node:16
block_device_operations: owner
disk_stats: in_flight:16
request: q cmd_flags:4 tag:4 ref.counter:4
blk_mq_tag_set: nr_hw_queues:4 pad:4 tags
sbitmap: depth:4 shift:4 map_nr:4 pad:4 map
sbitmap_word: word cleared
sbitmap_queue: sb:24
blk_mq_hw_ctx: sched_tags
"""
#: 6.12: the number of a partition is in flags, and hardware contexts are in an array as before.
NEW = (
    COMMON
    + """
device_private: knode_class.n_node:16 device
block_device: bd_disk __bd_flags:0 __bd_flags.counter:4 pad:4 bd_stats bd_device:64
gendisk: major:4 first_minor:4 disk_name:32* fops queue part0
blk_mq_tags: nr_reserved_tags:4 pad:4 bitmap_tags:24 breserved_tags:24 rqs static_rqs
request_queue: elevator tag_set nr_hw_queues:4 pad:4 queue_hw_ctx sched_shared_tags
"""
)
#: 5.10: struct hd_struct, and bitmaps of tags behind pointers.
OLD = (
    COMMON
    + """
device_private: knode_class.n_node:16 device
hd_struct: dkstats partno:4 pad:4 __dev:64
gendisk: major:4 first_minor:4 disk_name:32* fops queue part0:80
blk_mq_tags: nr_reserved_tags:4 pad:4 bitmap_tags breserved_tags __bitmap_tags:24 \\
    __breserved_tags:24 rqs static_rqs
request_queue: elevator tag_set nr_hw_queues:4 pad:4 queue_hw_ctx
"""
)
#: 4.18: the node of the class is in struct device; the legacy block layer.
OLDEST = (
    COMMON
    + """
device: pad:8 knode_class.n_node:16
hd_struct: partno:4 pad:4 __dev:24
gendisk: major:4 first_minor:4 disk_name:32* fops queue part0:32
request_queue: request_fn tag_set
"""
)
both = pytest.mark.parametrize("layouts", [NEW.replace("\\\n", ""), OLD.replace("\\\n", "")])


class Machine:
    """A disk with a partition, in the class of block devices."""

    def __init__(self, layouts: str) -> None:
        self.objects = Objects(layouts)
        self.kernel = self.objects.kernel
        objects, offset = self.objects, self.kernel.offset
        block_class = objects.reserve(16)
        kset = objects.make("kset")
        pointer = objects.reserve(8)
        self.kernel.memory.number(pointer, kset, 8)
        objects.symbols(block_class=block_class, class_kset=pointer)
        others = objects.make("subsys_private")
        self.private = objects.make("subsys_private", **{"class": block_class})
        inside = offset("subsys_private.subsys.kobj.entry")
        objects.link(kset + offset("kset.list"), [others + inside, self.private + inside])
        self.queue = objects.make("request_queue")
        self.disk = objects.make("gendisk", major=8, disk_name="sda", queue=self.queue)
        self.nodes = [self._device(0), self._device(1)]
        self.devices = self.private + offset("subsys_private.klist_devices.k_list")
        objects.link(self.devices, self.nodes)

    def _device(self, number: int) -> int:
        """The node of the device of a partition."""
        objects, offset, has = self.objects, self.kernel.offset, self.kernel.has
        if has("block_device.bd_device"):
            part = objects.make(
                "block_device", bd_disk=self.disk, __bd_flags__counter=number | 0x1500
            )
            device = part + offset("block_device.bd_device")
            if not number:
                self.part = part
                objects.set(self.disk, "gendisk", part0=part)
        else:
            part = self.disk + offset("gendisk.part0") if not number else objects.make("hd_struct")
            self.part = part
            objects.set(part, "hd_struct", partno=number)
            device = part + offset("hd_struct.__dev")
        if has("device.knode_class.n_node"):
            return device + offset("device.knode_class.n_node")
        return objects.make("device_private", device=device) + offset(
            "device_private.knode_class.n_node"
        )

    def tags(self, reserved: int, words: list[int], requests: dict[int, int], rows: str) -> int:
        """Tags with a bitmap of 4 bits per word, and these requests by tag."""
        objects, offset = self.objects, self.kernel.offset
        tags = objects.make("blk_mq_tags", nr_reserved_tags=reserved)
        table = objects.reserve(512)
        objects.set(tags, "blk_mq_tags", **{rows: table})
        for tag, at in requests.items():
            self.kernel.memory.number(table + 8 * tag, at, 8)
        for name, values in (("bitmap_tags", words), ("breserved_tags", [1] if reserved else [])):
            array = objects.reserve(16 * (len(values) or 1))
            for i, value in enumerate(values):
                self.kernel.memory.number(array + 16 * i, value, 8)
            bitmap = tags + offset(f"blk_mq_tags.{name}")
            if self.kernel.has(f"blk_mq_tags.__{name}"):
                self.kernel.memory.number(bitmap, objects.make("sbitmap_queue"), 8)
                bitmap = self.kernel.pointer(bitmap)
            objects.set(
                bitmap, "sbitmap", depth=4 * len(values), shift=2, map_nr=len(values), map=array
            )
        return tags

    def request(self, tag: int, flags: int, queue: int | None = None) -> int:
        queue = self.queue if queue is None else queue
        return self.objects.make("request", q=queue, tag=tag, cmd_flags=flags, ref__counter=1)

    def of_driver(self, *tags: int) -> None:
        """The queue has these tags, and no scheduler."""
        array = self.objects.reserve(64)
        for i, at in enumerate(tags):
            self.kernel.memory.number(array + 8 * i, at, 8)
        made = self.objects.make("blk_mq_tag_set", nr_hw_queues=len(tags), tags=array)
        self.objects.set(self.queue, "request_queue", tag_set=made)

    def count(self) -> Requests | None:
        (disk,) = disks.disks(self.kernel)
        return disks.requests(self.kernel, disk)


@pytest.mark.parametrize("layouts", [NEW, OLD, OLDEST])
def test_whole_disks(layouts: str) -> None:
    made = Machine(layouts.replace("\\\n", ""))
    assert disks.disks(made.kernel) == [Disk(made.disk, 8, 0, "sda", 0, "", made.queue)]
    assert made.kernel.warnings == []


@both
def test_requests_of_the_driver(layouts: str) -> None:
    made = Machine(layouts)
    read, write, discard = made.request(1, 0), made.request(5, 0x801), made.request(6, 3)
    stale, foreign = made.request(9, 0), made.request(7, 0, NOWHERE)
    requests = {1: read, 4: stale, 5: write, 6: discard, 7: foreign}
    made.of_driver(made.tags(0, [0b0010, 0b1111], requests, "rqs"))
    assert made.count() == Requests(1, 2)


@both
def test_reserved_tags(layouts: str) -> None:
    """Other tags follow the reserved ones."""
    made = Machine(layouts)
    requests = {0: made.request(0, 1), 3: made.request(3, 0)}
    made.of_driver(made.tags(2, [0b0010], requests, "rqs"))
    assert made.count() == Requests(1, 1)


@both
def test_requests_of_a_scheduler(layouts: str) -> None:
    made = Machine(layouts)
    made.of_driver()
    free = made.objects.make("request")
    requests = {0: made.request(-1, 0), 1: made.request(-1, 1), 2: free}
    tags = made.tags(0, [0b0111], requests, "static_rqs")
    context = made.objects.make("blk_mq_hw_ctx", sched_tags=tags)
    array = made.objects.reserve(8)
    made.kernel.memory.number(array, context, 8)
    made.objects.set(made.queue, "request_queue", elevator=1, nr_hw_queues=1, queue_hw_ctx=array)
    assert made.count() == Requests(1, 1)
    if made.kernel.has("request_queue.sched_shared_tags"):
        shared = made.tags(0, [0b0001], requests, "static_rqs")
        made.objects.set(made.queue, "request_queue", sched_shared_tags=shared)
        assert made.count() == Requests(1, 0)


@both
def test_cleared_tags(layouts: str) -> None:
    made = Machine(layouts)
    tags = made.tags(0, [0b0011], {0: made.request(0, 0), 1: made.request(1, 0)}, "rqs")
    made.of_driver(tags)
    bitmap = tags + made.kernel.offset("blk_mq_tags.bitmap_tags")
    if made.kernel.has("blk_mq_tags.__bitmap_tags"):
        bitmap = made.kernel.pointer(bitmap)
    word = made.kernel.read(bitmap, "sbitmap.map")
    made.objects.set(word, "sbitmap_word", cleared=1)
    assert made.count() == Requests(1, 0)


@both
def test_a_disk_without_requests(layouts: str) -> None:
    """Its statistics count; a CPU may have counted only the ends."""
    made = Machine(layouts)
    stats = made.objects.reserve(64)
    offsets = made.objects.reserve(8)
    made.objects.symbols(__per_cpu_offset=offsets)
    struct, member = ("block_device", "bd_stats")
    if made.kernel.has("hd_struct.dkstats"):
        struct, member = ("hd_struct", "dkstats")
        made.part = made.disk + made.kernel.offset("gendisk.part0")
    made.objects.set(made.part, struct, **{member: stats})
    made.kernel.memory.number(stats, 2, 8)
    made.kernel.memory.number(stats + 8, 2**64 - 1, 8)
    assert made.count() == Requests(2, 0)
    made.objects.symbols(__per_cpu_offset=NOWHERE)
    with pytest.raises(MemoryFault):  # the requests of a CPU were not counted
        made.count()


def test_the_legacy_block_layer() -> None:
    made = Machine(OLDEST)
    made.objects.set(made.queue, "request_queue", request_fn=NOWHERE)
    assert made.count() is None
    made.objects.set(made.disk, "gendisk", queue=0)
    assert made.count() is None


@both
@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("shift", 64, "by a shift of 64: it is damaged"),
        ("map_nr", 0xFFFFFFFF, "has 4 bits in 4294967295 words"),
        ("map", NOWHERE, "not mapped"),
    ],
)
def test_damaged_bitmaps(layouts: str, member: str, value: int, problem: str) -> None:
    made = Machine(layouts)
    tags = made.tags(0, [1], {}, "rqs")
    made.of_driver(tags)
    bitmap = tags + made.kernel.offset("blk_mq_tags.bitmap_tags")
    if made.kernel.has("blk_mq_tags.__bitmap_tags"):
        bitmap = made.kernel.pointer(bitmap)
    made.objects.set(bitmap, "sbitmap", **{member: value})
    with pytest.raises(AbsentError, match=problem):
        made.count()


def test_too_many_tags() -> None:
    """A bitmap of any size may be in mapped memory."""
    made = Machine(NEW.replace("\\\n", ""))
    tags = made.tags(0, [1], {}, "rqs")
    made.of_driver(tags)
    bitmap = tags + made.kernel.offset("blk_mq_tags.bitmap_tags")
    words = MAX_DISK_TAGS + 1
    array = made.objects.reserve(16 * words)
    made.objects.set(bitmap, "sbitmap", depth=4 * words, map_nr=words, map=array)
    with pytest.raises(BudgetExceededError, match="the tags of a disk are more than"):
        made.count()


def test_damaged_devices() -> None:
    made = Machine(NEW)
    made.kernel.memory.number(made.nodes[1] + 16, NOWHERE, 8)
    assert [one.name for one in disks.disks(made.kernel)] == ["sda"]
    assert "the block device at" in made.kernel.warnings[0]
    made.kernel.memory.number(made.nodes[1], made.nodes[0], 8)
    assert [one.name for one in disks.disks(made.kernel)] == ["sda"]
    assert any("loops back" in text for text in made.kernel.warnings)
    made.objects.set(made.private, "subsys_private", **{"class": 0})
    with pytest.raises(AbsentError, match="the class of block devices is not registered"):
        disks.disks(made.kernel)


def test_overlapping_structs() -> None:
    made = Machine(NEW)
    made.objects.link(made.devices, [made.nodes[0], made.nodes[0] + 8])
    disks.disks(made.kernel)
    assert any("overlaps" in text for text in made.kernel.warnings)
