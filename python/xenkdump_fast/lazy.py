"""Results that are made when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from .isolation import isolated
from .progress import each

_T = TypeVar("_T")
_R = TypeVar("_R")


class Lazy(Sequence[_R], Generic[_T, _R]):
    """One result for each item, made anew each time.

    All at once they may be many times as long as the dump: a stack of 16 KiB has up to a thousand
    frames, each with its registers. An item of which no result can be made is left out when one
    goes through them, with a warning.
    """

    def __init__(
        self,
        items: Sequence[_T],
        make: Callable[[_T], _R],
        what: str,
        *,
        name: Callable[[_T], str],
        warn: Callable[[str], None],
    ) -> None:
        """``what`` an item is called while one goes through them; ``name`` tells it from others."""
        self._items = items
        self._make = make
        self._what = what
        self._name = name
        self._warn = warn

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> _R: ...

    @overload
    def __getitem__(self, index: slice) -> "Lazy[_T, _R]": ...

    def __getitem__(self, index: int | slice) -> "_R | Lazy[_T, _R]":
        if isinstance(index, slice):
            return Lazy(
                self._items[index], self._make, self._what, name=self._name, warn=self._warn
            )
        return self._make(self._items[index])

    def __iter__(self) -> Iterator[_R]:
        for item in each(self._items, self._what):
            with isolated(self._name(item), self._warn):
                yield self._make(item)
