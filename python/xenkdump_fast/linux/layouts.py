"""Layouts of a kernel's structs: by its type information, else by what it says of itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from .._native import AbsentError, Image, Types
from . import vmcoreinfo

if TYPE_CHECKING:
    from .kernel import Kernel


class Member(Protocol):
    """A member of a struct: what the native ``Member`` has of interest here."""

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


class Layouts:
    """Every source of layouts that a kernel has, asked in turn.

    The image's BTF or DWARF; where there is neither, the kernel's VMCOREINFO, which knows some
    offsets and sizes but no member's type.
    """

    def __init__(self, kernel: "Kernel", image: Image) -> None:
        self._kernel = kernel
        self.native: Types | None
        try:
            self.native = image.types()
        except AbsentError as error:
            self.native = None
            self._why = str(error)

    def __contains__(self, struct: str) -> bool:
        return self.native is not None and struct in self.native

    @property
    def _facts(self) -> Mapping[str, str]:
        return self._kernel.vmcoreinfo

    def member(self, path: str) -> Member:
        """The member at ``path``; AbsentError where no source knows its type."""
        if self.native is None:
            raise AbsentError(self._why)
        return self.native.member(path)

    def offset(self, path: str) -> int:
        """The offset of the member at ``path``, which more sources know than its type."""
        if self.native is None:
            found = vmcoreinfo.number(self._facts, f"OFFSET({path})")
            if found is not None:
                return found
        return self.member(path).offset

    def sizeof(self, struct: str) -> int:
        """The size of a struct in bytes."""
        if self.native is not None:
            return self.native.sizeof(struct)
        found = vmcoreinfo.number(self._facts, f"SIZE({struct})")
        if found is None:
            raise AbsentError(self._why)
        return found
