"""Parses numbers in untrusted text."""

from .limits import MAX_NUMBER_LENGTH


def number(text: str, base: int = 10) -> int | None:
    """The number in ``text``; None if it is not a number, or if 64 bits cannot hold it."""
    if len(text) > MAX_NUMBER_LENGTH:
        return None
    try:
        found = int(text, base)
    except ValueError:
        return None
    return found if -1 << 63 <= found < 1 << 64 else None
