"""The kernel's log."""

from dataclasses import dataclass

from ..linux import log
from ..session import Domain


@dataclass(frozen=True, slots=True)
class Log:
    """What ``xkdump log`` found."""

    domain: int
    lines: list[log.LogLine]


def run(domain: Domain) -> Log:
    """Reads every message that the kernel still had; AbsentError if it has no log."""
    return Log(domain.id, log.lines(domain.kernel))
