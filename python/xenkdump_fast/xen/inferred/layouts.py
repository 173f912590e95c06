"""Inferred layouts with the interface of debug information."""

from collections.abc import Mapping

from ..._native import AbsentError
from ..._typing import NamedTuple


class InferredMember(NamedTuple):
    """A member, as ``_native.Member`` has it."""

    offset: int
    size: int
    kind: str = "int"
    count: int | None = None  # type: ignore[assignment]
    signed: bool = False
    bit_offset: int | None = None
    bit_size: int | None = None


class InferredTypes:
    """Stands in for ``_native.Types`` where xen-syms has no DWARF."""

    def __init__(self, members: Mapping[str, InferredMember], sizes: Mapping[str, int]) -> None:
        self._members = members
        self._sizes = sizes

    def member(self, path: str) -> InferredMember:
        """The member, as ``domain.evtchn``; AbsentError if it is not inferred."""
        if path not in self._members:
            raise AbsentError(f"{path} is not inferred")
        return self._members[path]

    def sizeof(self, name: str) -> int:
        """The size of a type; AbsentError if it is not inferred."""
        if name not in self._sizes:
            raise AbsentError(f"the size of {name} is not inferred")
        return self._sizes[name]

    def enumerator(self, name: str) -> int:
        """AbsentError: enumerators are not inferred."""
        raise AbsentError(f"{name} is not inferred")


class Inferred(NamedTuple):
    """A layout, and what proves it."""

    types: InferredTypes
    #: For a warning: the evidence, and what is assumed besides.
    evidence: str


def pointer(offset: int, word: int) -> InferredMember:
    """A member that is a pointer."""
    return InferredMember(offset, word, "ptr")
