"""Escapes text from a dump for a terminal."""


def visible(text: str) -> str:
    """A field: control characters, format characters (also bidi) and lone surrogates escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(line: str) -> str:
    """A whole line: the same, except for tabs, which logs contain. Line feeds are escaped."""
    if line.isprintable():
        return line
    return "\t".join(map(visible, line.split("\t")))
