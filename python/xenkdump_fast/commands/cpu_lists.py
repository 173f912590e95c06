"""CPUs that an option names, as ``0,3-4``."""

from collections.abc import Iterable

from ..parsing import number
from .contract import UsageError


def chosen(text: str | None, available: Iterable[int]) -> list[int]:
    """Those of the available CPUs that the text names, ascending; all if it is None or ``a``.

    UsageError for other text, or if it names a CPU that is not available.
    """
    known = sorted(available)
    if text is None or text in ("a", "all"):
        return known
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = _cpu(first), _cpu(last if dash else first)
        if low is None or high is None or low > high:
            raise UsageError(f"{text!r} is not a list of CPUs, such as 0,3-4")
        named = [cpu for cpu in known if low <= cpu <= high]
        if not named or (low, high) != (named[0], named[-1]):
            raise UsageError(f"there are no CPUs {part}: the CPUs are {ranges(known)}")
        found.update(named)
    return sorted(found)


def _cpu(text: str) -> int | None:
    return number(text) if text.isascii() and text.isdecimal() else None


def ranges(cpus: Iterable[int]) -> str:
    """Ascending numbers as ``0-3,5``."""
    found: list[list[int]] = []
    for cpu in cpus:
        if found and cpu == found[-1][1] + 1:
            found[-1][1] = cpu
        else:
            found.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)
