"""Types of JSON values, for the TypedDicts that describe what each command prints.

``tools/json_schema.py`` makes docs/json.schema.json of these TypedDicts. For the type checker a
``Hex`` is a plain string; for the generator it is a class of its own, which has a pattern.
"""

from .._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Count = int
    Hex = str
    HexBytes = str
    Stream = Iterable
else:

    class Count(int):
        """An integer that is not negative."""

    class Hex(str):
        """A number in hex, as ``0x1f``."""

        __slots__ = ()

    class HexBytes(str):
        """Bytes in hex, two digits each."""

        __slots__ = ()

    #: A list that may be produced item by item.
    Stream = list

#: Registers by name.
Registers = dict[str, Hex]
