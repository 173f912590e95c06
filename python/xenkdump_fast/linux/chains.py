"""Structs that point to the next one, up to NULL."""

from collections.abc import Iterator

from .._native import AbsentError
from ..limits import MAX_LIST_ENTRIES
from .kernel import Kernel


def chain(kernel: Kernel, first: int, following: str) -> Iterator[int]:
    """The structs from ``first`` on; ``following`` is the member with the address of the next.

    AbsentError after the last one before a loop, or before one that cannot be read.
    """
    struct, _, _ = following.partition(".")
    size = kernel.types.sizeof(struct)
    budget = kernel.object_budget(f"structs {struct}", size, MAX_LIST_ENTRIES)
    seen: set[int] = set()
    at = first
    while at:
        if at in seen:
            raise AbsentError(f"the list of structs {struct} loops back to {at:#x}")
        budget.spend(1)
        seen.add(at)
        later = kernel.read(at, following)
        yield at
        at = later
