"""An extension of griffe, which reads the source for the API pages."""

from collections.abc import Iterator
from typing import Any

import griffe


class Api(griffe.Extension):
    """Adds what griffe omits: ``#:`` comments, and functions that only have overloads."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called when the whole package is read."""
        for found in list(_objects(pkg)):
            if isinstance(found, griffe.Class):
                _add_overloaded(found)
            elif isinstance(found, griffe.Attribute) and found.docstring is None:
                text = _comment_above(found)
                if text:
                    found.docstring = griffe.Docstring(text, parent=found)


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if isinstance(member, griffe.Object):
            yield member
            yield from _objects(member)


def _add_overloaded(found: griffe.Class) -> None:
    """A stub has no implementation after the overloads; the first has the docstring."""
    for name, overloads in found.overloads.items():
        if name not in found.members:
            shown = griffe.Function(
                name,
                lineno=overloads[0].lineno,
                endlineno=overloads[-1].endlineno,
                parameters=overloads[-1].parameters,
                returns=overloads[-1].returns,
                docstring=overloads[0].docstring,
            )
            shown.overloads = list(overloads)
            found.set_member(name, shown)


def _comment_above(found: griffe.Attribute) -> str:
    if found.lineno is None:
        return ""
    lines = found.lines_collection[found.filepath][: found.lineno - 1]
    comment: list[str] = []
    while lines and lines[-1].strip().startswith("#:"):
        comment.insert(0, lines.pop().strip().removeprefix("#:").strip())
    return "\n".join(comment)
