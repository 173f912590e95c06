"""The clocks of a kernel: wall clock and time since boot."""

import time

from .._native import AbsentError
from ..limits import MAX_TIMEKEEPER
from . import compat
from .kernel import Kernel

#: The end of the year 9999. The kernel's clock overflows in 2262, at 2^63 nanoseconds.
LAST_SECOND = 253_402_300_799
#: The choices for HZ on x86 (kernel/Kconfig.hz).
HERTZ = (100, 250, 300, 1000)
#: A hundred years, in seconds: more is not an uptime.
_LONGEST = 100 * 365 * 86400
#: Seconds by which jiffies and the timekeeper may differ, however short the uptime is.
_SLACK = 60


def date(kernel: Kernel) -> int:
    """The wall clock, in seconds since 1970; AbsentError if it is not a valid date."""
    seconds = _wall_clock(kernel)
    if not 0 <= seconds <= LAST_SECOND:
        raise AbsentError(f"the wall clock is invalid: {seconds} seconds since 1970")
    return seconds


def _wall_clock(kernel: Kernel) -> int:
    if "xtime" in kernel.symbols:
        # A timespec, until 3.3. The struct timekeeper of 2.6.33 to 3.3 does not contain it.
        return kernel.pointer(kernel.symbols["xtime"])
    return kernel.read(_timekeeper(kernel), "timekeeper.seconds")


def _timekeeper(kernel: Kernel) -> int:
    """The address of the struct timekeeper."""
    at = kernel.symbol("timekeeper")
    if "tk_data" in kernel.types:  # 6.13 on
        return at + kernel.offset("tk_data.timekeeper")
    # tk_core was an unnamed struct: a seqcount, then the timekeeper. The seqcount contains a lock
    # from Linux 5.10 on if the kernel is PREEMPT_RT. The size of a symbol from kallsyms contains
    # the padding behind the variable, so what fills the end is not always the timekeeper.
    room = max(0, timekeeper_size(kernel) - kernel.types.sizeof("timekeeper"))
    uptimes = possible_uptimes(kernel)
    best, distance = None, 0
    for offset in range(min(room, MAX_TIMEKEEPER), -1, -4):
        seconds = kernel.read(at + offset, "timekeeper.seconds")
        to_monotonic = kernel.read(at + offset, "timekeeper.wall_to_monotonic.tv_sec")
        # Words that are 0 are no clock, unless the clock was never set. Then only the size tells.
        if to_monotonic < 0 or offset == room:
            found = uptime_error(seconds + to_monotonic, uptimes)
            if found is not None and (best is None or found < distance):
                best, distance = at + offset, found
    if best is None:
        raise AbsentError("no timekeeper at the symbol agrees with the jiffies")
    return best


def monotonic(kernel: Kernel) -> int:
    """CLOCK_MONOTONIC at the last tick, in nanoseconds. AbsentError if it is not known."""
    at = _timekeeper(kernel)
    base = kernel.read(at, "timekeeper.tkr_mono.base")
    if kernel.has("timekeeper.coarse_nsec"):  # 6.15, b71f9804f66c
        return base + kernel.read(at, "timekeeper.coarse_nsec")
    shift = kernel.read(at, "timekeeper.tkr_mono.shift")
    if not 0 <= shift < 64:
        raise AbsentError(f"the timekeeper is invalid: it shifts by {shift} bits")
    return base + (kernel.read(at, "timekeeper.tkr_mono.xtime_nsec") >> shift)


def timekeeper_size(kernel: Kernel) -> int:
    """Size of the variable with the timekeeper; 0 if its symbol has none."""
    names = compat.SYMBOLS["timekeeper"]
    return max((symbol.size for name in names for symbol in kernel.symbols.all(name)), default=0)


def hertz(kernel: Kernel) -> int:
    """HZ. No symbol has it; tick_nsec is a second divided by HZ, rounded."""
    tick = kernel.pointer(kernel.symbol("tick_nsec"))
    if not 0 < tick <= 1_000_000_000:
        raise AbsentError(f"tick_nsec is {tick}: not a clock tick")
    found = round(1_000_000_000 / tick)
    if found not in HERTZ:
        choices = ", ".join(map(str, HERTZ))
        kernel.warn(f"tick_nsec is {tick}: HZ would be {found}, and not one of {choices}")
    return found


def uptime(kernel: Kernel) -> int:
    """Seconds since boot: by jiffies, else by the timekeeper, which needs no HZ.

    AbsentError if they are not plausible.
    """
    if "tick_nsec" in kernel.symbols:
        return _plausible(_uptime_at(kernel.variable("jiffies_64", 8), hertz(kernel)))
    # 7.3 has no tick_nsec. The wall clock started at -wall_to_monotonic.
    at = _timekeeper(kernel)
    seconds = kernel.read(at, "timekeeper.seconds")
    found = seconds + kernel.read(at, "timekeeper.wall_to_monotonic.tv_sec")
    if not 0 <= found <= seconds:
        raise AbsentError(f"the timekeeper is invalid: {found} seconds since boot")
    return _plausible(found)


def _plausible(uptime: int) -> int:
    if uptime > _LONGEST:
        raise AbsentError(f"{uptime} seconds since boot are more than a hundred years")
    return uptime


def possible_uptimes(kernel: Kernel) -> list[int]:
    """Seconds since boot by jiffies: one value if HZ is known, else one for each HZ."""
    jiffies = kernel.variable("jiffies_64", 8)
    if "tick_nsec" in kernel.symbols:
        return [_uptime_at(jiffies, hertz(kernel))]
    return [_uptime_at(jiffies, hz) for hz in HERTZ]


def uptime_error(seconds: int, uptimes: list[int]) -> int | None:
    """By how much the timekeeper's seconds since boot differ from possible_uptimes().

    None if it is too much, or before boot. A virtual machine loses ticks: a PVH guest's jiffies
    were late by 34 seconds after 22 minutes.
    """
    if seconds < 0:
        return None
    error, uptime = min((abs(seconds - uptime), uptime) for uptime in uptimes)
    return error if error <= max(_SLACK, uptime // 4) else None


def _uptime_at(jiffies: int, hz: int) -> int:
    """jiffies_64 starts five minutes before 32 bits wrap (INITIAL_JIFFIES)."""
    initial = (1 << 32) - 300 * hz
    return (jiffies - initial if jiffies >= initial else jiffies) // hz


def date_text(seconds: int) -> str:
    """A date in the format of crash: ``Sun Nov 22 19:57:03 UTC 2026``."""
    return time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(seconds))
