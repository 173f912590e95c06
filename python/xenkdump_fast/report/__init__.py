"""Reports about a dump: one content, gathered once, and a writer for each format.

``content`` gathers plain data (``model.py``). ``outline`` arranges it as sections with tables and
lines, which ``html``, ``text`` and ``markdown`` write; ``folder`` writes the text as a folder.
"""

from .content import content
from .model import Content

__all__ = ["Content", "content"]
