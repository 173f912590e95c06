"""The kernel's log."""

from typing import NamedTuple

from ..linux import printk
from ..linux.printk.message import Lines
from ..session import Domain


class Log(NamedTuple):
    """What ``xkdump log`` found."""

    domain: int
    lines: Lines


def run(domain: Domain) -> Log:
    """Reads every message that the kernel still had; AbsentError if it has no log."""
    return Log(domain.id, printk.lines(domain.kernel))
