"""Members of many structs, read in one call into Rust."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice, repeat

from .._native import AbsentError
from .._typing import TypeVar, cast
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
        known: dict[str | Number, Number] = {}
        for member in numbers:
            try:
                known[member] = kernel.numeric(member) if isinstance(member, str) else member
            except AbsentError:
                continue
        spans = [(number.offset, number.size) for number in known.values()]
        spans += strings
        # Each address once.
        self._structs = list(dict.fromkeys(addresses))
        kernel.charge(len(self._structs) * sum(size for _, size in spans))
        columns = kernel.virtual.read_members(self._structs, spans)
        self._columns = {
            member: _decode(number, cast("list[int | None]", column))
            for (member, number), column in zip(known.items(), columns, strict=False)
        }
        self._strings = dict(zip(spans[len(known) :], columns[len(known) :], strict=True))

    @cached_property
    def _rows(self) -> dict[int, int]:
        """The row of each struct in the result."""
        return {at: row for row, at in enumerate(self._structs)}

    def read(self, struct: int, member: str | Number) -> int:
        """The number in a member, as ``Kernel.read`` returns it."""
        column, row = self._columns.get(member), self._rows.get(struct)
        value = None if column is None or row is None else column[row]
        return self._kernel.read(struct, member) if value is None else value

    def table(
        self, *members: str | Number
    ) -> tuple[dict[int, tuple[int, ...]], dict[int, AbsentError]]:
        """The numbers in these members of each struct, and why those of others cannot be read."""
        columns = [self._column(member) for member in members]
        rows = dict(zip(self._structs, zip(*columns, strict=True), strict=True))
        problems: dict[int, AbsentError] = {}
        if any(None in column for column in columns):
            for struct in [struct for struct, row in rows.items() if None in row]:
                try:
                    rows[struct] = tuple(self.read(struct, member) for member in members)
                except AbsentError as error:
                    problems[struct] = error
                    del rows[struct]
        return cast("dict[int, tuple[int, ...]]", rows), problems

    def column(self, member: str | Number) -> tuple[dict[int, int], dict[int, AbsentError]]:
        """The same for one member: its number in each struct."""
        column = self._column(member)
        if None not in column:
            return dict(zip(self._structs, cast("list[int]", column), strict=True)), {}
        rows, problems = self.table(member)
        return {struct: value for struct, (value,) in rows.items()}, problems

    def _column(self, member: str | Number) -> "list[int | None]":
        column = self._columns.get(member)
        return [None] * len(self._structs) if column is None else column

    def string(self, struct: int, offset: int, size: int) -> str:
        """The C string in the ``size`` bytes at ``offset``, as ``Kernel.string`` returns it."""
        column, row = self._strings.get((offset, size)), self._rows.get(struct)
        value = None if column is None or row is None else column[row]
        if not isinstance(value, bytes):
            return self._kernel.string(struct + offset, size)
        return value.partition(b"\0")[0].decode("utf-8", "backslashreplace")

    def values(self, member: str | Number) -> list[int]:
        """The values of a member in those structs in which it can be read."""
        return [value for value in self._columns.get(member, ()) if value is not None]


def read_columns(
    kernel: Kernel, structs: list[int], members: tuple[str, ...]
) -> tuple[list[list[int]], dict[int, AbsentError]]:
    """The same as ``Structs.table`` by columns: the ``structs`` that can be read, then each member.

    ``structs`` are at different addresses. Where all can be read, no object is made for each.
    """
    spans = kernel.spans.get(members)
    if spans is None:
        spans = kernel.spans[members] = _spans(kernel, members)
    if spans:
        kernel.charge(len(structs) * sum([size for _, size in spans]))
        columns = cast("list[list[int]]", kernel.virtual.read_members(structs, spans))
        if not any(None in column for column in columns):
            return [structs, *columns], {}
    rows, problems = Structs(kernel, structs, members).table(*members)
    values = zip(*rows.values(), strict=True) if rows else repeat((), len(members))
    return [list(rows), *map(list, values)], problems


def _spans(kernel: Kernel, members: Iterable[str]) -> list[tuple[int, int]]:
    """Offset and size of each member; none if not all are known, or one needs decoding."""
    try:
        numbers = [kernel.numeric(member) for member in members]
    except AbsentError:
        return []
    if all(number.is_plain for number in numbers):
        return [(number.offset, number.size) for number in numbers]
    return []


def _decode(number: Number, column: list[int | None]) -> list[int | None]:
    if number.is_plain:
        return column
    return [None if value is None else number.decode(value) for value in column]
