"""The text of Xen's console ring."""

from .._typing import NamedTuple


class Console(NamedTuple):
    """The text of the ring, oldest line first."""

    lines: list[str]
    #: Whether older text was overwritten.
    overwritten: bool
    #: How it was found.
    how: str
