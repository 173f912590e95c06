"""Parses numbers in untrusted text."""

import re

from .limits import MAX_NUMBER_LENGTH

_WHITE_SPACE = " \t\r\n"
#: ``int`` also accepts white space, underscores and the digits of every script.
_DIGITS = {
    0: re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+)", re.ASCII),
    10: re.compile(r"-?[0-9]+", re.ASCII),
    16: re.compile(r"-?(?:0[xX])?[0-9a-fA-F]+", re.ASCII),
}


def number(text: str, base: int = 10) -> int | None:
    """The number in ``text``; None if it is not a number, or if 64 bits cannot hold it.

    ``base`` is 10, 16, or 0 for decimal, or hex with ``0x``. Only ASCII digits and a leading minus
    are accepted, and ``0x`` if ``base`` is not 10. White space around them is ignored: a VMCOREINFO
    may have CRLF line ends.
    """
    text = text.strip(_WHITE_SPACE)
    if len(text) > MAX_NUMBER_LENGTH or not _DIGITS[base].fullmatch(text):
        return None
    if base == 0:  # int() does not accept leading zeros then
        base = 16 if "x" in text.lower() else 10
    found = int(text, base)
    return found if -1 << 63 <= found < 1 << 64 else None
