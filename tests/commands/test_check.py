"""``check``: P2M sources that agree, and some that do not."""

from pathlib import Path
from typing import Any

import pytest

from tests import rendering
from tests.xen.patched import patched
from xenkdump_fast import AbsentError, open
from xenkdump_fast.cli import main
from xenkdump_fast.commands import check
from xenkdump_fast.limits import MAX_LISTED_DISAGREEMENTS, MAX_M2P_ROOTS
from xenkdump_fast.xen import m2p
from xenkdump_forge import KINDS, SyntheticDump, write_dump


@pytest.mark.parametrize("kind", KINDS)
def test_sources_of_synthetic_dumps_agree(kind: str, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path / "dump", like=kind)
    found = check.run(open(str(synthetic.vmcore)), check.Options(0, str(synthetic.vmlinux)))
    assert found.disagreements == 0
    usable = [offered.name for offered in found.offered if offered.problem is None]
    assert usable
    assert [pair.second for pair in found.pairs] == usable[1:]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    """A dump with the second P2M page of the frame-list tree duplicated."""
    synthetic = write_dump(tmp_path_factory.mktemp("broken") / "dump", like="modern")
    dump = open(str(synthetic.vmcore)).native
    top = int(synthetic.plan["domains"][0]["frame_list_list"], 16)
    frame_list = dump.machine.u64(top << 12)
    (offset,) = (
        int(offset, 16) + (frame_list << 12) - int(start, 16)
        for start, size, _, offset in synthetic.plan["segments"]
        if int(start, 16) <= frame_list << 12 < int(start, 16) + int(size, 16)
    )
    second = dump.machine.read((frame_list << 12) + 8, 8)
    with Path(synthetic.vmcore).open("r+b") as file:
        file.seek(offset)
        file.write(second)
    return synthetic


def test_disagreements_are_counted_and_listed(broken: SyntheticDump) -> None:
    found = check.run(open(str(broken.vmcore)), check.Options(0, str(broken.vmlinux)))
    by_names = {(pair.first, pair.second): pair.comparison for pair in found.pairs}
    different = by_names["list", "linear"].different
    assert 0 < different <= 512
    listed = by_names["list", "linear"].first
    assert 0 < len(listed) <= MAX_LISTED_DISAGREEMENTS
    assert all(pfn < 512 for pfn, _, _ in listed)
    text = rendering.text(found)
    assert f"{different} differ" in text
    assert f"and {different - len(listed)} more" in text
    assert "DISAGREEMENTS" in text


def test_exit_status(broken: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(broken.vmlinux), str(broken.vmcore)]) == 1
    assert "disagree" in capsys.readouterr().err
    assert main(["check", "--json", str(broken.vmcore)]) == 1


def test_the_cost_of_a_flipped_bit_is_limited(tmp_path: Path) -> None:
    """Every unused slot of a pvops kernel's frame-list tree refers to one page of all ones."""
    synthetic = write_dump(tmp_path / "dump", like="modern")
    machine = open(str(synthetic.vmcore)).native.machine
    top = int(synthetic.plan["domains"][0]["frame_list_list"], 16)
    nothing = machine.u64((machine.u64((top << 12) + 8 * 511) << 12) + 8 * 511) << 12
    assert machine.read(nothing, 4096) == b"\xff" * 4096
    with patched(Path(synthetic.vmcore), {nothing + 8 * 9: b"\xfe"}):
        found = check.run(open(str(synthetic.vmcore)), check.Options(0, str(synthetic.vmlinux)))
    (pages,) = {offered.pages for offered in found.offered if offered.name == "list"}
    assert pages == (1 << 27) - 502
    assert found.m2p is not None
    compared = found.m2p.equal + found.m2p.different + found.m2p.unreadable
    # The dump has fewer frames than that.
    assert 0 < compared < sum(int(size, 16) for _, size, *_ in synthetic.plan["segments"]) >> 12
    assert found.disagreements == 0


def test_without_p2m(tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path / "dump", like="2006")
    with pytest.raises(AbsentError):
        check.run(open(str(synthetic.vmcore)), check.Options(7))


def test_the_p2m_is_queried_once_for_all_roots(tmp_path: Path) -> None:
    dump = open(str(write_dump(tmp_path / "dump", like="modern").vmcore)).native
    calls = {"resolve": 0, "virtual": 0}

    class P2M:
        def spans(self) -> list[tuple[int, int]]:
            return [(0, 100)]

        def resolve(self, pfns: Any, status: Any) -> Any:
            calls["resolve"] += 1
            status[:] = 0
            return pfns

    class Dump:
        def virtual(self, root: int, paging: Any) -> Any:
            calls["virtual"] += 1
            return dump.virtual(root, paging)

    # None of the roots is in the dump, and each occurs twice.
    roots = ((root << 39, "a note") for root in range(1, 1 << 20) for _ in range(2))
    some: list[Any] = [Dump(), P2M()]
    assert m2p.find(some[0], some[1], roots) is None
    assert calls == {"resolve": 1, "virtual": MAX_M2P_ROOTS * len(m2p.TABLES)}
