"""Timers of damaged kernels."""

from types import SimpleNamespace

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, FakeSymbols, words
from tests.linux.objects import overlapping
from xenkdump_fast import AbsentError
from xenkdump_fast.linux import clock, timers
from xenkdump_fast.linux.timers import Timers

BASES, HIGH, LIST = 0xFFFF888000010000, 0xFFFF888000020000, 0xFFFF888000030000
JIFFIES = 0xFFFF888000040000
SIZE = 0x100


def word(offset: int, *, signed: bool = False) -> FakeMember:
    return FakeMember(offset, 8, signed=signed)


LAYOUT: dict[str, int | FakeMember] = {
    "timer_base": SIZE,
    "timer_list": 40,
    "hrtimer": 64,
    "timer_base.vectors": FakeMember(8, 32, count=4),
    "timer_list.entry": word(0),
    "timer_list.expires": word(16),
    "timer_list.function": word(24),
    "hrtimer_cpu_base.clock_base": FakeMember(0x40, 0x80, count=2),
    "hrtimer_clock_base": 0x40,
    "hrtimer_clock_base.offset": word(0x20, signed=True),
    "hrtimer_clock_base.active.rb_root.rb_root": word(0x10),
    "hrtimer.node.node": word(0),
    "hrtimer.node.expires": word(24, signed=True),
    "hrtimer._softexpires": word(32, signed=True),
    "hrtimer.function": word(40),
    "rb_root.rb_node": word(0),
    "rb_node.__rb_parent_color": word(0),
    "rb_node.rb_right": word(8),
    "rb_node.rb_left": word(16),
}


class Sized(FakeSymbols):
    """The size of the bases tells their number."""

    bases = 2

    def all(self, name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(size=self.bases * SIZE)] if name == "timer_bases" else []


def kernel(bases: int = 2, *without: str, **more: int | FakeMember) -> FakeKernel:
    """Two timers in the first base, and one by the first clock."""
    layout = {name: at for name, at in LAYOUT.items() if name not in without}
    made = FakeKernel({}, {**layout, **more})
    symbols = Sized({"timer_bases": BASES, "hrtimer_bases": HIGH, "jiffies": JIFFIES})
    symbols.bases = bases
    made.symbols = symbols  # type: ignore[assignment]
    made.code = FakeSymbols()  # type: ignore[assignment]
    types = made.types
    types.__class__ = type("Types", (type(types),), {"graph": property(_no_graph)})
    memory = made.memory
    memory.write(JIFFIES, words(8, 1000))
    memory.write(BASES, bytes(0x1000))
    memory.write(HIGH, bytes(0x1000))
    memory.write(BASES + 8 + 8, words(8, LIST))
    memory.write(LIST, words(8, LIST + 64, 0, 1500, 0x1234))
    memory.write(LIST + 64, words(8, 0, LIST, 990, 0x1234))
    memory.write(HIGH + 0x50, words(8, LIST + 128))
    memory.write(HIGH + 0x60, words(8, (1 << 64) - 5))
    memory.write(LIST + 128, words(8, 0, 0, 0, 2000, 1900, 0x5678))
    return made


def _no_graph(_: object) -> None:
    raise AbsentError("no variables")


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda _: 100)


def test_the_wheel() -> None:
    made = kernel()
    first, second = Timers(made).wheel([0])
    assert (first.name, second.name) == ("BASE_STD", "BASE_DEF")
    assert [(one.address, one.expires) for one in first.timers] == [(LIST + 64, 990), (LIST, 1500)]
    assert (first.now, first.complete, second.timers) == (1000, True, [])
    assert not made.warnings


@pytest.mark.parametrize(
    ("bases", "more", "names"),
    [
        (1, {}, ["BASE_STD"]),
        (1, {"timer_events": 8}, ["BASE_LOCAL"]),
        (3, {}, ["BASE_LOCAL", "BASE_GLOBAL", "BASE_DEF"]),
    ],
)
def test_the_bases_of_versions(bases: int, more: dict[str, int], names: list[str]) -> None:
    assert [base.name for base in Timers(kernel(bases, **more)).wheel([0])] == names


