"""Elements of SVG as text. All values go through ``escape`` of markupsafe."""

from collections.abc import Iterable

from markupsafe import Markup, escape

from .inline import text as shown

Number = float | int


def drawing(width: Number, height: Number, elements: Iterable[Markup], title: str) -> Markup:
    """A drawing for a page of HTML."""
    size = _attributes(width=width, height=height, viewBox=f"0 0 {width} {height}", role="img")
    lines = "\n".join([*elements, _title(title)])
    return Markup(f'<svg xmlns="http://www.w3.org/2000/svg"\n    {size}>\n{lines}\n</svg>')


def rectangle(x: Number, y: Number, width: Number, height: Number, name: str) -> Markup:
    """A rectangle of a class."""
    attributes = _attributes(x=x, y=y, width=width, height=height)
    return Markup(f'<rect{attributes} class="{escape(name)}" />')


def path(d: str, name: str, title: str = "") -> Markup:
    """A path of a class; ``title`` is shown for it."""
    start = f'<path{_attributes(d=d)} class="{escape(name)}"'
    return Markup(f"{start}>\n{_title(title)}\n</path>" if title else f"{start} />")


def text(words: str, x: Number, y: Number, *, at_end: bool = False) -> Markup:
    """A text that begins, or ends, at ``x``."""
    anchor = ' text-anchor="end"' if at_end else ""
    attributes = _attributes(x=x, y=y)
    return Markup(f'<text{attributes} font-size="11"{anchor}>{escape(shown(words))}</text>')


def _title(words: str) -> str:
    return f"<title>{escape(shown(words))}</title>"


def _attributes(**values: object) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items())
