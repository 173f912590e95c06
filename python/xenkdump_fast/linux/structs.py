"""Members of many structs, read in one call into Rust."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from .._native import AbsentError
from .kernel import Kernel
from .layouts import Number

T = TypeVar("T")
#: The number of structs that are read together.
BATCH = 1024


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The items in lists of at most ``size``."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class Structs:
    """Members of the structs at some addresses, read in one call.

    A member that is not among them, or cannot be read, is read again on its own when it is used. So
    values are the same as those of ``Kernel.read``, and so are the errors.
    """

    def __init__(
        self,
        kernel: Kernel,
        addresses: Iterable[int],
        numbers: Iterable[str | Number] = (),
        strings: Iterable[tuple[int, int]] = (),
    ) -> None:
        """``numbers`` are members that are numbers, ``strings`` offsets and sizes of names."""
        self._kernel = kernel
        members = dict.fromkeys(strings)
        for member in numbers:
            try:
                number = self._number(member)
            except AbsentError:
                continue
            members[number.offset, number.size] = None
        # Each address once, with its row in the result.
        self._rows = {at: row for row, at in enumerate(dict.fromkeys(addresses))}
        kernel.charge(len(self._rows) * sum(size for _, size in members))
        columns = kernel.virtual.read_members(list(self._rows), list(members))
        self._columns = dict(zip(members, columns, strict=True))

    def read(self, struct: int, member: str | Number) -> int:
        """The number in a member, as ``Kernel.read`` returns it."""
        number = self._number(member)
        value = self._value(struct, number.offset, number.size)
        if not isinstance(value, int):
            value = self._kernel.number(struct + number.offset, number.size)
        return number.decode(value)

    def string(self, struct: int, offset: int, size: int) -> str:
        """The C string in the ``size`` bytes at ``offset``, as ``Kernel.string`` returns it."""
        value = self._value(struct, offset, size)
        if not isinstance(value, bytes):
            return self._kernel.string(struct + offset, size)
        return value.partition(b"\0")[0].decode("utf-8", "backslashreplace")

    def values(self, member: str | Number) -> list[int]:
        """The values of a member in those structs in which it can be read."""
        try:
            number = self._number(member)
        except AbsentError:
            return []
        column = self._columns.get((number.offset, number.size), ())
        return [number.decode(value) for value in column if isinstance(value, int)]

    def _number(self, member: str | Number) -> Number:
        return self._kernel.numeric(member) if isinstance(member, str) else member

    def _value(self, struct: int, offset: int, size: int) -> int | bytes | None:
        column, row = self._columns.get((offset, size)), self._rows.get(struct)
        return None if column is None or row is None else column[row]
