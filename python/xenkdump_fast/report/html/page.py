"""Writes the page: ``page.html`` with the sections."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

from ..blocks import Document

_FOLDER = os.path.dirname(__file__)
_EXTRA = "pip install 'xenkdump_fast[report]'"


class MissingError(Exception):
    """The library that HTML needs is not installed."""


def pieces(document: Document) -> Iterator[str]:
    """The page piece by piece."""
    check()
    from markupsafe import Markup

    from . import sections
    from .inline import Inline, text

    style, script = (_own(name) for name in ("style.css", "script.js"))
    start, end = (Markup(part) for part in _own("page.html").split("{main}"))
    # What is not Markup is escaped.
    yield start.format(
        title=document.title,
        summary=text(document.summary),
        style=Markup(style),
        policy=_policy(style, script),
        contents=Markup("".join(sections.contents(document))),
    )
    inline = Inline(document.ids())
    for section in (document.died, *document.sections):
        yield from sections.section(inline, section)
        yield "\n"
    yield end.format(script=Markup(script)).rstrip("\n")


def check() -> None:
    """Raises MissingError if the library that HTML needs is not installed."""
    try:
        found = find_spec("markupsafe")
    except ValueError:  # imported, without a spec
        found = None
    if found is None:
        raise MissingError(f"HTML needs markupsafe: {_EXTRA}")


def write(document: Document, path: str) -> None:
    """Writes the page to a new file. Raises OSError, MissingError."""
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(pieces(document))


def _own(name: str) -> str:
    with open(os.path.join(_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _policy(style: str, script: str) -> str:
    """A policy that allows this style and this script, and nothing from anywhere else."""
    from base64 import b64encode
    from hashlib import sha256

    def digest(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {digest(style)}; script-src {digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