@pytest.mark.parametrize("bases", [0, 4, 1000])
def test_unknown_bases(bases: int) -> None:
    with pytest.raises(AbsentError, match="timer bases per CPU are not known"):
        Timers(kernel(bases)).wheel([0])


def test_an_unknown_wheel() -> None:
    with pytest.raises(AbsentError, match=r"timer_base\.vectors"):
        Timers(kernel(2, "timer_base.vectors")).wheel([0])
    many: dict[str, int | FakeMember] = {"timer_base.vectors": FakeMember(8, 8, count=1 << 20)}
    with pytest.raises(AbsentError, match="1048576 lists"):
        Timers(kernel(2, **many)).wheel([0])


@pytest.mark.parametrize("following", [LIST, 0xDEAD0000])
def test_a_broken_list(following: int) -> None:
    made = kernel()
    made.memory.number(LIST + 64, following, 8)
    first, second = Timers(made).wheel([0])
    assert len(first.timers) >= 2
    assert (first.complete, second.complete) == (False, True)
    assert any("the timers of CPU 0 in BASE_STD are not complete" in w for w in made.warnings)


def test_high_resolution_timers() -> None:
    made = kernel()
    (cpu,) = Timers(made).high_resolution([0])
    first, second = cpu.clocks
    (one,) = first.timers
    assert (one.address, one.expires, one.soft_expires) == (LIST + 128, 2000, 1900)
    assert (first.now, second.now, second.timers) == (95, 100, [])


def test_linked_nodes() -> None:
    """7.2: a node of the tree is within one that is also in a list."""
    linked: dict[str, int | FakeMember] = {"hrtimer.node.node.node": word(8)}
    made = kernel(2, **linked)
    made.memory.write(HIGH + 0x50, words(8, LIST + 136))
    made.memory.write(LIST + 128, words(8, 0, 0, 0, 0, 1900, 0x5678))
    (cpu,) = Timers(made).high_resolution([0])
    assert [one.address for one in cpu.clocks[0].timers] == [LIST + 128]


def test_a_broken_tree() -> None:
    made = kernel()
    made.memory.number(LIST + 136, LIST + 128, 8)
    (cpu,) = Timers(made).high_resolution([0])
    assert not cpu.clocks[0].complete
    assert any("by clock 0 are not complete" in text for text in made.warnings)


def test_an_unknown_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> int:
        raise AbsentError("no clock")

    monkeypatch.setattr(clock, "monotonic", unknown)
    made = kernel()
    (cpu,) = Timers(made).high_resolution([0])
    assert cpu.clocks[0].now is None
    assert len(cpu.clocks[0].timers) == 1
    assert made.warnings == ["the time is not known: no clock"]


def test_an_unknown_tree() -> None:
    made = kernel(2, "hrtimer_clock_base.active.rb_root.rb_root")
    with pytest.raises(AbsentError, match="the tree of an hrtimer_clock_base is not known"):
        Timers(made).high_resolution([0])


def test_overlapping_timers() -> None:
    made = kernel()
    overlapping(made, BASES + 8)
    made.memory.reads = 0
    first, second = Timers(made).wheel([0])
    # One of the overlapping ones, and those of other lists.
    assert len(first.timers) == 3
    assert (first.complete, second.complete) == (False, True)
    assert made.memory.reads - made.memory.walked < 100
    assert any("the struct timer_list at" in text for text in made.warnings)


def test_cpus_share_the_limit_of_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "MAX_TIMERS", 3)
    made = kernel()
    made.memory.write(BASES + SIZE + 8, words(8, LIST + 256))
    made.memory.write(LIST + 256, words(8, LIST + 320, 0, 1500, 0x1234))
    made.memory.write(LIST + 320, words(8, 0, 0, 1500, 0x1234))
    assert [len(base.timers) for base in Timers(made).wheel([0])] == [2, 1]
    assert any("at most 3 structs timer_list are read" in text for text in made.warnings)


def test_many_high_resolution_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "MAX_TIMERS", 0)
    made = kernel()
    (cpu,) = Timers(made).high_resolution([0])
    assert [len(base.timers) for base in cpu.clocks] == [0, 0]
    assert any("at most 0 structs hrtimer are read" in text for text in made.warnings)
