"""Text out of a dump made fit for a terminal."""


def visible(text: str) -> str:
    """A field: control and format characters (bidi ones too) and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable(line: str) -> str:
    """A whole line: the same, but for its tabs, which logs have. A line feed is an escape too."""
    if line.isprintable():
        return line
    return "\t".join(map(visible, line.split("\t")))
