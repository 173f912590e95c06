"""Results that are computed on demand."""

from collections.abc import Callable, Iterator, Sequence

from .._typing import Generic, TypeVar, overload
from ..isolation import isolated
from ..progress import each

_T = TypeVar("_T")
_R = TypeVar("_R")


class Lazy(Sequence[_R], Generic[_T, _R]):
    """One result per item, computed at each access.

    All results together may be many times as large as the dump: a stack of 16 KiB has up to a
    thousand frames, each with its registers. Iteration skips an item whose result cannot be
    computed, with a warning.
    """

    def __init__(
        self,
        items: Sequence[_T],
        make: Callable[[_T], _R],
        what: str,
        *,
        problem: Callable[[_T], str],
        warn: Callable[[str], None],
    ) -> None:
        """``what`` names an item in progress reports, ``problem`` is the start of a warning."""
        self._items = items
        self._make = make
        self._what = what
        self._problem = problem
        self._warn = warn

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> _R: ...

    @overload
    def __getitem__(self, index: slice) -> "Lazy[_T, _R]": ...

    def __getitem__(self, index: int | slice) -> "_R | Lazy[_T, _R]":
        if isinstance(index, slice):
            items = self._items[index]
            return Lazy(items, self._make, self._what, problem=self._problem, warn=self._warn)
        return self._make(self._items[index])

    def __iter__(self) -> Iterator[_R]:
        for item in each(self._items, self._what):
            with isolated(self._problem(item), self._warn):
                yield self._make(item)
