"""The text that a kernel leaves about itself: VMCOREINFO."""

from collections.abc import Mapping


def parse(text: str) -> Mapping[str, str]:
    """``KEY=value`` lines as a mapping; the first of two lines with one key wins."""
    facts: dict[str, str] = {}
    for line in text.split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            facts.setdefault(key, value.rstrip("\0"))
    return facts


def number(facts: Mapping[str, str], key: str, base: int = 10) -> int | None:
    """The number that stands at ``key``; None where it is absent or no number."""
    try:
        return int(facts[key], base)
    except (KeyError, ValueError):
        return None
