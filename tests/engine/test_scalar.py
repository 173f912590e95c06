"""Calls of address spaces and P2Ms with single numbers."""

from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast._native import P2M, AbsentError, MemoryFault

from .conftest import Guest
from .machine import FRAME_LIST, PAGES, VIRTUAL


def test_kinds_of_entries(guest: Guest) -> None:
    entries = [guest.p2m.entry(pfn) for pfn in (4, 5, 6, 7, PAGES)]
    assert entries == [
        ("frame", 0x100C),
        ("invalid", None),
        ("foreign", 0x77),
        ("identity", 7),
        ("out of range", None),
    ]
    assert (guest.p2m.pages, guest.p2m.word, guest.p2m.source) == (PAGES, 8, "list")


def test_special_entries_are_faults_with_a_reason(guest: Guest) -> None:
    assert guest.p2m.resolve(8) == guest.entries[8]
    for pfn, reason in ((5, "invalid"), (6, "another domain"), (7, "identity"), (PAGES, "end")):
        with pytest.raises(MemoryFault, match=reason) as caught:
            guest.p2m.resolve(pfn)
        fault = caught.value
        assert (fault.kind, fault.address) == ("pseudo-physical", pfn * 4096)
        assert reason in fault.reason


def test_reverse(guest: Guest) -> None:
    assert guest.p2m.reverse(guest.entries[1023]) == 1023
    with pytest.raises(AbsentError):
        guest.p2m.reverse(guest.entries[1023] + 1)


def test_reads_by_each_kind_of_address(guest: Guest) -> None:
    for pfn in (0, 8, 511, 512, 1023):
        mfn, word = guest.entries[pfn], pfn.to_bytes(4, "little")
        assert guest.dump.machine.read(mfn * 4096 + 4, 4) == word
        assert guest.physical.read(pfn * 4096 + 4, 4) == word
        assert guest.virtual.read(VIRTUAL + pfn * 4096 + 4, 4) == word
        assert guest.virtual.translate(VIRTUAL + pfn * 4096 + 4) == mfn * 4096 + 4
        assert guest.physical.translate(pfn * 4096 + 4) == mfn * 4096 + 4
    both = guest.virtual.read(VIRTUAL + 9 * 4096 - 4, 8)
    assert both == (8).to_bytes(4, "little") + (9).to_bytes(4, "little")
    assert guest.virtual.word(VIRTUAL + 300 * 4096 + 1, 1) == 1
    assert guest.virtual.u16(VIRTUAL + 300 * 4096) == 300
    assert guest.virtual.u64(VIRTUAL + 300 * 4096) == 300 << 32 | 300
    with pytest.raises(ValueError, match="1, 2, 4 or 8"):
        guest.virtual.word(VIRTUAL, 3)


def test_missing_frames_are_faults(guest: Guest) -> None:
    for read, address in (
        (guest.virtual.read, VIRTUAL + 900 * 4096 - 4),
        (guest.physical.read, 900 * 4096 - 4),
    ):
        assert read(address, 4) == (899).to_bytes(4, "little")
        with pytest.raises(MemoryFault, match="in no segment") as caught:
            read(address, 5)
        assert caught.value.kind == "machine"


def test_cstring(guest: Guest) -> None:
    assert guest.physical.cstring(0x101 * 4096) == b"\x01\x01"
    assert guest.physical.cstring(0x101 * 4096 + 3) == b""
    assert guest.physical.cstring(0x101 * 4096, 1) == b"\x01"


@pytest.mark.parametrize("bad", [-1, 2**64, pytest.param(-(16**5000), id="long")])
def test_invalid_addresses(guest: Guest, bad: int) -> None:
    """Numbers out of range, as computed from values of a damaged dump."""
    for space in guest.spaces():
        calls: list[Callable[..., Any]] = [space.translate, space.u8, space.u64, space.cstring]
        more: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            *((call, ()) for call in calls),
            (space.word, (4,)),
            (space.read, (1,)),
            (space.readinto, (bytearray(8),)),
            (space.read_array, ("u1", 1)),
        ]
        for call, arguments in more:
            with pytest.raises(MemoryFault, match="is outside the address space") as caught:
                call(bad, *arguments)
            assert (caught.value.address, caught.value.kind) == (bad, space.kind)
    with pytest.raises(MemoryFault):
        guest.virtual.mapping(bad)
    assert guest.p2m.entry(bad) == ("out of range", None)
    for call in (guest.p2m.resolve, guest.p2m.reverse):
        with pytest.raises(MemoryFault, match="is outside"):
            call(bad)


def test_mapping_lists_page_table_entries(guest: Guest) -> None:
    mapping = guest.virtual.mapping(VIRTUAL + 0x5123 + 3 * 4096)
    assert mapping.machine == guest.entries[8] * 4096 + 0x123
    assert mapping.page_size == 4096
    assert mapping.flag_names == ["PRESENT", "RW", "USER", "ACCESSED", "DIRTY"]
    tables = [(level, table >> 12, index) for level, table, index, _ in mapping.levels]
    assert tables == [(4, 0x20, 273), (3, 0x21, 0), (2, 0x22, 0), (1, 0x23, 8)]
    with pytest.raises(MemoryFault) as caught:
        guest.virtual.mapping(VIRTUAL + 5 * 4096)
    assert [level[0] for level in caught.value.levels] == [4, 3, 2, 1]  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        guest.physical.mapping(0)


def test_invalid_sources(guest: Guest) -> None:
    for mfn in (0, 2**64 - 1, 2**32 - 1, 0x999999):
        with pytest.raises(AbsentError):
            P2M.frame_list(guest.dump, mfn, 4)
    with pytest.raises(ValueError, match="4 or 8 bytes"):
        P2M.frame_list(guest.dump, FRAME_LIST, 5)  # type: ignore[arg-type]


def test_comparison(guest: Guest) -> None:
    same = guest.p2m.compare(guest.p2m)
    assert (same.equal, same.different, same.first) == (PAGES, 0, [])
    shorter = P2M.frame_list(guest.dump, FRAME_LIST, 8, 1000)
    assert guest.p2m.compare(shorter).past_end == 24


def test_closed(guest: Guest) -> None:
    virtual, p2m = guest.virtual, guest.p2m
    virtual.close()
    calls: list[Callable[[int], Any]] = [virtual.translate, virtual.u8, virtual.mapping]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call(VIRTUAL)
    assert p2m.resolve(0) == guest.entries[0]
    guest.dump.close()
    with pytest.raises(ValueError, match="closed"):
        p2m.resolve(0)
    with pytest.raises(ValueError, match="closed"):
        guest.physical.read(0, 1)
