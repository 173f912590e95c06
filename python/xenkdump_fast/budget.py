"""Budgets: how much of a dump may be read for one purpose.

In an intact dump every structure, table and page has one owner, so everything of one kind together
is no larger than the memory that the dump holds. In a hostile dump thousands of owners may share
one page, and each of them is another walk through it. A budget ends such a walk.
"""

from collections.abc import Iterable, Iterator
from types import TracebackType

from ._native import AbsentError
from ._typing import TypeVar

#: A read of fewer bytes is charged as one of this size: it takes as long.
_MIN_CHARGE = 256


_Item = TypeVar("_Item")


class BudgetExceededError(AbsentError):
    """A budget is exhausted: more was requested than may be read for one purpose."""


class Budget:
    """An amount of work for one purpose. It only shrinks.

    Work that is charged to a nested budget is charged to those around it, too.
    """

    __slots__ = ("_parent", "name", "remaining")

    def __init__(self, name: str, size: int, parent: "Budget | None" = None) -> None:
        """``name`` says what is read, in the plural, as in "module tables"."""
        self.name = name
        #: How much may still be spent, in bytes unless the owner counts something else.
        self.remaining = size
        self._parent = parent

    def spend(self, amount: int) -> None:
        """Charges ``amount``; BudgetExceededError, and nothing remains, if that is too much."""
        if amount > self.remaining:
            self.remaining = 0
            raise BudgetExceededError(self.reason)
        self.remaining -= amount
        if self._parent is not None:
            self._parent.spend(amount)

    def take(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The items, each charged as 1 before it is yielded."""
        for item in items:
            self.spend(1)
            yield item

    @property
    def reason(self) -> str:
        """Why the work ends if this budget is exhausted."""
        return f"the {self.name} are more than the dump can hold"

    def nested(self, name: str, size: int) -> "Budget":
        """A budget within this one."""
        return Budget(name, min(size, self.remaining), self)

    @property
    def exhausted(self) -> bool:
        """Whether nothing remains, of this budget or of one around it."""
        return self.remaining <= 0 or (self._parent is not None and self._parent.exhausted)


class Charged:
    """Memory whose reads are charged to a budget, so that its readers need not count them.

    Within ``with memory.budget("module tables", size):`` every read is charged, and one that the
    budget does not cover raises BudgetExceededError. A generator must not suspend within the block:
    the reads of its caller would be charged, too.
    """

    _budget: Budget | None = None

    def budget(self, name: str, size: int) -> "Charging":
        """Charges the reads within to a new budget, and to the one around it if there is one."""
        outer = self._budget
        return self.charging(Budget(name, size) if outer is None else outer.nested(name, size))

    def charging(self, budget: Budget) -> "Charging":
        """Charges the reads within to ``budget``."""
        return Charging(self, budget)

    def charge(self, size: int) -> None:
        """Charges a read of ``size`` bytes, or other work that takes as long."""
        if self._budget is not None:
            self._budget.spend(max(size, _MIN_CHARGE))


class Charging:
    """A block whose reads are charged to a budget."""

    __slots__ = ("_memory", "_outer", "_own")

    def __init__(self, memory: Charged, own: Budget) -> None:
        self._memory = memory
        self._own = own
        self._outer: Budget | None = None

    def __enter__(self) -> Budget:
        self._outer, self._memory._budget = self._memory._budget, self._own
        return self._own

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._memory._budget = self._outer
