"""The layer of volatility3 with a domain's memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_forge import write_dump

pytest.importorskip("volatility3", reason="pip install 'xenkdump_fast[volatility]'")

from xenkdump_fast.bridges.volatility import runner

PAGE = 4096


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> xk.BareMachine:
    made = write_dump(tmp_path_factory.mktemp("dump"), "modern")
    return xk.open(str(made.vmcore)).domain(0, str(made.vmlinux)).as_bare()


@pytest.fixture
def layer(bare: xk.BareMachine, tmp_path: Path) -> Iterator[Any]:
    """Its layer; of the memory that is held, the last but one page is left out."""
    runner.prepare(str(tmp_path))
    from volatility3.framework import contexts

    from xenkdump_fast.bridges.volatility.layer import DomainLayer

    pages = [first + i for first, count in bare.runs().tolist() for i in range(count)]
    hole = pages[-2]
    runs = [(first, count) for first, count in split(pages, hole)]
    DomainLayer.register("test", bare.memory, np.array(runs, np.uint64))
    context = contexts.Context()
    context.config["layer.key"] = "test"
    made = DomainLayer(context, "layer", "memory")
    context.add_layer(made)
    yield made, hole * PAGE
    DomainLayer.forget("test")


def split(pages: list[int], hole: int) -> Iterator[tuple[int, int]]:
    """Runs of the pages without ``hole``."""
    start = before = None
    for page in pages:
        if page == hole:
            continue
        if before is None or page != before + 1:
            if start is not None and before is not None:
                yield start, before - start + 1
            start = page
        before = page
    assert start is not None
    assert before is not None
    yield start, before - start + 1


def test_memory_is_read(layer: Any, bare: xk.BareMachine) -> None:
    memory, hole = layer
    first = int(bare.runs()[0, 0]) * PAGE
    assert memory.read(first, 64) == bare.memory.read(first, 64)
    assert memory.maximum_address == hole + 2 * PAGE - 1
    assert memory.is_valid(first, PAGE)
    assert memory.is_valid(hole - 1)
    assert memory.is_valid(hole + PAGE, PAGE)
    assert not memory.is_valid(hole)
    assert not memory.is_valid(hole - 1, 2)
    assert not memory.is_valid(hole - 1, PAGE + 2)
    assert not memory.is_valid(hole + PAGE, PAGE + 1)
    assert not memory.is_valid(-1, 2)


def test_what_is_missing_is_an_error_or_zeros(layer: Any) -> None:
    from volatility3.framework import exceptions

    memory, _ = layer
    end = memory.maximum_address + 1
    with pytest.raises(exceptions.InvalidAddressException):
        memory.read(end - 8, 16)
    padded = memory.read(end - 8, 16, pad=True)
    assert padded == memory.read(end - 8, 8) + bytes(8)
    assert memory.read(end + PAGE, 16, pad=True) == bytes(16)
    with pytest.raises(exceptions.InvalidAddressException):
        memory.read(2**70, 8)


def test_scans_skip_holes(layer: Any, bare: xk.BareMachine) -> None:
    from volatility3.framework.layers import scanners

    memory, hole = layer
    words = [bare.memory.read(hole + at, 8) for at in (-PAGE, PAGE)]
    for at, word in zip((hole - PAGE, hole + PAGE), words, strict=True):
        found = memory.scan(memory.context, scanners.BytesScanner(word))
        if any(word):
            assert at in list(found)
    sections = list(memory._scan_iterator(scanners.BytesScanner(b"x"), [(0, 1 << 60)]))
    held = sum(size for parts, _ in sections for _, _, size in parts)
    assert held >= (int(bare.runs()[:, 1].sum()) - 1) * PAGE
    assert not any(at <= hole < at + size for parts, _ in sections for _, at, size in parts)
