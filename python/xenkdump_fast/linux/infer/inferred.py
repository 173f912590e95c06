"""Results of inference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .task_sample import TaskSample


@dataclass(frozen=True, slots=True)
class Inferred:
    """A member with an inferred offset; its size is known from its type."""

    offset: int
    size: int
    signed: bool = False
    count: int | None = None
    bit_offset: int | None = None
    bit_size: int | None = None


#: Members of one struct by path; the empty path has the size of the struct.
Struct = Mapping[str, Inferred]


class Inferences(Protocol):
    """The results that the inference of other structs depends on."""

    @property
    def sample(self) -> TaskSample:
        """The tasks on which invariants are checked."""
        ...

    def member(self, path: str) -> Inferred:
        """A member of another struct; AbsentError if it cannot be inferred."""
        ...
