"""Structs that point to the next one, up to NULL."""

from collections.abc import Callable, Iterator

from .._native import AbsentError
from .kernel import Kernel
from .linked_structs import LinkedStructs


def chain(
    kernel: Kernel,
    first: int,
    following: str,
    structs: LinkedStructs | None = None,
    read: Callable[[int, str], int] | None = None,
) -> Iterator[int]:
    """The structs from ``first`` on; ``following`` is the member with the address of the next.

    ``structs`` counts them if there are several such lists. ``read`` reads members in place of
    ``Kernel.read``, where those of many structs were read before. AbsentError after the last one
    before a loop, or before one that cannot be read or cannot be a struct.
    """
    struct, _, _ = following.partition(".")
    structs = structs or LinkedStructs(kernel, following)
    read = read or kernel.read
    seen: set[int] = set()
    at = first
    while at:
        if at in seen:
            raise AbsentError(f"the list of structs {struct} loops back to {at:#x}")
        structs.claim(at)
        seen.add(at)
        later = read(at, following)
        yield at
        at = later
