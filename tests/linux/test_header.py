"""The session header: MEMORY by the NUMA nodes."""

from types import SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast import MemoryFault
from xenkdump_fast.linux import header

from .fakes import FakeKernel, FakeMember, FakeSymbols

NODES, IDS, FIRST, SECOND = 0x10000, 0x20000, 0x30000, 0x31000


class Sized(FakeSymbols):
    """node_data has 1024 entries, on two pages."""

    def all(self, name: str) -> list[Any]:
        return [SimpleNamespace(size=8192)] if name == "node_data" else []


def kernel_with_nodes(count: int | None) -> FakeKernel:
    symbols = {"node_data": NODES} | ({} if count is None else {"nr_node_ids": IDS})
    kernel = FakeKernel({}, {"pglist_data.node_present_pages": FakeMember(0x10, 8)})
    kernel.__dict__["symbols"] = Sized(symbols)
    for i, (node, pages) in enumerate([(FIRST, 100), (SECOND, 23)]):
        kernel.memory.number(NODES + i * 8, node, 8)
        kernel.memory.number(node + 0x10, pages, 8)
    if count is not None:
        kernel.memory.number(IDS, count, 4)
    return kernel


@pytest.mark.parametrize(("count", "pages"), [(2, 123), (1, 100), (64, 123)])
def test_the_end_of_the_array_may_be_missing(count: int, pages: int) -> None:
    """Its second page is zeros, which makedumpfile -d 1 leaves out."""
    assert header.memory(kernel_with_nodes(count)) == pages * 4096


@pytest.mark.parametrize("count", [None, 1024, 0xFFFF_FFFF])
def test_nodes_that_may_be_missing(count: int | None) -> None:
    kernel = kernel_with_nodes(count)
    with pytest.raises(MemoryFault):
        header.memory(kernel)
    kernel.memory.write(NODES + 4096, bytes(4096))
    assert header.memory(kernel) == 123 * 4096
