"""Names out of a dump made fit for a terminal."""


def visible(text: str) -> str:
    """``text`` with control characters and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
