"""The clocks of a kernel: wall clock and time since boot."""

import time

from .._native import AbsentError
from . import compat
from .kernel import Kernel

#: The end of the year 9999. The kernel's clock overflows in 2262, at 2^63 nanoseconds.
LAST_SECOND = 253_402_300_799


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
    at = kernel.symbol("timekeeper")
    if "tk_data" in kernel.types:  # 6.13 on
        at += kernel.offset("tk_data.timekeeper")
    else:
        # tk_core was an unnamed struct: a seqcount, then the timekeeper to its end.
        sizes = [
            symbol.size
            for name in compat.SYMBOLS["timekeeper"]
            for symbol in kernel.symbols.all(name)
        ]
        at += max(0, max(sizes, default=0) - kernel.types.sizeof("timekeeper"))
    return kernel.read(at, "timekeeper.seconds")


def hertz(kernel: Kernel) -> int:
    """HZ. No symbol has it; tick_nsec is a second divided by HZ, rounded."""
    tick = kernel.pointer(kernel.symbol("tick_nsec"))
    if not 0 < tick <= 1_000_000_000:
        raise AbsentError(f"tick_nsec is {tick}: not a clock tick")
    return round(1_000_000_000 / tick)


def uptime(kernel: Kernel) -> int:
    """Seconds since boot: jiffies_64 starts five minutes before 32 bits wrap (INITIAL_JIFFIES)."""
    hz = hertz(kernel)
    jiffies = kernel.variable("jiffies_64", 8)
    initial = (1 << 32) - 300 * hz
    return (jiffies - initial if jiffies >= initial else jiffies) // hz


def date_text(seconds: int) -> str:
    """A date in the format of crash: ``Sun Nov 22 19:57:03 UTC 2026``."""
    return time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(seconds))
