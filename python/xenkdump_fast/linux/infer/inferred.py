"""What inference yields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .sample import Sample


@dataclass(frozen=True, slots=True)
class Inferred:
    """A member whose offset was inferred; its size follows from what it is."""

    offset: int
    size: int
    signed: bool = False
    count: int | None = None
    bit_offset: int | None = None
    bit_size: int | None = None


#: Paths of members within one struct; the struct's size stands at the empty path.
Struct = Mapping[str, Inferred]


class Inferences(Protocol):
    """What the inference of one struct may ask of that of others."""

    @property
    def sample(self) -> Sample:
        """The tasks that invariants are checked on."""
        ...

    def member(self, path: str) -> Inferred:
        """A member of another struct; AbsentError if it cannot be inferred."""
        ...
