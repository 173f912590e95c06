"""Locks of Xen that are held, in JSON."""

from .._typing import TYPE_CHECKING, TypedDict
from ..output.json_types import Count, Hex

if TYPE_CHECKING:
    from ..xen.locks import Held


class LockJson(TypedDict):
    """A lock that is held. ``cpus`` are those that hold it, empty if that is not recorded."""

    name: str
    address: Hex
    mode: str
    cpus: list[Count]
    function: str | None
    waiters: Count | None
    readers: Count | None
    problem: str | None


def to_json(held: "Held") -> LockJson:
    """One lock."""
    return {
        "name": held.name,
        "address": hex(held.address),
        "mode": held.mode,
        "cpus": held.cpus,
        "function": held.function,
        "waiters": held.waiters,
        "readers": held.readers,
        "problem": held.problem,
    }
