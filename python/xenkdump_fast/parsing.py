"""Parses numbers in untrusted text."""

import re

from .limits import MAX_NUMBER_LENGTH

_WHITE_SPACE = " \t\r\n"
#: ``int`` also accepts white space, underscores and the digits of every script.
_DIGITS = {
    0: r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+)",
    10: r"-?[0-9]+",
    16: r"-?(?:0[xX])?[0-9a-fA-F]+",
}


def number(text: str, base: int = 10) -> int | None:
    """The number in ``text``; None if it is not a number, or if 64 bits cannot hold it.

    ``base`` is 10, 16, or 0 for decimal, or hex with ``0x``. Only ASCII digits and a leading minus
    are accepted, and ``0x`` if ``base`` is not 10. White space around them is ignored: a VMCOREINFO
    may have CRLF line ends.
    """
    text = text.strip(_WHITE_SPACE)
    if len(text) > MAX_NUMBER_LENGTH or not re.fullmatch(_DIGITS[base], text):
        return None
    if base == 0:  # int() does not accept leading zeros then
        base = 16 if "x" in text.lower() else 10
    found = int(text, base)
    return found if -1 << 63 <= found < 1 << 64 else None


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """A size in bytes from ``512M``, ``2G`` or a plain number; ValueError for any other text."""
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    found = number(digits) if digits.isdecimal() and unit in _UNITS else None
    if found is None or found * _UNITS[unit] >= 1 << 63:
        raise ValueError(f"not a size: {text[:MAX_NUMBER_LENGTH]!r} (such as 512M or 2G)")
    return found * _UNITS[unit]
