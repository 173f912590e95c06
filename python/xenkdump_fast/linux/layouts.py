"""Layouts of a kernel's structs: by its type information, else by what it says of itself."""

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
    offsets and sizes, and what memory itself lets infer.
    """

    def __init__(self, kernel: "Kernel", image: Image) -> None:
        self._kernel = kernel
        self.native: Types | None
        try:
            self.native = image.types()
        except AbsentError as error:
            self.native = None
            from .infer import Inference  # seldom needed

            self._inference = Inference(kernel, str(error))

    def __contains__(self, struct: str) -> bool:
        if self.native is not None:
            return struct in self.native
        return struct in self._inference

    def member(self, path: str) -> Member:
        """The member at ``path``; AbsentError where no source knows its type."""
        if self.native is not None:
            return self.native.member(path)
        return self._inference.member(path)

    def offset(self, path: str) -> int:
        """The offset of the member at ``path``, which more sources know than its type."""
        if self.native is not None:
            return self.native.offset(path)
        found = vmcoreinfo.number(self._kernel.vmcoreinfo, f"OFFSET({path})")
        return self._inference.member(path).offset if found is None else found

    def sizeof(self, struct: str) -> int:
        """The size of a struct in bytes."""
        if self.native is not None:
            return self.native.sizeof(struct)
        found = vmcoreinfo.number(self._kernel.vmcoreinfo, f"SIZE({struct})")
        return self._inference.sizeof(struct) if found is None else found
