"""Results that are made when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from ..progress import each

_T = TypeVar("_T")
_R = TypeVar("_R")


class Lazy(Sequence[_R], Generic[_T, _R]):
    """One result for each item, made anew each time.

    All at once they may be many times as long as the dump: a stack of 16 KiB has up to a thousand
    frames, each with its registers.
    """

    def __init__(self, items: Sequence[_T], make: Callable[[_T], _R], what: str) -> None:
        """``what`` an item is called while one goes through them."""
        self._items = items
        self._make = make
        self._what = what

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> _R: ...

    @overload
    def __getitem__(self, index: slice) -> "Lazy[_T, _R]": ...

    def __getitem__(self, index: int | slice) -> "_R | Lazy[_T, _R]":
        if isinstance(index, slice):
            return Lazy(self._items[index], self._make, self._what)
        return self._make(self._items[index])

    def __iter__(self) -> Iterator[_R]:
        return map(self._make, each(self._items, self._what))
