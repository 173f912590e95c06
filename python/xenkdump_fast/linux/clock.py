"""A kernel's clocks: the wall clock, and the time since boot."""

import time

from .._native import AbsentError
from . import compat
from .kernel import Kernel

#: The end of the year 9999. The kernel's own clock ends in 2262, when 63 bits of nanoseconds do.
LAST_SECOND = 253_402_300_799


def date(kernel: Kernel) -> int:
    """The wall clock, in seconds since 1970; AbsentError if no calendar has its time."""
    seconds = _wall_clock(kernel)
    if not 0 <= seconds <= LAST_SECOND:
        raise AbsentError(f"the wall clock says {seconds} seconds")
    return seconds


def _wall_clock(kernel: Kernel) -> int:
    if "xtime" in kernel.symbols:
        # A timespec, until 3.3; since 2.6.33 there was a struct timekeeper of other things beside.
        return kernel.pointer(kernel.symbols["xtime"])
    at = kernel.symbol("timekeeper")
    if "tk_data" in kernel.types:  # 6.13 on
        at += kernel.offset("tk_data.timekeeper")
    else:
        # tk_core was an unnamed struct: a seqcount, then the timekeeper, which fills the rest.
        sizes = [
            symbol.size
            for name in compat.SYMBOLS["timekeeper"]
            for symbol in kernel.symbols.all(name)
        ]
        at += max(0, max(sizes, default=0) - kernel.types.sizeof("timekeeper"))
    return kernel.read(at, "timekeeper.seconds")


def hertz(kernel: Kernel) -> int:
    """HZ, which no symbol tells: tick_nsec is a second divided by it, give or take its rounding."""
    tick = kernel.pointer(kernel.symbol("tick_nsec"))
    if not 0 < tick <= 1_000_000_000:
        raise AbsentError(f"tick_nsec is {tick}")
    return round(1_000_000_000 / tick)


def uptime(kernel: Kernel) -> int:
    """Seconds since boot: jiffies_64 starts five minutes before 32 bits wrap (INITIAL_JIFFIES)."""
    hz = hertz(kernel)
    jiffies = kernel.variable("jiffies_64", 8)
    initial = (1 << 32) - 300 * hz
    return (jiffies - initial if jiffies >= initial else jiffies) // hz


def date_text(seconds: int) -> str:
    """As crash prints it: ``Sun Nov 22 19:57:03 UTC 2026``."""
    return time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(seconds))
