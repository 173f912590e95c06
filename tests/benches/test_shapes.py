"""P2Ms of different shapes: their guests, and what they are compared with."""

import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from benches.synthetic import ENTRIES, INVALID, Words

from benches import floors, p2m_shapes, pairing, shapes


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small guests in a folder of their own."""
    monkeypatch.setenv("XKDUMP_BENCH", str(tmp_path))
    monkeypatch.setattr(shapes, "UNIT", 1 << 14)
    monkeypatch.setattr(shapes, "EXTENTS", (1 << 14) // ENTRIES)
    # Not a multiple of the shape, and more than a list of 512 leaf pages.
    monkeypatch.setattr(shapes, "SIZES", {"small": 1 << 12, "large": 600 * ENTRIES})


def whole_extents(entries: Words) -> int:
    """How many extents of 2 MiB consist of consecutive frames."""
    rows = entries.reshape(-1, ENTRIES)
    return int(np.sum((np.diff(rows.astype(np.int64), axis=1) == 1).all(axis=1)))


def test_shapes_are_what_they_are_named_for() -> None:
    made = {name: make(np.random.default_rng(1)) for name, make in shapes.MADE_UP.items()}
    assert {len(entries) for entries in made.values()} == {shapes.UNIT}
    found = {name: whole_extents(entries) for name, entries in made.items()}
    all_of = shapes.EXTENTS
    assert found["only extents"] == all_of
    assert found["an eighth single frames"] == all_of * 7 // 8
    assert found["half single frames"] == all_of // 2
    assert found["no extents"] == 0
    assert found["1 of 256 frames exchanged"] < all_of // 2
    assert found["runs of 1 to 256 frames"] == 0
    assert found["ballooned"] == all_of // 2
    for name, entries in made.items():
        frames = entries[entries != INVALID]
        assert len(np.unique(frames)) == len(frames)
        assert (len(frames) < len(entries)) == (name == "ballooned")


@pytest.mark.parametrize("shape", shapes.MADE_UP)
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_guest_is_its_shape_repeated(shape: str, size: str) -> None:
    guest = shapes.guest(shape, size)
    assert guest is not None
    entries = shapes.MADE_UP[shape](np.random.default_rng(1))
    pages = shapes.SIZES[size]
    expected = np.resize(entries[: min(len(entries), pages)], pages)
    assert np.array_equal(guest.table, expected)
    pfns = np.arange(pages, dtype=np.uint64)
    assert np.array_equal(guest.p2m.resolve(pfns, status=np.empty(pages, np.uint8)), expected)
    chosen = guest.pfns("random", 1000)
    assert np.array_equal(guest.p2m.resolve(chosen), expected[chosen])
    # It is written once.
    path = Path(guest.about.path)
    written = path.stat().st_mtime_ns
    assert shapes.guest(shape, size) is not None
    assert path.stat().st_mtime_ns == written


def test_leaf_pages_are_on_disk_once() -> None:
    guest = shapes.guest("no extents", "large")
    assert guest is not None
    assert Path(guest.about.path).stat().st_blocks * 512 < 3 * shapes.UNIT * 8


def test_absent_dumps_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XKDUMP_DUMPS", str(tmp_path))
    missing: list[str] = []
    assert list(shapes.shapes(missing=missing.append)) == list(shapes.MADE_UP)
    assert len(missing) == len(shapes.REAL)


@pytest.mark.real
@pytest.mark.parametrize("name", shapes.REAL)
def test_a_real_guest_has_the_frames_of_its_domain(name: str) -> None:
    vmcore = shapes.real_dump(name)
    if vmcore is None:
        pytest.skip(f"no dump {name}, or it is not unpacked")
    for number in shapes.REAL[name]:
        entries = shapes.real_entries(vmcore, number)
        guest = shapes.guest(f"{name} {number}", "small")
        assert guest is not None
        known = entries[: guest.about.unit]
        own = known < np.uint64(1 << 62)
        assert own.any()
        assert np.array_equal(guest.unit[own], known[own])
        assert (guest.unit[~own] == INVALID).all()


def test_pairs_of_a_guest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(p2m_shapes, "BATCHES", {64: (1,), 4096: (1, 2)})
    monkeypatch.setattr(p2m_shapes, "LIST", 4096)
    guest = shapes.guest("ballooned", "large")
    assert guest is not None
    # The results of both sides are compared in it.
    found = list(p2m_shapes.measured(1, guest))
    assert len(found) == 2 * (3 + 1) + len(p2m_shapes.HOLES)
    assert {pair.theirs for pair in found} == {"numpy take"}
    pairing.missing("a dump")
    assert json.loads(capsys.readouterr().out) == {"missing": "a dump"}


def test_mixed_pfns_have_the_wanted_part_without_a_frame() -> None:
    guest = shapes.guest("ballooned", "large")
    assert guest is not None
    for part in (0, 0.1, 1):
        pfns = guest.mixed_pfns(10_000, part)
        assert int(pfns.max()) < guest.about.pages
        missing = float(np.mean(guest.table[pfns] == INVALID))
        assert missing == part if part in (0, 1) else abs(missing - part) < 0.02


@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo builds the library")
def test_floors_do_what_they_are_compared_with(tmp_path: Path) -> None:
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", str(tmp_path)]
    subprocess.run(command, cwd=Path(floors.__file__).parent / "floors", check=True)
    (library,) = (tmp_path / "release").glob("libfloors.*[!d]")
    least = floors.Floors(library)
    # In a second-level cache, and with prefetches.
    for entries in (1 << 12, 1 << 19):
        table = np.random.default_rng(1).integers(1 << 32, size=entries, dtype=np.uint32)
        pfns = np.random.default_rng(2).integers(entries, size=10_000, dtype=np.uint64)
        for batch in (1, 13, 1000, 10_000):
            out = np.zeros(batch, np.uint64)
            last = pfns[(len(pfns) - 1) // batch * batch :]
            least.gather(table, pfns, batch, out)()
            assert np.array_equal(out[: len(last)], table[last])
            least.copy(pfns, batch, out)()
            assert np.array_equal(out[: len(last)], last)
    with ThreadPoolExecutor(2) as pool:
        out = np.zeros(len(pfns), np.uint64)
        floors.in_halves(
            pool, lambda half: least.gather(table, pfns[half], 5000, out[half]), len(pfns)
        )()
    assert np.array_equal(out, table[pfns])
