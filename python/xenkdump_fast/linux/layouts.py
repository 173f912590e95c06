"""Struct layouts of a kernel: from type information, else from VMCOREINFO or by inference."""

from collections.abc import Callable, Mapping

from .._native import AbsentError, Image, TypeGraph, Types
from .._typing import NamedTuple, Protocol
from .boot import vmcoreinfo


class Member(Protocol):
    """A member of a struct: what is used of the native ``Member``."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def bit_offset(self) -> int | None: ...  # noqa: D102
    @property
    def bit_size(self) -> int | None: ...  # noqa: D102
    @property
    def count(self) -> int | None: ...  # noqa: D102
    @property
    def signed(self) -> bool: ...  # noqa: D102


class Number(NamedTuple):
    """A member that is a number: its offset and its encoding."""

    offset: int
    size: int
    signed: bool = False
    #: Lowest bit and width of a bit-field.
    bits: tuple[int, int] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the number is the same as its bytes as an unsigned number."""
        return self.bits is None and not self.signed

    def decode(self, value: int) -> int:
        """Decodes the member from its bytes as an unsigned number."""
        if self.bits is not None:
            first, width = self.bits
            return (value >> first) & ((1 << width) - 1)
        if self.signed and value >> (self.size * 8 - 1):
            return value - (1 << (self.size * 8))
        return value


class Untyped(Protocol):
    """Layouts for a kernel without type information."""

    def __contains__(self, struct: str) -> bool: ...
    def member(self, path: str) -> Member: ...  # noqa: D102
    def sizeof(self, struct: str) -> int: ...  # noqa: D102


class Layouts:
    """The sources of a kernel's layouts.

    The image's BTF or DWARF, else the BTF that ``in_memory`` finds. Without them the kernel's
    VMCOREINFO, which has some offsets and sizes, then the result of ``untyped``, whose argument
    says why there are no types. ``remedy`` is what the error says of it where no type is inferred.
    """

    def __init__(
        self,
        image: Image,
        facts: Callable[[], Mapping[str, str]],
        untyped: Callable[[str], Untyped],
        in_memory: Callable[[], Types],
        remedy: Callable[[], str] = str,
    ) -> None:
        self._facts = facts
        self._remedy = remedy
        self._offsets: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self.native: Types | None
        try:
            self.native = image.types()
        except AbsentError as error:
            try:
                self.native = in_memory()
            except AbsentError as also:
                self.native = None
                self._why = f"{error}; {also}" if str(also) else str(error)
                self._untyped = untyped(self._why)

    def __contains__(self, struct: str) -> bool:
        if self.native is not None:
            return struct in self.native
        return struct in self._untyped

    @property
    def graph(self) -> TypeGraph:
        """The types one by one, from BTF or DWARF. Raises AbsentError without them."""
        if self.native is None:
            raise AbsentError(f"{self._why}{self._remedy()}")
        return self.native.graph

    def member(self, path: str) -> Member:
        """The member at ``path``; AbsentError if no source has its type."""
        if self.native is not None:
            return self.native.member(path)
        return self._untyped.member(path)

    def offset(self, path: str) -> int:
        """The offset of the member at ``path``; more sources have it than its type."""
        known = self._offsets.get(path)
        if known is None:
            known = self._offsets[path] = self._find_offset(path)
        return known

    def _find_offset(self, path: str) -> int:
        if self.native is not None:
            return self.native.offset(path)
        found = vmcoreinfo.extent(self._facts(), f"OFFSET({path})")
        return self._untyped.member(path).offset if found is None else found

    def sizeof(self, struct: str) -> int:
        """The size of a struct in bytes."""
        known = self._sizes.get(struct)
        if known is None:
            known = self._sizes[struct] = self._find_size(struct)
        return known

    def _find_size(self, struct: str) -> int:
        if self.native is not None:
            return self.native.sizeof(struct)
        found = vmcoreinfo.extent(self._facts(), f"SIZE({struct})")
        return self._untyped.sizeof(struct) if found is None else found
