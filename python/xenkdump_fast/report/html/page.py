"""Writes the page, by the template ``page.html.jinja``."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..blocks import Document, Facts, Lines, Note, Picture, Table

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
_EXTRA = "pip install 'xenkdump_fast[report]'"


class MissingError(Exception):
    """A library that HTML needs is not installed."""


def pieces(document: Document) -> Iterator[str]:
    """The page piece by piece."""
    check()
    from . import pictures
    from .inline import Inline, text

    environment = _environment()
    inline = Inline(document.ids())
    style, script = (_own(name) for name in ("style.css", "script.js"))
    page = environment.get_template("page.html.jinja")
    yield from page.generate(
        document=document,
        style=style,
        script=script,
        policy=_policy(style, script),
        kind=_kind,
        cell=inline.cell,
        rows=inline.rows,
        lines=inline.lines,
        picture=pictures.svg,
        visible=text,
    )


def check() -> None:
    """Raises MissingError if a library that HTML needs is not installed.

    They are not imported: this is before the dump is read, which needs the memory.
    """
    for name in ("jinja2", "drawsvg"):
        try:
            found = find_spec(name)
        except ValueError:  # imported, without a spec
            found = None
        if found is None:
            raise MissingError(f"HTML needs {name}: {_EXTRA}")


def _environment() -> "Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def write(document: Document, path: str) -> None:
    """Writes the page to a new file. Raises OSError, MissingError."""
    with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(pieces(document))


def _own(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


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


def _kind(block: object) -> str:
    names = {Facts: "facts", Table: "table", Lines: "lines", Note: "note", Picture: "picture"}
    return names[type(block)]
