"""The pictures of memory and of P2Ms, compared with plain loops."""

import random
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from xenkdump_fast import session
from xenkdump_fast.limits import MAX_REPORT_CELLS, MAX_REPORT_STRIP
from xenkdump_fast.report import memory_picture, p2m_picture
from xenkdump_fast.report.blocks import Picture, Table
from xenkdump_fast.report.html import pictures
from xenkdump_fast.report.model import Content
from xenkdump_forge import SyntheticDump
from xenkdump_forge.hosts.large import LargeHost, write_large_host

PAGE = 4096


class P2m:
    """A P2M of some mfns; None has no frame."""

    source = "list"

    def __init__(self, mfns: list[int | None]) -> None:
        self._mfns = mfns
        self.pages = len(mfns)

    def resolve(self, pfns: NDArray[Any], *, status: NDArray[Any]) -> NDArray[Any]:
        found = [self._mfns[int(pfn)] for pfn in pfns]
        status[:] = [mfn is None for mfn in found]
        return np.array([(1 << 64) - 1 if mfn is None else mfn for mfn in found], np.uint64)


def extents(mfns: list[int | None]) -> list[int]:
    """The sizes of the extents, by a plain loop."""
    found: list[int] = []
    before = None
    for mfn in mfns:
        if mfn is not None and before is not None and mfn == before + 1:
            found[-1] += 1
        elif mfn is not None:
            found.append(1)
        before = mfn
    return found


def classes(sizes: list[int]) -> list[tuple[int, int]]:
    """The number and the pages of the extents of each class."""
    found = [[0, 0] for _ in p2m_picture.CLASSES]
    for size in sizes:
        at = max(i for i, (least, _) in enumerate(p2m_picture.CLASSES) if least <= size)
        found[at][0] += 1
        found[at][1] += size
    return [(count, pages) for count, pages in found]


@pytest.mark.parametrize("seed", range(10))
def test_extents(seed: int) -> None:
    chance = random.Random(seed)
    mfns: list[int | None] = []
    while len(mfns) < 3000:
        size = chance.choice((1, 1, 2, 15, 16, 40, 600))
        if chance.random() < 0.2:
            mfns += [None] * size
        else:
            start = chance.randrange(1 << 30)
            mfns += range(start, start + size)
    picture = p2m_picture.picture(cast(Any, P2m(mfns)), 1 << 20)
    assert picture is not None
    expected = classes(extents(mfns))
    assert [(one["extents"], one["pages"]) for one in picture["extents"]] == expected
    assert picture["frames"] == sum(pages for _, pages in expected)
    assert picture["read"] == picture["pages"] == len(mfns)
    assert len(picture["strip"]) <= MAX_REPORT_STRIP
    piece = -(-len(mfns) // MAX_REPORT_STRIP)
    for at, kind in enumerate(picture["strip"]):
        held = [mfn for mfn in mfns[at * piece : (at + 1) * piece] if mfn is not None]
        assert (kind is None) == (not held)


def test_a_sample() -> None:
    mfns: list[int | None] = list(range(50_000))
    picture = p2m_picture.picture(cast(Any, P2m(mfns)), 5000)
    assert picture is not None
    assert picture["read"] <= 5000
    assert picture["frames"] == picture["read"]


def test_an_empty_p2m() -> None:
    assert p2m_picture.picture(cast(Any, P2m([])), 100) is None
    assert p2m_picture.picture(cast(Any, P2m([None] * 9)), 100) is None


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> LargeHost:
    return write_large_host(tmp_path_factory.mktemp("large") / "host", 24 << 30, 12)


@pytest.mark.parametrize("most", [1 << 24, 1 << 14])
def test_memory_of_a_host(host: LargeHost, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All frames, or a sample of them."""
    monkeypatch.setattr(memory_picture, "MAX_REPORT_MACHINE_FRAMES", most)
    monkeypatch.setattr(memory_picture, "MAX_REPORT_SAMPLED_FRAMES", most)
    with session.open(host.vmcore) as dump:
        drawn = memory_picture.of_host(dump.hypervisor)
    pages = {domain.number: domain.pages for domain in host.domains}
    assert drawn is not None
    picture = drawn.picture
    is_sample = picture["sampled"] > 1
    assert is_sample == (most == 1 << 14)
    assert is_sample == any("a sample" in text for text in drawn.doubts)
    assert len(picture["cells"]) <= MAX_REPORT_CELLS
    total = sum(one["pages"] for one in picture["owners"])
    assert abs(total - picture["frames"]) <= picture["sampled"]
    owned = {one["domain"]: one["pages"] for one in picture["owners"] if one["kind"] == "domain"}
    assert set(owned) == {0, *pages}
    # The numbers of a sample are estimates. In these hosts dom0's number leaves some pages out.
    for number in set(pages) - {0}:
        missing = pages[number] - owned[number]
        assert abs(missing) <= pages[number] * (0.3 if is_sample else 0.02) + 64
    kinds = {one["kind"] for one in picture["owners"]}
    assert {"xen", "domain"} <= kinds


def test_without_a_frame_table(content: Content, modern: SyntheticDump) -> None:
    """What the dump has is shown; that the owners are not known is said."""
    picture = content["memory"]
    assert picture is not None
    assert {one["kind"] for one in picture["owners"]} <= {"held", "missing", "other"}
    with session.open(modern.vmcore) as dump:
        held = {
            frame
            for run in dump.machine.iter_mapped()
            for frame in range(run.address // PAGE, -(-(run.address + run.size) // PAGE))
        }
    (shown,) = (one["pages"] for one in picture["owners"] if one["kind"] == "held")
    assert shown == len(held)
    assert any("who owns" in one["text"] for one in content["problems"])


def test_cells_are_those_of_most_frames() -> None:
    mfns = np.arange(10 * MAX_REPORT_CELLS, dtype=np.uint64)
    kinds = np.where(mfns % 10 < 6, 0, 1).astype(np.int64)
    kinds[:10] = 1
    kinds[10:20] = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    owners: Any = [
        {"name": name, "kind": "domain", "domain": i, "pages": 10} for i, name in enumerate("abcd")
    ]
    found = memory_picture._picture(len(mfns), 1, mfns, owners, kinds, "test")
    assert found["frames_per_cell"] == 10
    assert found["cells"] == [1, 4, *[0] * (MAX_REPORT_CELLS - 2)]
    assert [one["kind"] for one in found["owners"]] == [*["domain"] * 4, "several"]


@pytest.mark.parametrize("ranges", [[], [(0, 1)], [(100, 5000), (0x5000, 0x9000)]])
def test_frames_within_ranges(ranges: list[tuple[int, int]]) -> None:
    mfns = np.arange(16, dtype=np.uint64)
    found = memory_picture._within(mfns, ranges)
    for mfn, is_within in zip(range(16), found.tolist(), strict=True):
        expected = any(
            start // PAGE <= mfn < -(-end // PAGE) for start, end in ranges if end > start
        )
        assert is_within == expected


def test_svg(content: Content) -> None:
    table = Table((), ())
    picture = content["memory"]
    assert picture is not None
    drawn = str(pictures.svg(Picture(picture, "Machine memory", table)))
    assert drawn.startswith("<svg")
    for owner in picture["owners"]:
        assert owner["name"] in drawn
    # One element for each owner, not for each cell.
    assert drawn.count("<path") <= len(picture["owners"])
    assert len(drawn) < 60_000
