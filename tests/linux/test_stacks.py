"""Sizes of stacks, and the registers saved on them."""

from types import SimpleNamespace
from typing import Literal

import pytest

from xenkdump_fast.linux import stacks

from .fakes import FakeKernel


@pytest.mark.parametrize("size", [0x1000, 0x2000, 0x8000])
def test_the_size_from_types_or_symbols(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FakeKernel({}, {"thread_union": size}).stack_size == size
    kernel = FakeKernel({})
    monkeypatch.setattr(kernel.symbols, "all", lambda name: [SimpleNamespace(size=size)])
    assert kernel.stack_size == size


@pytest.mark.parametrize("size", [0, 8, 0x800, 16 << 20, 1 << 62])
def test_an_invalid_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scanning 16 MiB, all mapped to one page, took a second per CPU."""
    kernel = FakeKernel({}, {"thread_union": size})
    monkeypatch.setattr(kernel.symbols, "all", lambda name: [SimpleNamespace(size=size)])
    assert kernel.stack_size == 0x4000
    assert FakeKernel({}, {"thread_union": size}, word=4).stack_size == 0x2000


@pytest.mark.parametrize(
    ("word", "code", "words"),
    [
        (4, b"\x5d\x9d", 2),  # pop %ebp; popf
        (4, b"\x5d\xc3", 1),
        (4, b"\x90\x5d\xc3", 2),
        (8, b"\x90\x48\x89\xee\x5d\x9d", 2),
        (8, b"\x90\x48\x89\xee\x5d\x0a", 1),
        # Regression: at the end of the searched code, bytes past the end were read.
        (8, b"\x90" * 60 + b"\x48\x89\xee\x5d\x41", 1),
        (8, b"\x90" * 60 + b"\x48\x89\xee\x5d\x9d", 2),
        (8, b"\x90" * 61 + b"\x48\x89\xee\x5d\x41", 2),
        # Not found: only the expected sequence is accepted.
        (8, b"\x90\x90\x5d\x41", 2),
    ],
)
def test_the_words_that_switch_to_pops(word: Literal[4, 8], code: bytes, words: int) -> None:
    kernel = FakeKernel({}, word=word)
    kernel.memory.write(0x1000, code)
    assert stacks._pushed_words(kernel, 0x1000) == words
    assert stacks._pushed_words(kernel, 0x9000) == 2
