"""Numbers out of text that anybody may have written."""

#: The longest number of 64 bits has 22 characters (in octal); leading zeros and blanks besides.
#: Python itself refuses to convert more than 4300 digits.
MAX_LENGTH = 64


def number(text: str, base: int = 10) -> int | None:
    """The number that ``text`` spells; None if it spells none, or one that 64 bits cannot hold."""
    if len(text) > MAX_LENGTH:
        return None
    try:
        found = int(text, base)
    except ValueError:
        return None
    return found if -1 << 63 <= found < 1 << 64 else None
