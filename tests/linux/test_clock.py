"""The wall clock of a hand-made kernel."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import clock

from .fakes import FakeKernel

XTIME = 0x2000


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
