"""Source lines in ``dis -l``, ``bt -l`` and ``sym``."""

from collections.abc import Callable, Sequence

import pytest

import xenkdump_fast as xk
from tests.commands.running import Run
from xenkdump_fast._native import AbsentError
from xenkdump_fast.commands import source_lines
from xenkdump_fast.commands.source_lines import Finder
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("lines") / "dump", like="modern")


@pytest.fixture(scope="module")
def domain(synthetic: SyntheticDump) -> xk.Domain:
    return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))


@pytest.fixture
def run(synthetic: SyntheticDump, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    return Run(synthetic, capsysbinary)


class Lines:
    """Source lines by a function, in place of DWARF."""

    def __init__(self, line: Callable[[int], tuple[str, int] | None]) -> None:
        self._line = line
        self.is_incomplete = True
        self.asked: list[int] = []

    def find(self, addresses: Sequence[int]) -> list[tuple[str, int] | None]:
        self.asked += addresses
        return [self._line(address) for address in addresses]


Give = Callable[[Callable[[int], tuple[str, int] | None]], Lines]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    def give(line: Callable[[int], tuple[str, int] | None]) -> Lines:
        lines = Lines(line)
        finder = Finder(lines, "vmlinux")  # type: ignore[arg-type]
        monkeypatch.setattr(source_lines, "finder", lambda _: finder)
        return lines

    return give


def test_dis_has_a_line_before_each_group(run: Run, domain: xk.Domain, give: Give) -> None:
    start = domain.kernel.symbols["schedule"]
    plain = run("dis", "schedule").splitlines()
    second = int(plain[1].split()[0], 16)
    third = int(plain[2].split()[0], 16)

    def line(address: int) -> tuple[str, int] | None:
        if address < second:
            return "kernel/a.c", 5
        return None if address < third else ("kernel/\x1b.h", 7)

    give(line)
    found = run("dis", "-l", "schedule").splitlines()
    headings = ["kernel/a.c: 5", "(no source line)", "kernel/\\x1b.h: 7"]
    assert found == [headings[0], plain[0], headings[1], plain[1], headings[2], *plain[2:]]
    assert "vmlinux: DWARF: some source lines cannot be read" in run.err
    first, other, *_ = run.json("dis", "-l", "schedule")["instructions"]
    assert (first["address"], first["file"], first["line"]) == (hex(start), "kernel/a.c", 5)
    assert "file" not in other


def test_without_dwarf_there_is_one_warning(run: Run) -> None:
    for command, operand in (("dis", "schedule"), ("bt", "1")):
        plain = run(command, operand)
        assert "source lines" not in run.err
        assert run(command, "-l", operand) == plain
        assert run.err.count("no source lines: no DWARF") == 1
    assert run("sym", "schedule").count(":") == 0
    assert run.err == ""


def test_sym_has_the_line_of_the_address(run: Run, domain: xk.Domain, give: Give) -> None:
    at = domain.kernel.symbols["schedule"]
    give(lambda address: ("a.c", address - at) if address != at else None)
    assert run("sym", "schedule", f"{at + 5:x}").splitlines() == [
        f"{at:x} (T) schedule",
        f"{at + 5:x} (T) schedule+5 a.c: 5",
    ]
    first, second = run.json("sym", "schedule", f"{at + 5:x}")["symbols"]
    assert "line" not in first
    assert (second["file"], second["line"], second["type"]) == ("a.c", 5, "T")


def test_bt_has_the_line_of_each_call(run: Run, domain: xk.Domain, give: Give) -> None:
    plain = run("bt", "--all").splitlines()
    lines = give(lambda address: ("a.c", address))
    found = run("bt", "--all", "-l").splitlines()
    assert [line for line in found if not line.startswith("    a.c: ")] == plain
    # The call, not the return address, but for what is no return address.
    frames = [frame for task in run.json("bt", "--all", "-l")["tasks"] for frame in task["frames"]]
    assert frames
    for frame in frames:
        is_call = not frame["interrupted"] and frame["offset"] > 0
        assert frame["line"] == int(frame["pc"], 16) - is_call
    # Each place is looked up once in each of the two runs.
    assert len(lines.asked) == len(set(lines.asked))
    run("bt", "--all", "-l", "--group", expected=2)


def test_a_finder_asks_once(domain: xk.Domain) -> None:
    lines = Lines(lambda address: ("a.c", address) if address else None)
    finder = Finder(lines, "vmlinux")  # type: ignore[arg-type]
    assert finder.find([1, 0, 1]) == [("a.c", 1), None, ("a.c", 1)]
    assert finder.find([0, 2]) == [None, ("a.c", 2)]
    assert lines.asked == [1, 0, 2]
    with pytest.raises(AbsentError, match="no source lines"):
        source_lines.finder(domain)
