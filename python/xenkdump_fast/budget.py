"""Budgets: how much of a dump may be read for one purpose.

In a sound dump every structure, table and page has one owner, so everything of one kind together
is no larger than the memory that the dump holds. In a hostile dump thousands of owners may share
one page, and each of them is another walk through it. A budget ends such a walk.
"""

from ._native import AbsentError


class BudgetExceededError(AbsentError):
    """More was asked for than may be read for one purpose."""


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
            raise BudgetExceededError(f"the {self.name} are more than the dump can hold")
        self.remaining -= amount
        if self._parent is not None:
            self._parent.spend(amount)

    def nested(self, name: str, size: int) -> "Budget":
        """A budget within this one."""
        return Budget(name, min(size, self.remaining), self)

    @property
    def exhausted(self) -> bool:
        """Whether nothing remains, of this budget or of one around it."""
        return self.remaining <= 0 or (self._parent is not None and self._parent.exhausted)


class Allowance:
    """Being replaced by ``Budget``."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        #: Bytes that may still be looked at.
        self.left = size

    def take(self, size: int) -> bool:
        """Spends ``size`` bytes; False, and nothing is left, where there are not so many."""
        if size > self.left:
            self.left = 0
            return False
        self.left -= size
        return True
