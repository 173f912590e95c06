"""Xen's page tables of translated guests, compared with a reader in plain Python."""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xenkdump_fast import Status
from xenkdump_fast._native import P2M, AbsentError, Dump, MemoryFault

from . import nested_oracle as oracle
from .machine import PAGE, Machine

if TYPE_CHECKING:
    from xenkdump_fast._native import NestedFormat

NONE = 2**64 - 1
LAYOUTS: "tuple[NestedFormat, ...]" = ("npt", "npt-5", "ept", "ept-5")
#: Kinds that stand for one another where the oracle has no tables.
ABSENT = ("invalid", "no table", "out of range")

#: Tables share eight frames. An entry is absent, refers to one of them, maps a page of some type,
#: or is random.
entries = st.one_of(
    st.just(0),
    st.builds(lambda frame, flags: frame << 12 | flags, st.integers(0, 9), st.integers(0, 0x7F)),
    st.builds(
        lambda mfn, kind, flags: mfn << 12 | kind << 52 | flags,
        st.integers(0, 1 << 40).map(lambda mfn: mfn & ~0x3FFFF),
        st.integers(0, 17),
        st.integers(0, 0xFFF),
    ),
    st.integers(0, 2**64 - 1),
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    machine = Machine()
    for mfn in range(8):
        eight = draw(st.lists(entries, min_size=8, max_size=8))
        data = b"".join(entry.to_bytes(8, "little") for entry in eight)
        machine.frames[mfn] = bytearray(data * 64)
    return machine


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), machine=machines(), root=st.integers(0, 7))
def test_lookups_agree_with_the_reference(
    saved: Callable[[Machine], Dump], data: st.DataObject, machine: Machine, root: int
) -> None:
    dump = saved(machine)
    for layout in LAYOUTS:
        try:
            p2m = P2M.nested(dump, root, layout)
        except AbsentError:
            continue
        pfns = data.draw(st.lists(st.integers(0, 2**36 - 1), min_size=1, max_size=12))
        status = np.empty(len(pfns), np.uint8)
        mfns = p2m.resolve(np.array(pfns, np.uint64), status=status).tolist()
        for pfn, mfn, code in zip(pfns, mfns, status.tolist(), strict=True):
            expected = oracle.lookup(machine, layout, root * PAGE, pfn)
            found = p2m.entry(pfn)
            if expected[0] in ABSENT:
                assert found[0] in ABSENT
            else:
                assert found == expected
            assert mfn == (found[1] if found[0] == "frame" else NONE)
            assert (code == Status.OK) == (found[0] == "frame")


#: Machine addresses: the root, the frames of the guest, and the pfns that it has.
ROOT, SMALL, LARGE, HUGE = 0x10, 0x1000, 0x20_0000, 0x400_0000
TYPES = range(16)
FIRST_TYPE, FIRST_LARGE, FIRST_HUGE = 16, 512, 1 << 18


def guest(layout: str) -> Machine:
    """A guest with small pages of every type, a page of 2 MiB and one of 1 GiB, and page tables."""
    machine = Machine()
    entry = oracle.ept if layout.startswith("ept") else oracle.npt
    flags = 7 if layout.startswith("ept") else 0x67
    tables = [ROOT + level for level in range(5 if layout.endswith("5") else 4)]
    for upper, lower in pairwise(tables):
        machine.words(upper, [lower << 12 | flags])
    *_, third, second, first = tables
    # Every other frame, in falling order.
    machine.words(first, [entry(SMALL + 2 * (15 - pfn)) for pfn in range(16)])
    machine.words(first, [entry(SMALL + 0x100 + kind, kind) for kind in TYPES], FIRST_TYPE)
    machine.words(second, [entry(LARGE, large=True), entry(0, oracle.POD, large=True)], 1)
    machine.words(third, [entry(HUGE, large=True)], 1)
    for pfn in range(16):
        machine.frames[SMALL + 2 * (15 - pfn)] = bytearray(pfn.to_bytes(4, "little") * 1024)
    machine.frames[LARGE + 7] = bytearray(b"large page" * 400 + bytes(96))
    machine.frames[HUGE + 0x1234] = bytearray(b"huge page!" * 400 + bytes(96))
    # The guest's own page tables, at its physical addresses 1000 to 4000.
    virtual = {1: [2 << 12 | 0x67], 2: [3 << 12 | 0x67], 3: [4 << 12 | 0x67, 0x8000_0000 | 0xE7]}
    virtual[3][1] = FIRST_LARGE << 12 | 0xE7
    virtual[4] = [pfn << 12 | 0x67 for pfn in range(64)]
    for pfn, words in virtual.items():
        machine.words(SMALL + 2 * (15 - pfn), words)
    return machine


