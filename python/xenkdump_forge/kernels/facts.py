"""What a sample host was, at the moment it died: the words of a session's header."""

from __future__ import annotations

from dataclasses import dataclass

#: Scale of the kernel's load averages.
FIXED_1 = 1 << 11


@dataclass(frozen=True)
class Facts:
    """The host as the kernel would tell it."""

    nodename: str
    #: Seconds since 1970, of the wall clock.
    date: int
    uptime: float
    load: tuple[float, float, float]
    mhz: int
    hz: int
    panic: str
    #: Pages that the kernel says the machine has.
    memory_pages: int
    vendor: str = "GenuineIntel"
    model: str = "Intel(R) Xeon(R)"

    @property
    def jiffies(self) -> int:
        """Ticks since boot, from the odd start that shows wrapping faults within five minutes."""
        return (((1 << 32) - 300 * self.hz) & 0xFFFFFFFF) + round(self.uptime * self.hz)

    @property
    def avenrun(self) -> list[int]:
        """Load averages as the kernel keeps them: the least value that prints as asked."""
        out = []
        for load in self.load:
            hundredths = round(load * 100)
            whole, part = divmod(hundredths, 100)
            # Printed as whole and ((fraction * 100) >> 11): round up so that no hundredth is lost.
            out.append(whole * FIXED_1 + -(-part * FIXED_1 // 100))
        return out

    def names(self, release: str, version: str, machine: str) -> dict[str, str]:
        """What uname would tell."""
        return {
            "sysname": "Linux",
            "nodename": self.nodename,
            "release": release,
            "version": version,
            "machine": machine,
            "domainname": "(none)",
        }
