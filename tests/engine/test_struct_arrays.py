"""``read_struct_many``: against single reads, and its arguments."""

from typing import Any

import numpy as np
import pytest

from xenkdump_fast import Status
from xenkdump_fast._native import AddressSpace, MemoryFault

from .conftest import Guest
from .machine import PAGE, VIRTUAL

MEMBERS: list[tuple[str, int, Any]] = [
    ("high", 5000, 8),
    ("first", 0, "<u8"),
    ("text", 12, "S16"),
    ("inside", 4, "<i4"),
    ("long", 100, 5000),
    ("pairs", 4090, ("<u2", (2, 2))),
    ("byte", 4095, 1),
]


def spaces(guest: Guest, pfns: list[int]) -> list[tuple[AddressSpace, list[int]]]:
    return [
        (guest.dump.machine, [guest.entries[pfn] * PAGE for pfn in pfns]),
        (guest.physical, [pfn * PAGE for pfn in pfns]),
        (guest.virtual, [VIRTUAL + pfn * PAGE + pfn % 64 for pfn in pfns]),
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_agrees_with_single_reads(guest: Guest, threads: int) -> None:
    rng = np.random.default_rng(5)
    pfns = rng.integers(8, 890, 2500).tolist()
    for space, structs in spaces(guest, pfns):
        structs += [5 * PAGE, 899 * PAGE]
        status = np.full(len(structs), 255, np.uint8)
        found = space.read_struct_many(structs, MEMBERS, status=status, threads=threads)
        assert found.dtype.names == tuple(name for name, _, _ in MEMBERS)
        assert found.dtype.itemsize == sum(found.dtype[name].itemsize for name, _, _ in MEMBERS)
        # Frames of the machine are apart: no struct of several pages is complete there.
        assert (np.count_nonzero(status == 0) > 0) == (space.kind != "machine")
        assert np.count_nonzero(status) > 0
        for row in [*range(0, len(structs), 7), -2, -1]:
            for name, offset, _ in sorted(MEMBERS, key=lambda member: member[1]):
                size = found.dtype[name].itemsize
                try:
                    data = space.read(structs[row] + offset, size)
                except MemoryFault:
                    # The first one by offset: its status is that of read_many.
                    one = np.zeros(1, np.uint8)
                    space.read_many([structs[row] + offset], size, status=one)
                    assert status[row] == one[0] != 0
                    assert not any(found[row].tobytes())
                    break
                if status[row] == 0:
                    assert found[name][[row]].tobytes() == data
            else:
                assert status[row] == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 24, 32, 64, 65])
def test_members_of_each_size(guest: Guest, size: int) -> None:
    members = [("last", 200, f"V{size}"), ("first", 8, f"V{size}"), ("word", 100, 4)]
    rng = np.random.default_rng(size)
    pfns = rng.integers(0, 950, 700).tolist()
    within = rng.integers(0, PAGE, 700).tolist()
    structs = [pfn * PAGE + at for pfn, at in zip(pfns, within, strict=True)] + [2**64 - 100]
    status = np.full(len(structs), 255, np.uint8)
    found = guest.physical.read_struct_many(structs, members, status=status)
    assert {0} < set(status.tolist())
    for address, row, code in zip(structs, found, status, strict=True):
        places = [(8, size), (100, 4), (200, size)]
        try:
            first, word, last = (guest.physical.read(address + at, n) for at, n in places)
        except MemoryFault:
            assert code != 0
            assert not any(row.tobytes())
        else:
            assert code == 0
            assert row.tobytes() == last + first + word


def test_a_fault_names_the_element(guest: Guest) -> None:
    structs = np.array([8, 9, 5, 900], np.uint64) * np.uint64(PAGE)
    found = guest.physical.read_struct_many(structs[:2], [("a", 0, 4), ("b", 8, "V3")])
    assert found["a"].tolist() == [8, 9]
    with pytest.raises(MemoryFault, match="element 2: "):
        guest.physical.read_struct_many(structs, [("a", 0, 4)])
    with pytest.raises(MemoryFault, match="element 0: ") as caught:
        guest.physical.read_struct_many([2**64 - 8], [("a", 0, 4), ("b", 8, 4)])
    assert caught.value.kind == "pseudo-physical"
    assert len(guest.physical.read_struct_many([], [("a", 0, 4)])) == 0
    far = [("a", 0, 4), ("b", 2**64 - 4, 4)]
    status = np.zeros(2, np.uint8)
    guest.physical.read_struct_many([8 * PAGE, 0], far, status=status)
    assert status[0] == Status.WRAPS
    assert status[1] != 0


def test_forms_of_members(guest: Guest) -> None:
    structs = np.arange(8, 40, dtype=np.uint64) * np.uint64(PAGE)
    places: Any = {
        "names": ["b", "a"],
        "formats": ["<u2", "<u4"],
        "offsets": [2, 0],
        "itemsize": 64,
    }
    expected = guest.physical.read_struct_many(structs, [("b", 2, "<u2"), ("a", 0, 4)])
    assert expected["a"].tolist() == list(range(8, 40))
    for members in ({"b": (2, 2), "a": (0, 4)}, np.dtype(places)):
        found = guest.physical.read_struct_many(structs, members)
        assert found.dtype == expected.dtype
        assert (found == expected).all()
    out = np.empty(len(structs), expected.dtype)
    assert guest.physical.read_struct_many(structs, np.dtype(places), out=out) is out
    assert (out == expected).all()


def test_bad_arguments(guest: Guest) -> None:
    read = guest.physical.read_struct_many
    structs = np.array([8 * PAGE, 9 * PAGE], np.uint64)
    errors: list[tuple[Any, type[Exception], str]] = [
        ([], ValueError, "there are none"),
        ([("a", 0, 0)], ValueError, "no bytes"),
        ([("a", 0, "S")], ValueError, "no bytes"),
        ([("a", 0, "O")], TypeError, "Python objects"),
        ([("a", 0, [("x", "u1"), ("y", "O")])], TypeError, "Python objects"),
        ([("a", 0, 4), ("a", 4, 4)], ValueError, "'a'"),
        ([("a", -1, 4)], OverflowError, "negative"),
        ([("a", 0)], ValueError, "3"),
        (np.dtype("u4"), TypeError, "with fields"),
        ([("a", 0, "nonsense")], TypeError, "nonsense"),
    ]
    for members, kind, text in errors:
        with pytest.raises(kind, match=text):
            read(structs, members)
    dtype = np.dtype([("a", "<u4")])
    with pytest.raises(TypeError, match="dtype"):
        read(structs, [("a", 0, 4)], out=np.empty(2, np.uint32))
    with pytest.raises(TypeError, match="numpy array"):
        read(structs, [("a", 0, 4)], out=bytearray(8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        read(structs, [("a", 0, 4)], out=np.empty(3, dtype))
    with pytest.raises(ValueError, match="contiguous"):
        read(structs, [("a", 0, 4)], out=np.empty(4, dtype)[::2])
    frozen = np.empty(2, dtype)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        read(structs, [("a", 0, 4)], out=frozen)
    with pytest.raises(TypeError, match="an array of integers"):
        read(8, [("a", 0, 4)])  # type: ignore[arg-type]
    shared = np.zeros(2, np.dtype([("a", "<u8")]))
    with pytest.raises(ValueError, match="overlap"):
        read(shared["a"], [("a", 0, 8)], out=shared)
    guest.dump.close()
    with pytest.raises(ValueError, match="closed"):
        read(structs, [("a", 0, 4)])