@pytest.mark.parametrize("layout", LAYOUTS)
class TestGuest:
    def opened(
        self, saved: Callable[[Machine], Dump], layout: "NestedFormat"
    ) -> tuple[Machine, Dump, P2M]:
        machine = guest(layout)
        dump = saved(machine)
        return machine, dump, P2M.nested(dump, ROOT, layout)

    def test_every_page(self, saved: Callable[[Machine], Dump], layout: "NestedFormat") -> None:
        machine, _, p2m = self.opened(saved, layout)
        assert (p2m.source, p2m.nested_format) == ("nested", layout)
        assert p2m.pages == FIRST_HUGE + (1 << 18)
        picks = [*range(2048), FIRST_HUGE, FIRST_HUGE + 0x1234, p2m.pages - 1]
        want = [oracle.lookup(machine, layout, ROOT * PAGE, pfn) for pfn in picks]
        assert [p2m.entry(pfn) for pfn in picks] == want
        kinds = {kind for kind, _ in want}
        assert kinds == {
            *("frame", "invalid", "emulated", "mmio", "populate on demand", "grant", "paged out"),
            *("broken", "foreign"),
        }
        # Often enough that it is summarized.
        for _ in range(3):
            status = np.empty(len(picks), np.uint8)
            found = p2m.resolve(np.array(picks, np.uint64), status=status)
            assert found.tolist() == [mfn if kind == "frame" else NONE for kind, mfn in want]
            assert [str(Status(code)) for code in status.tolist()] == [
                "ok" if kind == "frame" else kind for kind, _ in want
            ]
        assert p2m.entry(p2m.pages) == ("out of range", None)

    def test_the_type_of_each_page(
        self, saved: Callable[[Machine], Dump], layout: "NestedFormat"
    ) -> None:
        _, _, p2m = self.opened(saved, layout)
        names = [p2m.walk(FIRST_TYPE + kind)[1] for kind in TYPES]
        assert names == [
            *("ram_rw", "invalid", "ram_logdirty", "ram_ro", "mmio_dm", "mmio_direct"),
            *("populate_on_demand", "grant_map_rw", "grant_map_ro", "ram_paging_out"),
            *("ram_paged", "ram_paging_in", "ram_shared", "ram_broken", "map_foreign"),
            "ioreq_server",
        ]
        levels = 5 if layout.endswith("5") else 4
        walked, kind = p2m.walk(0)
        assert [step[0] for step in walked] == list(range(levels, 0, -1))
        assert [step[1] for step in walked] == [(ROOT + i) * PAGE for i in range(levels)]
        assert p2m.walk(FIRST_LARGE + 3) == (p2m.walk(FIRST_LARGE)[0], "ram_rw")
        assert kind == "ram_rw"
        assert p2m.walk(40)[1] is None

    def test_every_frame_leads_back(
        self, saved: Callable[[Machine], Dump], layout: "NestedFormat"
    ) -> None:
        _, dump, p2m = self.opened(saved, layout)
        pfns = [*range(16), FIRST_LARGE + 511, FIRST_HUGE, p2m.pages - 1]
        mfns = p2m.resolve(np.array(pfns, np.uint64))
        assert p2m.reverse(mfns).tolist() == pfns
        ram = (oracle.RAM_RW, oracle.LOGDIRTY, oracle.RAM_RO, oracle.PAGING_OUT)
        frames = 16 + len((*ram, oracle.SHARED, oracle.IOREQ)) + 512 + (1 << 18)
        assert sum(r.size for r in dump.physical(p2m).iter_mapped()) == frames * PAGE
        assert sum(count for _, count in p2m.spans()) == 512 + 512 + (1 << 18)
        assert p2m.tables(100) == [ROOT + i for i in range(5 if layout.endswith("5") else 4)]
        assert p2m.tables(2) == [ROOT, ROOT + 1]
        runs, following = p2m.kinds()
        assert following is None
        assert (p2m.pages - (1 << 18), 1 << 18, "frame") in runs
        assert (FIRST_LARGE + 512, 512, "populate on demand") in runs
        compared = p2m.compare(p2m)
        assert (compared.equal, compared.different) == (p2m.pages, 0)

    def test_virtual_memory_of_the_guest(
        self, saved: Callable[[Machine], Dump], layout: "NestedFormat"
    ) -> None:
        machine, dump, p2m = self.opened(saved, layout)
        virtual = dump.virtual(1 << 12, "x86_64", p2m=p2m)
        for page in range(16):
            mfn = SMALL + 2 * (15 - page)
            mapping = virtual.mapping(page * PAGE + 5)
            assert (mapping.physical, mapping.machine) == (page * PAGE + 5, mfn * PAGE + 5)
            assert virtual.read(page * PAGE, PAGE) == bytes(machine.frames[mfn])
        # Across two pages that are not contiguous in machine memory.
        assert virtual.u64(9 * PAGE - 4) == 9 << 32 | 8
        addresses = np.array([page * PAGE + 8 for page in range(64)] + [1 << 30], np.uint64)
        status = np.empty(len(addresses), np.uint8)
        found = virtual.translate(addresses, status=status).tolist()
        for address, machine_, code in zip(addresses.tolist(), found, status.tolist(), strict=True):
            try:
                assert virtual.translate(address) == machine_
                assert code == Status.OK
            except MemoryFault:
                assert (machine_, code) != (0, Status.OK)
                assert machine_ == NONE
        assert status[FIRST_TYPE + oracle.MMIO_DIRECT] == Status.MMIO
        assert status[FIRST_TYPE + oracle.FOREIGN] == Status.FOREIGN
        assert status[-1] == Status.NOT_PRESENT
        assert virtual.find(b"large page", 0, 1 << 30)[0] == 0x20_7000
        with pytest.raises(MemoryFault, match=r"pfn 0x15: .*MMIO"):
            virtual.u8((FIRST_TYPE + oracle.MMIO_DIRECT) * PAGE)
        mapped = list(virtual.iter_mapped())
        assert [(r.address, r.machine) for r in mapped[:3]] == [
            (page * PAGE, (SMALL + 2 * (15 - page)) * PAGE) for page in range(3)
        ]
        assert mapped[-1].size == 0x20_0000

    def test_the_guest_as_a_dump_of_its_own(
        self, saved: Callable[[Machine], Dump], layout: "NestedFormat"
    ) -> None:
        _, dump, p2m = self.opened(saved, layout)
        own = dump.guest(p2m, 64 * PAGE)
        assert (own.notes, own.auto_translated, own.memory_held) == ([], True, dump.memory_held)
        held = [(r.address, r.size) for r in own.machine.iter_mapped()]
        # Runs are contiguous in both kinds of address; frames that the dump lacks are left out.
        assert held == [(page * PAGE, PAGE) for page in range(16)] + [
            ((FIRST_LARGE + 7) * PAGE, PAGE),
            ((FIRST_HUGE + 0x1234) * PAGE, PAGE),
        ]
        assert own.machine.u32(3 * PAGE) == 4 << 12 | 0x67
        assert own.machine.find(b"huge page!", 0, 1 << 40)[0] == (FIRST_HUGE + 0x1234) * PAGE
        assert own.virtual(1 << 12, "x86_64").translate(5 * PAGE) == 5 * PAGE


