"""The wall clock of a fake kernel."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import clock
from xenkdump_fast.linux.infer import INFERRERS, Inference

from .fakes import FakeKernel, FakeMember, words

XTIME = 0x2000
TIMEKEEPER, JIFFIES, TICK = 0x3000, 0x4000, 0x5000
BOOTED = 1_795_673_228
LAYOUT: dict[str, int | FakeMember] = {
    "timekeeper": 0x100,
    "timekeeper.xtime_sec": FakeMember(0x38, 8),
    "timekeeper.wall_to_monotonic.tv_sec": FakeMember(0x48, 8, signed=True),
}


@pytest.mark.parametrize("seconds", [0, 1794838527, clock.LAST_SECOND])
def test_the_wall_clock(seconds: int) -> None:
    kernel = FakeKernel({"xtime": XTIME})
    kernel.memory.number(XTIME, seconds, 8)
    assert clock.date(kernel) == seconds
    assert clock.date_text(seconds).endswith(("1970", "2026", "9999"))


@pytest.mark.parametrize("seconds", [clock.LAST_SECOND + 1, 1 << 56, 1 << 63])
def test_an_invalid_clock(seconds: int) -> None:
    kernel = FakeKernel({"xtime": XTIME})
    kernel.memory.number(XTIME, seconds, 8)
    with pytest.raises(AbsentError, match="the wall clock is invalid"):
        clock.date(kernel)


def kernel_at(uptime: int, hz: int, to_monotonic: int = -BOOTED) -> FakeKernel:
    """A kernel without tick_nsec, as Linux 7.3."""
    kernel = FakeKernel({"timekeeper": TIMEKEEPER, "jiffies_64": JIFFIES}, LAYOUT)
    kernel.memory.write(TIMEKEEPER, bytes(0x1000))
    second = (1 << 64) - 1
    kernel.memory.write(
        TIMEKEEPER + 0x38,
        words(8, BOOTED + uptime, uptime, to_monotonic & second, 123_456_789),
    )
    kernel.memory.number(JIFFIES, (1 << 32) - 300 * hz + uptime * hz, 8)
    return kernel


@pytest.mark.parametrize("hz", clock.HERTZ)
@pytest.mark.parametrize("uptime", [0, 52, 300, 86400 * 400])
def test_the_time_since_boot_without_tick_nsec(uptime: int, hz: int) -> None:
    kernel = kernel_at(uptime, hz)
    assert clock.uptime(kernel) == uptime
    assert clock.date(kernel) == BOOTED + uptime
    found = INFERRERS["timekeeper"](kernel, Inference(kernel, "no types"))
    assert found["xtime_sec"].offset == 0x38
    assert found["wall_to_monotonic.tv_sec"].offset == 0x48


def test_jiffies_are_preferred() -> None:
    kernel = kernel_at(52, 250)
    kernel.symbols.update(tick_nsec=TICK)  # type: ignore[attr-defined]
    kernel.memory.number(TICK, 4_000_000, 8)
    kernel.memory.number(JIFFIES, (1 << 32) - 300 * 250 + 53 * 250, 8)
    assert clock.uptime(kernel) == 53


@pytest.mark.parametrize("to_monotonic", [1, -BOOTED - 53, -(1 << 63)])
def test_an_invalid_timekeeper(to_monotonic: int) -> None:
    kernel = kernel_at(52, 250, to_monotonic)
    with pytest.raises(AbsentError, match="no timekeeper at the symbol agrees with the jiffies"):
        clock.uptime(kernel)
    with pytest.raises(AbsentError, match="no timekeeper at the symbol agrees with the jiffies"):
        clock.date(kernel)


@pytest.mark.parametrize("padding", [0, 4, 48])
def test_the_timekeeper_behind_a_seqcount_with_a_lock(
    monkeypatch: pytest.MonkeyPatch, padding: int
) -> None:
    """The seqcount of PREEMPT_RT is larger; a symbol of kallsyms ends at the next one."""
    kernel = kernel_at(52, 250)
    kernel.symbols.update(timekeeper=TIMEKEEPER - 40)  # type: ignore[attr-defined]
    kernel.memory.write(TIMEKEEPER - 40, bytes(40))
    monkeypatch.setattr(clock, "timekeeper_size", lambda _: 40 + 0x100 + padding)
    assert clock.date(kernel) == BOOTED + 52
    assert clock.uptime(kernel) == 52


@pytest.mark.parametrize("jiffies", [(1 << 64) - 1, (1 << 32) + 101 * 365 * 86400 * 250])
def test_an_implausible_uptime(jiffies: int) -> None:
    kernel = kernel_at(52, 250)
    kernel.symbols.update(tick_nsec=TICK)  # type: ignore[attr-defined]
    kernel.memory.number(TICK, 4_000_000, 8)
    kernel.memory.number(JIFFIES, jiffies, 8)
    with pytest.raises(AbsentError, match="more than a hundred years"):
        clock.uptime(kernel)
    assert kernel.warnings == []


@pytest.mark.parametrize(("tick", "hz"), [(10**9, 1), (10**9 // 128, 128)])
def test_an_unusual_hz_is_named(tick: int, hz: int) -> None:
    kernel = kernel_at(52, hz)
    kernel.symbols.update(tick_nsec=TICK)  # type: ignore[attr-defined]
    kernel.memory.number(TICK, tick, 8)
    assert clock.uptime(kernel) == 52
    (text,) = kernel.warnings
    assert f"tick_nsec is {tick}: HZ would be {hz}" in text
