"""The text of Xen's console ring."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Console:
    """The text of the ring, oldest line first."""

    lines: list[str]
    #: Whether older text was overwritten.
    overwritten: bool
    #: How it was found.
    how: str
