"""The paging mode by the values that it has in domains of each kind."""

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen.inferred import paging

from .fake_structs import PAGE, FakeMemory

AT = 1048
HAP, SHADOW, LOG_DIRTY = 0x206800, 0x106800, 0x1000


def host(translated: list[int], others: list[int]) -> tuple[FakeMemory, list[int], list[int]]:
    memory = FakeMemory()

    def domain(mode: int) -> int:
        address = memory.new()
        memory.put(address + AT, mode, 4)
        return address

    return memory, list(map(domain, translated)), list(map(domain, others))


def test_every_kind() -> None:
    memory, translated, others = host([HAP, SHADOW, HAP | LOG_DIRTY], [0, 0x101800])
    assert paging.infer(memory, translated, others, PAGE) == AT


def test_a_second_place_that_fits() -> None:
    memory, translated, others = host([HAP, SHADOW], [0])
    for address in translated:
        memory.put(address + 64, HAP, 4)
    with pytest.raises(AbsentError):
        paging.infer(memory, translated, others, PAGE)
    # It does not in a PV guest.
    memory.put(others[0] + 64, 0x2000, 4)
    assert paging.infer(memory, translated, others, PAGE) == AT


@pytest.mark.parametrize("value", [0, 0x6800, 0x306800, HAP | 1])
def test_no_mode(value: int) -> None:
    with pytest.raises(AbsentError):
        paging.infer(*host([value], []), PAGE)


def test_without_a_translated_guest() -> None:
    with pytest.raises(AbsentError):
        paging.infer(*host([], [0]), PAGE)
