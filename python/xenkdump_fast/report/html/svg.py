"""Elements of SVG, written by Python's ElementTree.

drawsvg has the same elements, but its import takes 80 ms, which is a sixth of the time of a small
report.
"""

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from .inline import text as shown

Number = float | int


def drawing(width: Number, height: Number, elements: Iterable[Element], title: str) -> Markup:
    """A drawing for a page of HTML."""
    found = _element("svg", xmlns="http://www.w3.org/2000/svg", width=width, height=height)
    found.set("viewBox", f"0 0 {width} {height}")
    found.set("role", "img")
    found.extend(elements)
    _add_title(found, title)
    for one in found:
        one.tail = "\n"
    return Markup(tostring(found, encoding="unicode"))


def rectangle(x: Number, y: Number, width: Number, height: Number, name: str) -> Element:
    """A rectangle of a class."""
    found = _element("rect", x=x, y=y, width=width, height=height)
    found.set("class", name)
    return found


def path(d: str, name: str, title: str = "") -> Element:
    """An SVG path with a CSS class; ``title`` is its tooltip."""
    found = _element("path", d=d)
    found.set("class", name)
    if title:
        _add_title(found, title)
    return found


def text(words: str, x: Number, y: Number, *, at_end: bool = False) -> Element:
    """A text that begins, or ends, at ``x``."""
    found = _element("text", x=x, y=y)
    found.set("font-size", "11")
    if at_end:
        found.set("text-anchor", "end")
    found.text = shown(words)
    return found


def _element(tag: str, **attributes: object) -> Element:
    return Element(tag, {name: str(value) for name, value in attributes.items()})


def _add_title(found: Element, words: str) -> None:
    SubElement(found, "title").text = shown(words)
