"""Resources: ranges of I/O ports and of memory."""

from collections.abc import Iterator
from typing import NamedTuple

from .._native import AbsentError
from ..limits import MAX_RESOURCE_DEPTH
from .kernel import Kernel


class Resource(NamedTuple):
    """A range."""

    #: Address of the struct resource.
    address: int
    #: How many others it is within.
    depth: int
    start: int
    end: int
    name: str


def resources(kernel: Kernel, root: str) -> Iterator[Resource]:
    """The resources below the variable ``root``, which comes first, each before those in it.

    AbsentError after those before damage.
    """
    size = kernel.types.sizeof("resource")
    budget = kernel.object_budget("resources", size)
    seen: set[int] = set()
    waiting = [(kernel.symbol(root), 0)]
    while waiting:
        at, depth = waiting.pop()
        if at in seen:
            raise AbsentError(f"the resources lead back to {at:#x}")
        if depth > MAX_RESOURCE_DEPTH:
            raise AbsentError(f"resources are within each other {depth} times: they are damaged")
        budget.spend(1)
        seen.add(at)
        yield Resource(
            at,
            depth,
            kernel.read(at, "resource.start"),
            kernel.read(at, "resource.end"),
            kernel.text(at, "resource.name", 256),
        )
        following = (
            kernel.read(at, "resource.sibling") if depth else 0,
            kernel.read(at, "resource.child"),
        )
        waiting += [(one, depth + i) for i, one in enumerate(following) if one]
