"""Reports about a dump: one content, gathered once, and a writer for each format.

``content`` gathers plain data (``model.py``). ``outline`` arranges it as sections with tables and
lines, which ``html``, ``text`` and ``markdown`` write; ``folder`` writes the text as a folder.
"""

import os

from .content import content
from .model import Content

__all__ = ["Content", "content", "write_html"]


def write_html(content: Content, path: str | os.PathLike[str]) -> None:
    """Writes a new file of HTML. Raises OSError, ``html.MissingError``."""
    from . import html, outline

    html.write(outline.document(content), os.fspath(path))
