"""Inference of struct layouts from damaged and hostile memory."""

import random
import struct
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.budget import BudgetExceededError
from xenkdump_fast.limits import MAX_RUNQUEUE, MAX_TASK_SAMPLE_WALKS, MAX_TIMEKEEPER
from xenkdump_fast.linux import modules
from xenkdump_fast.linux.infer import INFERRERS, Inference, clock, memory, runqueue, task
from xenkdump_fast.linux.infer.task_sample import Block, TaskSample
from xenkdump_fast.linux.tasklist import MIN_SIZE

from .fakes import FakeKernel, words

INIT_TASK = 0xC000_0000
SYMBOLS = {
    "init_task": INIT_TASK,
    "init_thread_union": 0xC010_0000,
    "runqueues": 0xC020_0000,
    "modules": 0xC030_0000,
    "init_uts_ns": 0xC040_0000,
    "jiffies_64": 0xC050_0000,
    "tick_nsec": 0xC050_0010,
    "timekeeper": 0xC060_0000,
    "__switch_to_asm": 0xC070_0000,
    "init_signals": 0xC080_0000,
}


def kernel_of(data: bytes, word: int) -> FakeKernel:
    """A kernel whose symbols all point to copies of ``data``; init_task has its name."""
    kernel = FakeKernel(SYMBOLS, word=8 if word == 8 else 4)
    for address in SYMBOLS.values():
        if address % 4096 == 0:
            kernel.memory.write(address, data)
    kernel.memory.write(INIT_TASK + 0x200, b"swapper/0\0")
    return kernel


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", INFERRERS)
def test_noise(name: str, seed: int, word: int) -> None:
    kernel = kernel_of(random.Random(seed).randbytes(0x8000), word)
    inference = Inference(kernel, "no types")
    assert name == "module" or name not in inference


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("name", INFERRERS)
def test_every_word_points_to_init_task(name: str, word: int) -> None:
    kernel = kernel_of(words(word, *[INIT_TASK] * (0x8000 // word)), word)
    assert name not in Inference(kernel, "no types")


def test_a_task_list_that_ends_in_missing_memory() -> None:
    kernel = kernel_of(bytes(0x8000), 4)
    kernel.memory.write(INIT_TASK + 0x100, words(4, 0xD000_0000, 0xD000_0000))
    with pytest.raises(AbsentError, match="cannot be inferred"):
        Inference(kernel, "no types").member("task_struct.pid")


def test_a_task_list_in_memory_mapped_by_five_levels() -> None:
    # Seen on 6.12 with KASLR: the direct mapping at 0xff25ef7a40000000.
    kernel = kernel_of(bytes(0x8000), 8)
    kernel.location = kernel.location._replace(paging="x86_64-la57")
    addresses = [INIT_TASK, 0xFF25_EF7A_4120_0000, 0xFF25_EF7A_4130_0000]
    for i, address in enumerate(addresses):
        around = addresses[(i + 1) % 3], addresses[i - 1]
        kernel.memory.write(address, bytes(0x4000))
        kernel.memory.write(address + 0x100, words(8, *(each + 0x100 for each in around)))
        kernel.memory.write(address + 0x200, b"swapper/0\0")
    assert [leader.address for leader in TaskSample(kernel).leaders] == addresses[1:]


FAR = 0xFFFF_8880_0000_0000
#: Offsets in task_structs that are full of names.
TASKS, THREADS, TGID = 0x110, 0x2F0, 0x400


def kernel_with_leaders(count: int, distance: int) -> FakeKernel:
    """A kernel with ``count`` leaders, ``distance`` bytes apart."""
    kernel = kernel_of(bytes(0x8000), 8)
    kernel.memory.write(FAR, b"aa \0" * ((count * distance + 0x8000) // 4))
    around = [INIT_TASK, *(FAR + i * distance for i in range(count)), INIT_TASK]
    for before, at, after in zip(around, around[1:], around[2:], strict=False):
        kernel.memory.write(at + TASKS, words(8, after + TASKS, before + TASKS))
    kernel.memory.write(INIT_TASK + TASKS, words(8, around[1] + TASKS, around[-2] + TASKS))
    return kernel


def test_overlapping_leaders_are_rejected() -> None:
    """Comparing 4095 of them in 130 KiB with each other took 7 s."""
    assert len(TaskSample(kernel_with_leaders(100, MIN_SIZE)).leaders) == 100
    with pytest.raises(AbsentError, match="on no list with other tasks"):
        TaskSample(kernel_with_leaders(100, 0x20))


def test_leaders_are_limited_by_the_memory_held() -> None:
    kernel = kernel_with_leaders(100, MIN_SIZE)
    kernel.memory_held = 5 * 0x4000
    assert len(TaskSample(kernel).leaders) == 5


def test_leaders_that_the_dump_has_in_part_are_left_out() -> None:
    """A page of zeros of one task hid the layouts of all."""
    kernel = kernel_with_leaders(10, 0x8000)
    kernel.memory.drop(FAR + 3 * 0x8000 + 0x1000)
    sample = TaskSample(kernel)
    left = [FAR + i * 0x8000 for i in range(10) if i != 3]
    assert [block.address for block in sample.leaders] == left
    for i in range(9):
        if i != 3:
            kernel.memory.drop(FAR + i * 0x8000 + 0x1000)
    with pytest.raises(AbsentError, match="no task_struct on the list"):
        TaskSample(kernel)


def test_walks_of_lists_share_a_budget() -> None:
    """A chain that does not return to its head was followed again for each offset."""
    kernel = kernel_with_leaders(3, 0x4000)
    kernel.memory_held = 1 << 16
    many, base = 1000, FAR + 0x10_0000
    kernel.memory.write(base - 0x1000, b"aa \0" * (0x1000 // 4 + many * 16 + 0x1000))
    for i in range(many):
        kernel.memory.number(base + i * 64, base + (i + 1) % many * 64, 8)
    kernel.memory.number(FAR + THREADS, base, 8)
    sample = TaskSample(kernel)
    kernel.memory.reads = 0
    assert not task._are_thread_groups(kernel, sample, THREADS, TGID)
    with suppress(BudgetExceededError):
        for _ in range(100):
            assert not task._are_thread_groups(kernel, sample, THREADS, TGID)
    assert sample.budget.exhausted
    assert 3 * many < kernel.memory.reads <= MAX_TASK_SAMPLE_WALKS * kernel.memory_held // 256


def test_the_size_of_the_timekeeper_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_of(bytes(0x8000), 8)
    monkeypatch.setattr(kernel.symbols, "all", lambda name: [SimpleNamespace(size=1 << 40)])
    sizes: list[int] = []
    read = kernel.data

    def counted(address: int, size: int) -> bytes:
        sizes.append(size)
        return read(address, size)

    monkeypatch.setattr(kernel, "data", counted)
    with pytest.raises(AbsentError):
        clock.timekeeper(kernel, Inference(kernel, "no types"))
    assert sizes[0] == MAX_TIMEKEEPER


def test_run_queues_are_limited_by_the_memory_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """8192 run queues of 32 KiB each may be mapped to the same memory."""
    kernel = kernel_of(bytes(0x8000), 8)
    kernel.symbols.update(__cpu_possible_mask=FAR, __per_cpu_offset=FAR + 8)  # type: ignore[attr-defined]
    kernel.memory.write(FAR, words(8, (1 << 64) - 1, *range(64)))
    kernel.memory.write(SYMBOLS["runqueues"], bytes(0x10000))
    kernel.memory_held = 16 * runqueue.DEFAULT_SIZE
    taken: list[Any] = []
    monkeypatch.setattr(runqueue, "_are_idle", lambda *given: taken.append(given[2]))
    inference: Any = SimpleNamespace(
        sample=SimpleNamespace(word=8, words=lambda start, end: iter([start])),
        member=lambda path: SimpleNamespace(offset=0),
    )
    for size, count in ((0x800, 16), (MAX_RUNQUEUE, 2)):
        monkeypatch.setattr(kernel.symbols, "all", lambda name, at=size: [SimpleNamespace(size=at)])
        with pytest.raises(AbsentError):
            runqueue.rq(kernel, inference)
        assert len(taken.pop()) == count


def threads_on(cpus: dict[bytes, int]) -> list[Block]:
    """Tasks with names, each with its CPU at offset 8, and a member that is always 0 before it."""
    return [Block(0, struct.pack("<4i", 1 << 20, 0, cpu, 0), 8, name) for name, cpu in cpus.items()]


BOUND = {
    b"%s/%d" % (name, cpu): cpu
    for name in (b"cpuhp", b"migration", b"ksoftirqd", b"idle_inject")
    for cpu in range(2)
}


def test_a_young_kworker_is_not_yet_on_its_cpu() -> None:
    """Seen on 7.3: then no CPU was inferred, and all tasks were shown on CPU 0."""
    assert task._cpu(threads_on(BOUND)) == 8
    assert task._cpu(threads_on({**BOUND, b"kworker/1:0H": 0, b"init": 1})) == 8
    # A majority is not sufficient if it is only on one CPU.
    many = {b"kworker/0:%d" % i: 0 for i in range(20)}
    assert task._cpu(threads_on({**many, b"migration/1": 1})) == 8
    assert task._cpu(threads_on({**many, b"migration/1": 0})) is None
    assert task._cpu(threads_on({name: 1 - cpu for name, cpu in BOUND.items()})) is None
    assert task._cpu(threads_on(many)) is None


MODULE = 0xFFFF_FFFF_C010_6700
MEMORY = 0x140


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize(("before", "size"), [(2, 1), (2, 1.5), (3, 2.5), (4, 3)])
def test_memory_of_modules_since_6_4(before: int, size: float, word: int) -> None:
    """{base, size, node}; {base, is_rox, size, node}; with rw_copy."""
    if size * word % 4:
        pytest.skip("not aligned")
    at_size = int(size * word)
    head = SYMBOLS["modules"]
    kernel = FakeKernel(SYMBOLS, word=8 if word == 8 else 4)
    base = MODULE if word == 8 else MODULE & 0xFFFF_FFFF
    places = [base, base + 0x10_0000, head]
    stride = (before + 7) * word
    kernel.memory.write(head, words(word, places[0] + word, places[1] + word))
    for i, place in enumerate(places[:2]):
        kernel.memory.write(place, bytes(0x1000))
        after = head if i else places[1] + word
        back = places[0] + word if i else head
        kernel.memory.write(place + word, words(word, after, back))
        kernel.memory.write(place + 3 * word, b"name\0")
        # As mkobj.mod.
        kernel.memory.write(place + 0x80, words(word, place))
        for kind in range(7):
            at = place + MEMORY + kind * stride
            if kind < 4:
                start = (place & ~0xFFF) + (kind - 1) * 0x2000
                kernel.memory.write(at, words(word, start))
                kernel.memory.number(at + at_size, 0x2000 if kind else 0x5000, 4)
            kernel.memory.write(at + before * word, words(word, place))
    inference = Inference(kernel, "no types")
    assert inference.member("module.mem").offset == MEMORY
    assert inference.sizeof("module_memory") == stride
    assert inference.member("module_memory.base").offset == 0
    assert inference.member("module_memory.size").offset == at_size
    # An element of one module belongs to another module.
    kernel.memory.write(places[1] + MEMORY + before * word, words(word, places[0]))
    assert "module" not in Inference(kernel, "no types")


@pytest.mark.parametrize("form", ["long", "core_symtab"])
@pytest.mark.parametrize("word", [4, 8])
def test_symbols_of_modules_before_4_5(word: Literal[4, 8], form: str) -> None:
    """{symtab, long num_symtab, strtab}, then 2.6.32's; behind a cache line for each CPU."""
    head = SYMBOLS["modules"]
    kernel = FakeKernel(SYMBOLS, word=word)
    base = MODULE & ~0xFFF & ((1 << 8 * word) - 1)
    places = [base + 0x180, base + 0x10_0180, head]
    kernel.memory.write(head, words(word, places[0] + word, places[1] + word))
    sizes = (0, 0x9000, 0, 0x180)
    width = word if form == "long" else 4
    tables = 0x140 + 255 * 64
    for i, place in enumerate(places[:2]):
        core, symtab, strtab = place - 0x180, place + 0x6000, place + 0x7000
        kernel.memory.write(core, bytes(0x9000))
        after = head if i else places[1] + word
        kernel.memory.write(place + word, words(word, after, places[0] + word if i else head))
        kernel.memory.write(place + 3 * word, b"name\0")
        kernel.memory.write(place + 0x100, words(word, 0, core) + words(width, *sizes))
        count = 3 + i
        members = (
            words(word, symtab, count, strtab)
            if form == "long"
            else words(word, symtab, symtab) + words(4, count, count) + words(word, strtab, strtab)
        )
        kernel.memory.write(place + tables, members)
        kernel.memory.write(symtab + 24, words(word, 1, core))
        kernel.memory.write(strtab, b"\0init_module\0")
    inference = Inference(kernel, "no types")
    found = {
        name: (inference.member(f"module.{name}").offset, inference.member(f"module.{name}").size)
        for name in ("module_init", "module_core", "core_size", "symtab", "num_symtab", "strtab")
    }
    number = (word, width) if form == "long" else (2 * word, 4)
    assert found == {
        "module_init": (0x100, word),
        "module_core": (0x100 + word, word),
        "core_size": (0x100 + 2 * word + width, width),
        "symtab": (tables, word),
        "num_symtab": (tables + number[0], number[1]),
        "strtab": (tables + (2 * word if form == "long" else 2 * word + 8), word),
    }
    # Without CONFIG_KALLSYMS.
    kernel.memory.write(places[0] + tables, bytes(64))
    without = Inference(kernel, "no types")
    assert "module" in without
    with pytest.raises(AbsentError, match="symtab cannot be inferred"):
        without.member("module.symtab")


def test_modules_that_cannot_be_read_are_reported() -> None:
    kernel = kernel_of(bytes(0x8000), 8)
    kernel.__dict__["types"] = Inference(kernel, "no types")
    head = SYMBOLS["modules"]
    kernel.memory.write(head, words(8, head, head))
    assert list(modules.modules(kernel)) == []
    assert kernel.warnings == []
    kernel.memory.write(head, words(8, head + 0x100, head + 0x100))
    kernel.memory.write(head + 0x100, words(8, head, head))
    assert list(modules.modules(kernel)) == []
    assert kernel.warnings == [
        "the modules are not known: the layout of struct module cannot be inferred"
    ]


#: Members of mm_struct from hiwater_rss to the word before start_code, by version and word size.
MEMORY_MEMBERS = {
    "2.6.18": (8, "hiwater_rss hiwater_vm total locked data code stack reserved def_flags ptes"),
    "3.2": (8, "hiwater_rss hiwater_vm total locked pinned data code stack def_flags ptes"),
    "4.9": (4, "hiwater_rss hiwater_vm total locked pinned data code stack def_flags"),
    "4.19": (8, "hiwater_rss hiwater_vm total locked pinned data code stack def_flags arg_lock"),
    "5.10": (
        4,
        "hiwater_rss hiwater_vm total locked gap pinned pinned_high data code stack def_flags "
        "write_protect_seq arg_lock",
    ),
}
PROGRAM = [0x804_9000, 0x81B_F42C, 0x822_9878, 0x822_E658, 0x920_A000, 0x922_C000]
STACK = [0xBFBF_8B60, 0xBFBF_9FCE, 0xBFBF_9FE4, 0xBFBF_9FE4, 0xBFBF_9FF6]


def memory_blocks(version: str, sizes: list[int], **members: int) -> tuple[int, list[Block]]:
    """mm_structs of one program with different total_vm; the offset of start_code."""
    word, names = MEMORY_MEMBERS[version]
    # mmlist before hiwater_rss: pointers that are different in each.
    before = [0xC101_A95C & (1 << word * 8) - 1] * 4
    blocks = []
    for i, total in enumerate(sizes):
        values = {"total": total, "data": 0x26, "code": 0x179, "stack": 0x21, **members}
        middle = [values.get(name, 0) for name in names.split()]
        data = words(word, *(at + i * 0x40 for at in before), *middle, *PROGRAM, *STACK)
        blocks.append(Block(0xC200_0000 + i * 0x400, data, word))
    return (len(before) + len(middle)) * word, blocks


@pytest.mark.parametrize("sizes", [[0x232] * 8, [0x232, 0x242] * 4, [0x232, 0x1F0, 0x8000, 0x1D0]])
@pytest.mark.parametrize("hiwater", [0, 0x9000])
@pytest.mark.parametrize("version", MEMORY_MEMBERS)
def test_total_vm_of_one_program(version: str, hiwater: int, sizes: list[int]) -> None:
    """As in an initial RAM disk: every process runs busybox, so that sizes are hardly different."""
    word, names = MEMORY_MEMBERS[version]
    start, blocks = memory_blocks(version, sizes, hiwater_vm=hiwater, write_protect_seq=0xA0)
    expected = (4 + names.split().index("total")) * word
    assert memory._total_vm(blocks, start, word) == expected


def test_total_vm_is_no_pointer() -> None:
    """Without plausible sizes no member is inferred: VSZ is unknown then, not wrong."""
    start, blocks = memory_blocks("5.10", [0xC101_A95C] * 4)
    assert memory._total_vm(blocks, start, 4) is None
    start, blocks = memory_blocks("5.10", [0x232] * 4, code=0)
    assert memory._total_vm(blocks, start, 4) is None


def test_total_vm_of_a_program_without_its_code() -> None:
    """A process that has unmapped its own code does not hide the member."""
    start, blocks = memory_blocks("4.9", [0x232] * 20)
    assert memory._total_vm(blocks, start, 4) == 6 * 4
    other = memory_blocks("4.9", [0x40], code=2)[1]
    assert memory._total_vm([*blocks, *other], start, 4) == 6 * 4
