"""Structs of one kind that lists or trees link.

In an intact dump each of them has memory of its own. In a hostile one the nodes of a list may be
8 bytes apart, so that there are far more of them than structs that fit into memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .._native import AbsentError
from ..limits import MAX_FIRST_WALK, MAX_LIST_ENTRIES
from .kernel import Kernel, LinkedList

if TYPE_CHECKING:
    from typing import Literal

    from .._native import ListLinks


class Places:
    """Where structs of one size are: none of them may overlap another one."""

    def __init__(self, size: int) -> None:
        self._size = max(size, 1)
        #: By address // size. As none overlap, there is at most one struct for each number.
        self._places: dict[int, int] = {}

    def __contains__(self, address: int) -> bool:
        return self._places.get(address // self._size) == address

    def add(self, address: int) -> int | None:
        """Adds a struct unless it overlaps another one: then the address of that one.

        A struct may be added again.
        """
        number = address // self._size
        for near in (number - 1, number, number + 1):
            other = self._places.get(near)
            if other is not None and 0 < abs(address - other) < self._size:
                return other
        self._places[number] = address
        return None


class LinkedStructs:
    """The structs that have a member by which they are linked.

    Those of all lists that are read with it are no more than the dump can hold, and none of them
    overlap. All lists of this kind that a command reads share one.
    """

    def __init__(self, kernel: Kernel, member: str, most: int = MAX_LIST_ENTRIES) -> None:
        """``most`` is another limit on their number. AbsentError if the layout is not known."""
        self._kernel = kernel
        self._struct, _, _ = member.partition(".")
        self._offset = kernel.offset(member)
        size = kernel.types.sizeof(self._struct)
        self._places = Places(size)
        self._budget = kernel.object_budget(f"structs {self._struct}", size, most)
        self._most = f"at most {self._budget.remaining} structs {self._struct} are read"

    def claim(self, address: int) -> None:
        """Counts the struct at an address. AbsentError if it cannot be one."""
        problem = self._most if self._budget.exhausted else self._overlap(address)
        if problem is not None:
            raise AbsentError(problem)
        self._budget.spend(1)

    def of(self, nodes: Iterable[int]) -> Iterator[int]:
        """The structs of these nodes; AbsentError before the first that cannot be one."""
        for node in nodes:
            at = self._kernel.containing(node, self._offset)
            self.claim(at)
            yield at

    def list(self, head: int) -> Sequence[int]:
        """The structs of the list at ``head``; a warning if it is not complete."""
        (found,) = self.lists([head])
        if found.problem is not None:
            self._kernel.warn(found.problem)
        return found.entries

    def lists(self, heads: Sequence[int], links: "ListLinks" = "circular") -> Sequence[LinkedList]:
        """The lists with these heads as ``Kernel.lists``, but with structs in place of nodes.

        A list ends before a struct that overlaps another one: what follows is not a list.
        """
        limit = max(self._budget.remaining, 0)
        first = min(limit, MAX_FIRST_WALK)
        found = [self._checked(one) for one in self._kernel.lists(heads, first, links)]
        if first < limit and any(one.end == "limit" for one in found):
            # Lists with overlaps are damaged: only the others are walked further.
            again = [i for i, one in enumerate(found) if one.end != "overlap"]
            walked = self._kernel.lists([heads[i] for i in again], limit, links)
            for i, one in zip(again, walked, strict=True):
                found[i] = self._checked(one)
        self._budget.spend(min(sum(len(one.entries) for one in found), limit))
        return found

    def _checked(self, walked: LinkedList) -> LinkedList:
        structs: list[int] = []

        def broken_off(end: "Literal['limit', 'overlap']", why: str) -> LinkedList:
            after = f"the list at {walked.head:#x} breaks off after {len(structs)} entries"
            return LinkedList(walked.head, structs, end, f"{after}: {why}")

        for node in walked.entries:
            at = self._kernel.containing(node, self._offset)
            problem = self._overlap(at)
            if problem is not None:
                return broken_off("overlap", problem)
            structs.append(at)
        if walked.end == "limit":
            return broken_off("limit", self._most)
        return LinkedList(walked.head, structs, walked.end, walked.problem)

    def _overlap(self, address: int) -> str | None:
        other = self._places.add(address)
        if other is None:
            return None
        return f"the struct {self._struct} at {address:#x} overlaps that at {other:#x}"
