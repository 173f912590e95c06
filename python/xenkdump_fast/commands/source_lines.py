"""Source lines of code, from the DWARF of a vmlinux, of its debug file, or of a xen-syms."""

from collections.abc import Sequence

from .._native import AbsentError, SourceLines
from .._typing import TYPE_CHECKING, NamedTuple
from ..output.escape import visible
from ..session import Domain

if TYPE_CHECKING:
    from ..xen.host import XenHost


class Line(NamedTuple):
    """A line of a source file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{visible(self.file)}: {self.line}"


class Finder:
    """Finds the lines of code of a target; an address without one has None."""

    def __init__(self, lines: SourceLines, name: str) -> None:
        self._lines = lines
        self._known: dict[int, Line | None] = {}
        #: What could not be read, for a result's ``warnings``.
        self.warnings: list[str] = []
        if lines.is_incomplete:
            self.warnings.append(f"{name}: DWARF: some source lines cannot be read")

    def find(self, addresses: Sequence[int]) -> list[Line | None]:
        """The line of the code at each address, of the innermost inlined function."""
        new = [address for address in dict.fromkeys(addresses) if address not in self._known]
        for address, found in zip(new, self._lines.find(new), strict=True):
            self._known[address] = None if found is None else Line(*found)
        return [self._known[address] for address in addresses]


def finder(target: "Domain | XenHost") -> Finder:
    """The source lines of a kernel or a hypervisor. AbsentError if there are none."""
    if isinstance(target, Domain):
        return Finder(target.source_lines, target.kernel.image.path)
    if target.image is None:
        raise AbsentError(f"{target.symbols_path or target.dump.path}: no source lines: no DWARF")
    return Finder(target.image.source_lines(), target.image.path)


def finder_if_any(target: "Domain | XenHost") -> Finder | None:
    """The same; None if there are none."""
    try:
        return finder(target)
    except AbsentError:
        return None
