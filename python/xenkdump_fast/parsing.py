"""Parses numbers in untrusted text."""

from .limits import MAX_NUMBER_LENGTH

_WHITE_SPACE = " \t\r\n"
#: ``int`` also accepts white space, underscores and the digits of every script. No pattern: every
#: command would have to compile it.
_DIGITS = {10: frozenset("0123456789"), 16: frozenset("0123456789abcdefABCDEF")}


def number(text: str, base: int = 10) -> int | None:
    """The number in ``text``; None if it is not a number, or if 64 bits cannot hold it.

    ``base`` is 10, 16, or 0 for decimal, or hex with ``0x``. Only ASCII digits and a leading minus
    are accepted, and ``0x`` if ``base`` is not 10. White space around them is ignored: a VMCOREINFO
    may have CRLF line ends.
    """
    text = text.strip(_WHITE_SPACE)
    digits = text.removeprefix("-")
    if base != 10 and digits.startswith(("0x", "0X")):
        base, digits = 16, digits[2:]
    base = base or 10
    if len(text) > MAX_NUMBER_LENGTH or not digits or not _DIGITS[base].issuperset(digits):
        return None
    found = int(digits, base)
    if text.startswith("-"):
        found = -found
    return found if -1 << 63 <= found < 1 << 64 else None


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """A size in bytes from ``512M``, ``2G`` or a plain number; ValueError for any other text."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    found = number(digits) if digits.isdecimal() and unit in _UNITS else None
    if found is None or found * _UNITS[unit] >= 1 << 63:
        raise ValueError(f"not a size: {text[:MAX_NUMBER_LENGTH]!r} (such as 512M or 2G)")
    return found * _UNITS[unit]
