"""Calls with arrays must give the results of calls with single numbers."""

import array
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from xenkdump_fast import _native
from xenkdump_fast._native import STATUS, AddressSpace, MemoryFault

from .conftest import Guest
from .machine import PAGE, PAGES, VIRTUAL, Machine

NONE = 2**64 - 1
U64 = NDArray[np.uint64]


def u64(values: Any) -> U64:
    return np.array(values, dtype=np.uint64)


def one(call: Callable[[int], int], value: int) -> tuple[int, bool]:
    """The result for a single number, and whether it is valid."""
    try:
        return call(int(value)), True
    except _native.AbsentError:
        return NONE, False


def with_status(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call with a status array for arrays, so that it does not raise for their elements."""

    def called(values: Any, **options: Any) -> Any:
        if isinstance(values, np.ndarray | list | tuple | range | array.array | memoryview):
            options.setdefault("status", np.empty(len(values), np.uint8))
        return call(values, **options)

    return called


def cases(guest: Guest) -> list[tuple[Callable[..., Any], U64]]:
    return [(with_status(call), values) for call, values in strict_cases(guest)]


def strict_cases(guest: Guest) -> list[tuple[Callable[..., Any], U64]]:
    rng = np.random.default_rng(1)
    pfns = rng.integers(0, PAGES + 20, 5000, dtype=np.uint64)
    pfns[:20] = np.arange(20)
    pfns[100:600] = np.arange(500)
    offsets = rng.integers(0, 4096, 5000, dtype=np.uint64)
    addresses = pfns * np.uint64(4096) + offsets
    virtual = addresses + np.uint64(VIRTUAL)
    virtual[::97] = rng.integers(0, 2**63, len(virtual[::97]), dtype=np.uint64)
    mfns = u64([guest.entries[int(pfn) % PAGES] for pfn in pfns]) + (pfns % np.uint64(3) > 1)
    return [
        (guest.p2m.resolve, pfns),
        (guest.p2m.reverse, mfns),
        (guest.physical.translate, addresses),
        (guest.virtual.translate, virtual),
        (guest.dump.machine.translate, addresses),
    ]


def test_arrays_agree_with_single_numbers(guest: Guest) -> None:
    for call, values in cases(guest):
        status = np.empty(len(values), np.uint8)
        out = call(values, status=status)
        want = [one(call, value) for value in values]
        assert out.tolist() == [value for value, _ in want]
        assert (status == 0).tolist() == [fine for _, fine in want]


def test_statuses_have_names(guest: Guest) -> None:
    status = np.empty(6, np.uint8)
    out = guest.p2m.resolve(u64([4, 5, 6, 7, PAGES, 2**63]), status=status)
    assert out.tolist() == [0x100C, NONE, NONE, NONE, NONE, NONE]
    names = [STATUS[code] for code in status]
    assert names == ["ok", "invalid", "foreign", "identity", "out of range", "out of range"]
    pages = u64([VIRTUAL, VIRTUAL + 5 * 4096, 1 << 60, 0])
    guest.virtual.translate(pages, status=status[:4])
    assert [STATUS[code] for code in status[:4]] == [
        "ok",
        "not present",
        "not canonical",
        "not present",
    ]


def test_strided_and_unaligned_arrays(guest: Guest) -> None:
    for call, values in cases(guest):
        want = call(values)
        records = np.zeros(len(values), [("a", "u1"), ("value", "=u8"), ("b", "=u8")])
        records["value"] = values
        wide = np.zeros((len(values), 3), np.uint64)
        wide[:, 1] = values
        for view in (values[::2], values[::-1], values[1:1], records["value"], wide[:, 1]):
            np.testing.assert_array_equal(call(view), call(np.ascontiguousarray(view)))
        # Inputs and results interleaved in one array of records.
        got = call(records["value"], out=records["b"])
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(records["value"], values)
        backwards = np.empty(len(values), np.uint64)[::-1]
        np.testing.assert_array_equal(call(values, out=backwards), want)
        assert call(array.array("Q", values.tolist())).tolist() == want.tolist()
        assert call(values.data).tolist() == want.tolist()


def test_layouts_of_arrays_of_any_length(guest: Guest) -> None:
    """Lookups in arrays and in copies of them, before and after they are summarized."""
    rng = np.random.default_rng(2)
    for length in (*range(1, 20), 127, 129, 1023, 1025, 5000):
        pfns = rng.integers(0, PAGES + 20, length, dtype=np.uint64)
        pfns[::50] += np.uint64(2**63)
        status = np.empty(length, np.uint8)
        want = guest.p2m.resolve(pfns.tolist(), status=status)
        read_only = pfns.copy()
        read_only.flags.writeable = False
        unaligned = np.empty(length * 8 + 8, np.uint8)[3:][: length * 8].view(np.uint64)
        unaligned[:] = pfns
        backward = pfns[::-1].copy()[::-1]
        for given in (pfns, read_only, unaligned, backward, pfns.repeat(3)[::3]):
            outs = (
                np.empty(length, np.uint64),
                np.empty(length * 8 + 8, np.uint8)[5:][: length * 8].view(np.uint64),
                np.empty(2 * length, np.uint64)[::2],
            )
            for out in outs:
                found = np.empty(length, np.uint8)
                guest.p2m.resolve(given, out=out, status=found)
                assert np.array_equal(out, want)
                assert np.array_equal(found, status)


def test_arrays_that_change_during_a_call(guest: Guest) -> None:
    """Each result is that of a number that was in the array, and the others are not touched."""
    fine = guest.p2m.resolve(range(PAGES), status=(status := np.empty(PAGES, np.uint8)))
    frames = np.flatnonzero(status == 0).astype(np.uint64)
    first, other = frames[0], frames[-1]
    pfns = np.full(1 << 16, first, np.uint64)
    out = np.zeros(len(pfns) + 2, np.uint64)
    statuses = np.empty(len(pfns), np.uint8)
    values = [first, other, np.uint64(2**64 - 1), np.uint64(PAGES + 5)]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for value in values:
                pfns[:] = value

    thread = threading.Thread(target=change)
    thread.start()
    try:
        known = {int(fine[int(first)]), int(fine[int(other)]), NONE}
        for threads in (1, 2) * 20:
            guest.p2m.resolve(pfns, out=out[1:-1], status=statuses, threads=threads)
            assert set(np.unique(out[1:-1]).tolist()) <= known
            assert np.array_equal(out[1:-1] == NONE, statuses != 0)
            assert (out[0], out[-1]) == (0, 0)
    finally:
        stop.set()
        thread.join()


def test_other_integers_are_converted(guest: Guest) -> None:
    for call, values in cases(guest):
        small = values[values < 2**63][:300]
        want = call(small).tolist()
        for dtype in (np.int64, ">u8", "<i8", ">i8"):
            assert call(small.astype(dtype)).tolist() == want
            assert call(small.astype(dtype)[::-1]).tolist() == want[::-1]
        for sequence in (small.tolist(), tuple(small.tolist()), list(small)):
            assert call(sequence).tolist() == want
        for name in ("u1", "i1", "u2", "i2", "u4", "i4"):
            assert call(np.arange(100).astype(name)).tolist() == call(range(100)).tolist()
        assert call(array.array("q", small.tolist())).tolist() == want
        assert call([]).tolist() == call(np.arange(0)).tolist() == []
        assert call([2**64 - 1]).tolist() == [NONE]


def test_elements_outside_64_bits_raise(guest: Guest) -> None:
    for call, _ in [*cases(guest), *strict_cases(guest)]:
        for bad, text in (
            ([8, -1], "element 1: .* address -0x1 is outside"),
            ([8, 9, 2**64], "element 2: .* address 0x10000000000000000 is outside"),
            (np.array([8, 9, 10, -3]), "element 3: .* address -0x3 is outside"),
            (np.array([-128, 1], np.int8), "element 0: .* address -0x80 is outside"),
        ):
            with pytest.raises(MemoryFault, match=text) as caught:
                call(bad)
            assert not 0 <= caught.value.address < 2**64


def test_without_status_the_first_failure_is_raised(guest: Guest) -> None:
    """As in ``read_many``, and as for a single number."""
    for call, values in strict_cases(guest):
        want = [one(call, value) for value in values]
        fine = np.array([is_fine for _, is_fine in want])
        found = values[fine]
        assert call(found).tolist() == [value for value, is_fine in want if is_fine]
        if fine.all():  # machine memory
            continue
        first = int(np.argmin(fine))
        with pytest.raises(_native.AbsentError) as single:
            call(int(values[first]))
        for threads in (1, 2):
            with pytest.raises(_native.AbsentError) as caught:
                call(np.tile(values, 20), threads=threads)
            assert str(caught.value) == f"element {first}: {single.value}"
            assert type(caught.value) is type(single.value)


def test_a_list_that_shrinks(guest: Guest) -> None:
    class Shrinking:
        def __index__(self) -> int:
            numbers.clear()
            return 8

    numbers: list[Any] = [Shrinking(), 8, 8]
    with pytest.raises(ValueError, match="changed"):
        guest.p2m.resolve(numbers)


def test_out_is_returned(guest: Guest) -> None:
    for call, values in cases(guest):
        out = np.empty(len(values), np.uint64)
        assert call(values, out=out) is out
        np.testing.assert_array_equal(out, call(values))


def test_results_do_not_depend_on_threads(guest: Guest) -> None:
    for call, values in cases(guest):
        many = np.tile(values, 20)
        want = call(many, threads=1)
        np.testing.assert_array_equal(call(many, threads=3), want)
        np.testing.assert_array_equal(call(many), want)
        with pytest.raises(ValueError, match="at least 1"):
            call(many, threads=0)


def test_invalid_arrays_are_rejected(guest: Guest) -> None:
    for call, values in cases(guest):
        for dtype in (np.float64, np.bool_, "S8", object, "M8[s]", [("a", "u8")]):
            with pytest.raises(TypeError, match="array of integers"):
                call(values.astype(np.uint8).astype(dtype))
        for wrong in (b"12345678", bytearray(8), "text", None, {1, 2}, 1.5):
            with pytest.raises(TypeError, match="an array of integers or a list of ints is needed"):
                call(wrong)
        for element in (1.0, "1", None, True, [1]):
            with pytest.raises(TypeError, match="element 1: an int is needed"):
                call([8, element])
        with pytest.raises(ValueError, match="one dimension"):
            call(values.reshape(2, -1))
        good = np.empty(len(values), np.uint64)
        for bad, error, text in (
            (np.empty(len(values), np.int64), TypeError, "uint64"),
            (np.empty(len(values), ">u8"), TypeError, "uint64"),
            (np.empty(len(values) + 1, np.uint64), ValueError, "elements are needed"),
            (np.broadcast_to(u64(1), len(values)), ValueError, "read-only"),
            ([0] * len(values), TypeError, "an array is needed"),
            (values, ValueError, "overlap"),
            (values[::-1], ValueError, "overlap"),
            (
                np.lib.stride_tricks.as_strided(good, (len(values),), (4,)),
                ValueError,
                "elements overlap",
            ),
        ):
            with pytest.raises(error, match=text):
                call(values, out=bad)
        for bad_status, error, text in (
            (np.empty(len(values), np.int8), TypeError, "uint8"),
            (np.empty(len(values) - 1, np.uint8), ValueError, "elements are needed"),
            (values.view(np.uint8)[: len(values)], ValueError, "overlap"),
            (good.view(np.uint8)[: len(values)], ValueError, "overlap"),
        ):
            with pytest.raises(error, match=text):
                call(values, out=good, status=bad_status)
        for keyword in ({"out": good}, {"status": good}, {"threads": 1}):
            with pytest.raises(TypeError, match="single number"):
                call(1, **keyword)
        locked = good.copy()
        locked.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            call(values, out=locked)


def test_partial_overlap_is_rejected(guest: Guest) -> None:
    pool = np.zeros(300, np.uint64)
    for call, _ in cases(guest):
        for start in (1, 199):
            with pytest.raises(ValueError, match="overlap"):
                call(pool[:200], out=pool[start:][:200] if start == 1 else pool[100:300])
        call(pool[:100], out=pool[100:200])
        call(pool[::2], out=pool[1::2])
        with pytest.raises(ValueError, match="overlap"):
            call(pool[0:200:2], out=pool[1:101])


def test_numpy_numbers_are_single_numbers(guest: Guest) -> None:
    assert guest.p2m.resolve(np.uint64(8)) == guest.entries[8]
    assert guest.p2m.resolve(np.int32(8)) == guest.entries[8]
    with pytest.raises(MemoryFault):
        guest.p2m.resolve(np.int64(-1))
    with pytest.raises(TypeError):
        guest.p2m.resolve(8.0)  # type: ignore[call-overload]


def test_read_many(guest: Guest) -> None:
    rng = np.random.default_rng(2)
    pfns = rng.integers(8, 890, 3000, dtype=np.uint64)
    offsets = rng.integers(0, 4096, 3000, dtype=np.uint64)
    addresses = pfns * np.uint64(4096) + offsets
    for size in (0, 1, 8, 64, 4096, 5000):
        for space, base in ((guest.physical, 0), (guest.virtual, VIRTUAL)):
            got = space.read_many(addresses + np.uint64(base), size)
            assert got.shape == (3000, size)
            assert got.dtype == np.uint8
            for i in range(0, 3000, 50):
                assert got[i].tobytes() == space.read(int(addresses[i]) + base, size)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 24, 32, 64, 65, 4096])
def test_rows_of_each_size_agree_with_single_reads(guest: Guest, size: int) -> None:
    rng = np.random.default_rng(size)
    # Some pages are not mapped, and some bytes at the end of a page go on in the next one.
    places = rng.integers(0, 950 * PAGE, 1500, dtype=np.uint64)
    ends = rng.integers(1, 951, 300, dtype=np.uint64) * np.uint64(PAGE)
    ends -= rng.integers(1, size + 1, 300, dtype=np.uint64)
    far = u64([2**64 - size, 2**64 - 1, 1 << 47, 1 << 52])
    for space, base in ((guest.dump.machine, 0), (guest.physical, 0), (guest.virtual, VIRTUAL)):
        near = np.concatenate([places, ends])
        if space is guest.dump.machine:
            frames = u64(guest.entries)[near // np.uint64(PAGE) % np.uint64(len(guest.entries))]
            near = frames * np.uint64(PAGE) + near % np.uint64(PAGE)
        addresses = rng.permutation(np.concatenate([near + np.uint64(base), far]))
        status = np.full(len(addresses), 255, np.uint8)
        out = np.full((len(addresses), size), 0xEE, np.uint8)
        space.read_many(addresses, size, out=out, status=status)
        assert {0} < set(status.tolist())
        for address, row, code in zip(addresses.tolist(), out, status, strict=True):
            try:
                wanted = space.read(address, size)
            except MemoryFault:
                wanted = bytes(size)
                assert code != 0
            else:
                assert code == 0
            assert row.tobytes() == wanted
        # The readable ones alone, without statuses, and by other threads.
        readable = addresses[status == 0]
        for threads in (1, 2):
            rows = space.read_many(readable, size, threads=threads)
            assert np.array_equal(rows, out[status == 0])


def test_read_many_reports_failures(guest: Guest) -> None:
    addresses = u64([8, 5, 900, 899, 2000]) * np.uint64(4096) + np.uint64(4090)
    status = np.empty(5, np.uint8)
    out = np.full((5, 16), 0xEE, np.uint8)
    assert guest.physical.read_many(addresses, 16, out=out, status=status) is out
    names = [STATUS[code] for code in status]
    assert names == ["ok", "invalid", "no segment", "no segment", "out of range"]
    assert out[0].tobytes() == guest.physical.read(8 * 4096 + 4090, 16)
    assert not out[1:].any()
    with pytest.raises(MemoryFault, match="element 1: pfn 0x5"):
        guest.physical.read_many(addresses, 16)
    with pytest.raises(MemoryFault, match="element 0: machine address 0x1a8c000"):
        guest.physical.read_many(addresses[3:4], 16)
    with pytest.raises(TypeError):
        guest.physical.read_many(0, 16)  # type: ignore[arg-type]
    for bad in (np.empty((5, 15), np.uint8), np.empty((5, 32), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match=r"shape|contiguous"):
            guest.physical.read_many(addresses, 16, out=bad)
    with pytest.raises(TypeError, match="uint8"):
        guest.physical.read_many(addresses, 16, out=np.empty((5, 2), np.uint64))
    with pytest.raises(ValueError, match="overlap"):
        guest.physical.read_many(addresses, 8, out=addresses.view(np.uint8).reshape(5, 8))
    top = u64([2**64 - 4])
    for space in guest.spaces():
        with pytest.raises(MemoryFault):
            space.read_many(top, 16)


def test_readinto_and_read_array(guest: Guest) -> None:
    want = b"".join(guest.physical.read(pfn * 4096, 4096) for pfn in range(8, 900))
    for threads in (1, 2, None):
        buffer = bytearray(len(want))
        assert guest.physical.readinto(8 * 4096, buffer, threads=threads) == len(want)
        assert buffer == want
        words = guest.virtual.read_array(VIRTUAL + 8 * 4096, "<u4", len(want) // 4, threads=threads)
        assert words.tobytes() == want
    unaligned = np.zeros((3, 5), np.int16)
    guest.virtual.readinto(VIRTUAL + 8 * 4096 + 1, unaligned)
    assert unaligned.tobytes() == guest.virtual.read(VIRTUAL + 8 * 4096 + 1, 30)
    with pytest.raises(MemoryFault, match="0x1a8c000"):
        guest.physical.readinto(8 * 4096, bytearray(len(want) + 1))
    with pytest.raises(MemoryFault):
        guest.physical.read_array(0, "u8", 1 << 40)
    for bad in (b"12345678", np.zeros((4, 4))[:, 1], np.zeros(3, object)):
        with pytest.raises((ValueError, TypeError)):
            guest.physical.readinto(8 * 4096, bad)
    for dtype in (object, [("a", "u8"), ("b", object)]):
        with pytest.raises(TypeError, match="objects"):
            guest.physical.read_array(8 * 4096, dtype, 2)
    record = guest.physical.read_array(8 * 4096, [("O", "<u2"), ("x", "<u2")], 2)
    assert record["O"].tolist() == [8, 8]


def test_iter_mapped(guest: Guest) -> None:
    for space, base in ((guest.physical, 0), (guest.virtual, VIRTUAL)):
        ranges = list(space.iter_mapped())
        assert len(ranges) == PAGES - 3
        assert [r.address for r in ranges[:6]] == [base + p * 4096 for p in (0, 1, 2, 3, 4, 8)]
        assert all((r.size, r.page_size) == (4096, 4096) for r in ranges)
        assert ranges[5].machine == guest.entries[8] * 4096
        part = list(space.iter_mapped(base + 8 * 4096 + 5, base + 9 * 4096 + 1))
        assert [(r.address - base, r.size) for r in part] == [(0x8005, 0xFFB), (0x9000, 1)]
        assert part[0].machine == guest.entries[8] * 4096 + 5
        assert list(space.iter_mapped(base, base)) == []
        assert list(space.iter_mapped(5, 4)) == []
    assert guest.virtual.iter_mapped().__next__().flag_names[:2] == ["PRESENT", "RW"]
    held = [(r.address, r.size) for r in guest.dump.machine.iter_mapped(0x20 * 4096 + 1)]
    assert held[0] == (0x20001, 0x5000 - 1)
    with pytest.raises(OverflowError):
        guest.virtual.iter_mapped(0, 2**64 + 1)
    broken = guest.dump.virtual(0x13 << 12, "x86_64").iter_mapped()
    list(broken)
    assert broken.missing > 0
    assert broken.first_missing is not None


def test_tables_that_refer_to_absent_ones(tmp_path: Path) -> None:
    """200 tables refer to 512 absent tables each, and are reached 256 times.

    Each absent table is reported once.
    """
    machine = Machine()
    machine.words(1, [0x2003] * 256)
    machine.words(2, [(0x10 + table << 12) | 3 for table in range(200)] + [0x83])
    for table in range(200):
        machine.words(0x10 + table, [0xDEAD003] * 512)
    virtual = _native.Dump(machine.save(tmp_path / "vmcore")).virtual(0x1000, "x86_64")
    ranges = virtual.iter_mapped()
    assert len(list(ranges)) == 256
    assert ranges.missing == 200 * 512
    # The number of reports is bounded by the number of pages to search.
    found = virtual.search(b"x" * 9, 0, 2**48, limit=8, most=1 << 20)
    assert (found.addresses, found.searched) == ([], 1 << 20)
    assert found.next is not None


def test_closed_under_a_running_thread(guest: Guest) -> None:
    values = np.zeros(40_000_000, np.uint64) + np.uint64(VIRTUAL)
    caught: list[BaseException] = []
    started = threading.Event()

    def work(space: AddressSpace) -> None:
        started.set()
        try:
            while True:
                space.translate(values, threads=2)
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=work, args=(guest.virtual,))
    thread.start()
    started.wait()
    guest.dump.close()
    thread.join(60)
    assert not thread.is_alive()
    assert "closed" in str(caught[0])


def test_many_threads_at_once(guest: Guest) -> None:
    wrong: list[str] = []

    def work(call: Callable[..., Any], values: U64, want: U64) -> None:
        same = all(np.array_equal(call(values), want) for _ in range(20))
        if not same:
            wrong.append(str(call))

    threads = [
        threading.Thread(target=work, args=(call, values, call(values)))
        for call, values in cases(guest)
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_numpy_is_imported_only_for_arrays() -> None:
    code = "import sys, xenkdump_fast; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_of_size_0(guest: Guest) -> None:
    """A read of 0 bytes always succeeds."""
    absent = np.array([0, VIRTUAL, 1 << 63, 2**64 - 1], np.uint64)
    for space in guest.spaces():
        status = np.full(4, 9, np.uint8)
        assert space.read_many(absent, 0, status=status).shape == (4, 0)
        assert status.tolist() == [0] * 4
        assert space.read_many(absent, 0).shape == (4, 0)
        assert space.read(int(absent[2]), 0) == b""
