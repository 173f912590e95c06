"""Writes the page, by the template ``page.html.jinja``."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...output.escape import printable, visible
from ..blocks import Document, Facts, Lines, Note, Picture, Table, spans

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
_EXTRA = "pip install 'xenkdump_fast[report]'"


class MissingError(Exception):
    """A library that HTML needs is not installed."""


def pieces(document: Document) -> Iterator[str]:
    """The page piece by piece."""
    try:
        import jinja2

        from . import pictures
    except ImportError as error:
        raise MissingError(f"HTML needs {error.name}: {_EXTRA}") from None
    environment = _environment(jinja2)
    ids = document.ids()
    style, script = (_own(name) for name in ("style.css", "script.js"))
    page = environment.get_template("page.html.jinja")
    yield from page.generate(
        document=document,
        style=style,
        script=script,
        policy=_policy(style, script),
        kind=_kind,
        spans=spans,
        shown=partial(_link, ids),
        picture=pictures.svg,
        visible=_lines,
    )


def _environment(jinja2: Any) -> "Environment":
    return jinja2.Environment(  # type: ignore[no-any-return]
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


def _link(ids: set[str], to: str | None) -> bool:
    """Whether there is something to link to."""
    return to in ids


def _lines(text: str) -> str:
    """A text with what is not printable escaped, apart from line feeds and tabs."""
    if text.isprintable():
        return text
    return "\n".join(map(printable, text.split("\n"))) if "\n" in text or "\t" in text else visible(text)
