"""Inference on memory that is not what it seems."""

import random

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux.infer import INFERRERS, Inference
from xenkdump_fast.linux.infer.sample import Sample

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
    """Every symbol leads to the same bytes, which start with the name of the first task."""
    kernel = FakeKernel(SYMBOLS, word=8 if word == 8 else 4)
    for address in SYMBOLS.values():
        if address % 4096 == 0:
            kernel.memory.write(address, data)
    kernel.memory.write(INIT_TASK + 0x200, b"swapper/0\0")
    return kernel


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("struct", INFERRERS)
def test_noise(struct: str, seed: int, word: int) -> None:
    kernel = kernel_of(random.Random(seed).randbytes(0x8000), word)
    inference = Inference(kernel, "no types")
    assert struct == "module" or struct not in inference


@pytest.mark.parametrize("word", [4, 8])
@pytest.mark.parametrize("struct", INFERRERS)
def test_every_word_leads_to_init_task(struct: str, word: int) -> None:
    kernel = kernel_of(words(word, *[INIT_TASK] * (0x8000 // word)), word)
    assert struct not in Inference(kernel, "no types")


def test_a_task_list_that_ends_in_a_hole() -> None:
    kernel = kernel_of(bytes(0x8000), 4)
    kernel.memory.write(INIT_TASK + 0x100, words(4, 0xD000_0000, 0xD000_0000))
    with pytest.raises(AbsentError, match="cannot be inferred"):
        Inference(kernel, "no types").member("task_struct.pid")


def test_a_task_list_in_memory_that_only_five_levels_reach() -> None:
    # Seen on 6.12 with KASLR: the direct mapping at 0xff25ef7a40000000.
    kernel = kernel_of(bytes(0x8000), 8)
    kernel.location = kernel.location._replace(paging="x86_64-la57")
    addresses = [INIT_TASK, 0xFF25_EF7A_4120_0000, 0xFF25_EF7A_4130_0000]
    for i, address in enumerate(addresses):
        around = addresses[(i + 1) % 3], addresses[i - 1]
        kernel.memory.write(address, bytes(0x4000))
        kernel.memory.write(address + 0x100, words(8, *(each + 0x100 for each in around)))
        kernel.memory.write(address + 0x200, b"swapper/0\0")
    assert [leader.address for leader in Sample(kernel).leaders] == addresses[1:]
