"""The data of a host that ``sys`` prints: names, times, load averages, memory."""

from __future__ import annotations

from dataclasses import dataclass

#: Scale of the kernel's load averages.
FIXED_1 = 1 << 11


@dataclass(frozen=True)
class Facts:
    """The state of a host at the time of the crash."""

    nodename: str
    #: The wall clock, in seconds since 1970.
    date: int
    uptime: float
    load: tuple[float, float, float]
    mhz: int
    hz: int
    panic: str
    #: Pages of memory, according to the kernel.
    memory_pages: int
    vendor: str = "GenuineIntel"
    model: str = "Intel(R) Xeon(R)"

    @property
    def jiffies(self) -> int:
        """Ticks since boot, from INITIAL_JIFFIES: five minutes before they wrap."""
        return (((1 << 32) - 300 * self.hz) & 0xFFFFFFFF) + round(self.uptime * self.hz)

    @property
    def avenrun(self) -> list[int]:
        """The load averages in fixed point: the lowest values that are printed as given."""
        out = []
        for load in self.load:
            hundredths = round(load * 100)
            whole, part = divmod(hundredths, 100)
            # The fraction is printed as (fraction * 100) >> 11: round up.
            out.append(whole * FIXED_1 + -(-part * FIXED_1 // 100))
        return out

    def names(self, release: str, version: str, machine: str) -> dict[str, str]:
        """The members of new_utsname."""
        return {
            "sysname": "Linux",
            "nodename": self.nodename,
            "release": release,
            "version": version,
            "machine": machine,
            "domainname": "(none)",
        }
