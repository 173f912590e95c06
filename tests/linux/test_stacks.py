"""Where stacks lie, and how large they are."""

from types import SimpleNamespace

import pytest

from xenkdump_fast.linux import stacks

from .fakes import FakeKernel


@pytest.mark.parametrize("size", [0x1000, 0x2000, 0x8000])
def test_the_size_that_types_or_symbols_say(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stacks.size(FakeKernel({}, {"thread_union": size})) == size
    kernel = FakeKernel({})
    monkeypatch.setattr(kernel.symbols, "all", lambda name: [SimpleNamespace(size=size)])
    assert stacks.size(kernel) == size


@pytest.mark.parametrize("size", [0, 8, 0x800, 16 << 20, 1 << 62])
def test_a_size_that_no_stack_has(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB, all of them one frame, took a second to look through, for each CPU."""
    kernel = FakeKernel({}, {"thread_union": size})
    monkeypatch.setattr(kernel.symbols, "all", lambda name: [SimpleNamespace(size=size)])
    assert stacks.size(kernel) == 0x4000
    assert stacks.size(FakeKernel({}, {"thread_union": size}, word=4)) == 0x2000