#: Xen's names of the types by their numbers, without the prefix p2m_, in its versions: the
#: enumerators of p2m_type_t in asm-x86/p2m.h.
TO_4_4 = (
    *("ram_rw", "invalid", "ram_logdirty", "ram_ro", "mmio_dm", "mmio_direct"),
    *("populate_on_demand", "grant_map_rw", "grant_map_ro", "ram_paging_out", "ram_paged"),
    *("ram_paging_in", "ram_shared", "ram_broken"),
)
IN_4_5 = (*TO_4_4, "map_foreign")
IN_4_6 = (*IN_4_5, "mmio_write_dm")
SINCE_4_8 = (*IN_4_5, "ioreq_server")
VERSIONS = {
    **dict.fromkeys(("4.2", "4.3", "4.4"), TO_4_4),
    "4.5": IN_4_5,
    **dict.fromkeys(("4.6", "4.7"), IN_4_6),
    **dict.fromkeys((f"4.{minor}" for minor in range(8, 22)), SINCE_4_8),
}
#: Names that changed (cb34624af5): both are memory whose writes an emulator handles.
RENAMED = {"mmio_write_dm": "ioreq_server"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_of_types(saved: Callable[[Machine], Dump], layout: "NestedFormat") -> None:
    """Numbers were only ever added, so that no version has to be known."""
    p2m = P2M.nested(saved(guest(layout)), ROOT, layout)
    for version, names in VERSIONS.items():
        found = [p2m.walk(FIRST_TYPE + number)[1] for number in range(len(names))]
        assert found == [RENAMED.get(name, name) for name in names], version


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_of_each_size_and_type(
    saved: Callable[[Machine], Dump], layout: "NestedFormat", kind: int, level: int
) -> None:
    """Of 4 KiB, 2 MiB and 1 GiB: entries, statuses in batches, runs and names."""
    machine = Machine()
    entry = oracle.ept if layout.startswith("ept") else oracle.npt
    tables = [ROOT + i for i in range(5 if layout.endswith("5") else 4)]
    for upper, lower in pairwise(tables):
        machine.words(upper, [lower << 12 | (7 if layout.startswith("ept") else 0x67)])
    span = 1 << 9 * (level - 1)
    # The second entry of the table of its level; the first page is small memory.
    machine.words(tables[-1], [entry(SMALL)])
    machine.words(tables[-level], [entry(HUGE, kind, large=level > 1)], 1)
    dump = saved(machine)
    p2m = P2M.nested(dump, ROOT, layout)
    picks = [0, span, span + span // 3, 2 * span - 1]
    want = [oracle.lookup(machine, layout, ROOT * PAGE, pfn) for pfn in picks]
    assert want[0] == ("frame", SMALL)
    found = [p2m.entry(pfn) for pfn in picks]
    if kind == oracle.INVALID:
        assert all(name in ABSENT for name, _ in found[1:])
        assert p2m.pages == 1
        return
    assert found == want
    assert p2m.pages == 2 * span
    assert p2m.walk(span)[1] == SINCE_4_8[kind]
    runs, _ = p2m.kinds(span)
    assert runs == [(span, span, want[1][0])]
    for _ in range(2):
        status = np.empty(len(picks), np.uint8)
        mfns = p2m.resolve(np.array(picks, np.uint64), status=status).tolist()
        assert mfns == [mfn if name == "frame" else NONE for name, mfn in want]
        assert [str(Status(code)) for code in status.tolist()] == [
            "ok" if name == "frame" else name for name, _ in want
        ]
    for name, mfn in want[1:]:
        if name == "frame":
            assert mfn is not None
            assert p2m.reverse(mfn) == span + mfn - HUGE


@pytest.mark.parametrize("layout", ["npt", "ept-5"])
def test_tables_that_map_themselves_end(
    saved: Callable[[Machine], Dump], layout: "NestedFormat"
) -> None:
    """Every walk of 2^36 pfns in one page is bounded by the size of the dump."""
    machine = Machine()
    entry = ROOT << 12 | (7 if layout.startswith("ept") else 0x67)
    machine.words(ROOT, [entry] * 512)
    dump = saved(machine)
    p2m = P2M.nested(dump, ROOT, layout)
    assert p2m.pages == 2**36
    assert p2m.entry(12345) == ("frame", ROOT)
    assert p2m.tables(100) == [ROOT]
    assert sum(count for _, count in p2m.spans()) <= 2**22
    assert p2m.reverse(ROOT) == 0
    assert p2m.compare(p2m).equal > 0
    assert dump.guest(p2m, 2**48).memory_held == PAGE
    virtual = dump.virtual(ROOT << 12, "x86_64", p2m=p2m)
    assert virtual.translate(0x1000) == ROOT * PAGE
    assert next(virtual.iter_mapped()).machine == ROOT * PAGE
    assert virtual.search(b"\xff" * 4, 0, 1 << 47, most=1 << 24).addresses == []


@pytest.mark.parametrize("layout", ["npt", "ept-5"])
def test_large_pages_everywhere_are_bounded(
    saved: Callable[[Machine], Dump], layout: "NestedFormat"
) -> None:
    machine = Machine()
    is_ept = layout.startswith("ept")
    table = 7 if is_ept else 0x67
    levels = 5 if layout.endswith("5") else 4
    for level in range(levels - 2):
        machine.words(ROOT + level, [(ROOT + level + 1) << 12 | table] * 512)
    entry = oracle.ept if is_ept else oracle.npt
    huge = [entry(number << 18, large=True) for number in range(512)]
    machine.words(ROOT + levels - 3, huge)
    dump = saved(machine)
    p2m = P2M.nested(dump, ROOT, layout)
    assert p2m.pages == 2**36
    assert p2m.entry(5) == ("frame", 5)
    assert sum(count for _, count in p2m.spans()) <= 2**22 + 2**18
    assert p2m.reverse(77) == 77
    p2m.compare(p2m)


def test_a_root_without_memory_or_pages_is_refused(saved: Callable[[Machine], Dump]) -> None:
    machine = Machine()
    machine.words(ROOT, [0])
    dump = saved(machine)
    for mfn in (ROOT, ROOT + 1, 2**52):
        with pytest.raises(AbsentError):
            P2M.nested(dump, mfn, "npt")
    with pytest.raises(ValueError, match="no nested layout"):
        P2M.nested(dump, ROOT, "vtd")  # type: ignore[arg-type]


def test_a_pv_p2m_is_not_under_a_guest(saved: Callable[[Machine], Dump]) -> None:
    dump = saved(guest("npt"))
    virtual = dump.virtual(1 << 12, "x86_64", p2m=P2M.nested(dump, ROOT, "npt"))
    with pytest.raises(TypeError, match="translated guest"):
        P2M.linear(dump, virtual, 0, 8, 16)
