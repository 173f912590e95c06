"""A report as a folder of text files, with the names of XenServer's xen-crashdump-analyser.

``xen.log`` has the host, its pCPUs and Xen's console, ``domN.log`` a domain,
``xen.pcpuN.stack.log`` the stack of a pCPU. ``report.log`` has what concerns none of them.
"""

import os
from collections.abc import Iterable, Iterator

from ..output.escape import printable
from . import text
from .blocks import Document, Section

#: The sections of the whole host.
_HOST = "xen"


def write(document: Document, folder: str) -> list[str]:
    """Writes the folder, which must not exist; returns the paths of its files. Raises OSError."""
    os.mkdir(folder, 0o700)
    found = []
    for name, lines in _files(document):
        path = os.path.join(folder, name)
        with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{printable(line)}\n" for line in lines)
        found.append(path)
    return found


def _files(document: Document) -> Iterator[tuple[str, Iterable[str]]]:
    """The names of the files, with their lines."""
    rest = []
    for section in document.sections:
        if section.domain is not None:
            yield f"dom{section.domain}.log", _lines(section)
        elif section.id == _HOST:
            yield "xen.log", _lines(section)
            for part in section.sections:
                if part.pcpu is not None:
                    yield f"xen.pcpu{part.pcpu}.stack.log", _lines(part)
        else:
            rest.append(section)
    yield "report.log", text.lines(document._replace(sections=rest))


def _lines(section: Section) -> Iterator[str]:
    lines = text.of_section(section)
    next(lines)  # the empty line before a section
    return lines
