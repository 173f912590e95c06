"""How much of each thing a report has, by the number of domains."""

from typing import NamedTuple

from ..limits import (
    MAX_REPORT_DOMAINS,
    MAX_REPORT_FRAMES,
    MAX_REPORT_LOG_LINES,
    MAX_REPORT_PFNS,
    MAX_REPORT_ROWS,
    MAX_REPORT_STACKS,
)

#: A report with more domains has a part of each.
_MANY = 16


class Sizes(NamedTuple):
    """The most that a report has of each domain."""

    domains: int
    log_lines: int
    stacks: int
    frames: int
    rows: int
    pfns: int

    @classmethod
    def of(cls, domains: int) -> "Sizes":
        """The sizes for a report with this number of domains."""
        parts = max(1, -(-min(domains, MAX_REPORT_DOMAINS) // _MANY))
        return cls(
            MAX_REPORT_DOMAINS,
            max(20, MAX_REPORT_LOG_LINES // parts),
            max(10, MAX_REPORT_STACKS // parts),
            MAX_REPORT_FRAMES,
            max(20, MAX_REPORT_ROWS // parts),
            max(1 << 14, MAX_REPORT_PFNS // parts),
        )
