"""The extension module: thin classes over the Rust core. Addresses are ints, sizes are bytes."""

import os
from collections.abc import Buffer
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

StrPath = str | os.PathLike[str]
Paging = Literal["x86", "x86-pae", "x86_64", "x86_64-la57"]
WordSize = Literal[4, 8]

class DumpError(Exception):
    """The file is not a dump, or is broken beyond use (exit status 3)."""

class AbsentError(DumpError, LookupError):
    """The dump is sound but does not hold what was asked for (exit status 1)."""

class MemoryFault(AbsentError):
    """An address cannot be read or translated."""

    address: int
    kind: Literal["machine", "pseudo-physical", "virtual"]
    reason: str

@final
class Dump:
    """A dump file, opened read-only. Raises OSError or DumpError."""

    def __new__(cls, path: StrPath) -> Dump: ...
    @property
    def path(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def machine_type(self) -> int: ...
    @property
    def word(self) -> WordSize: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def notes(self) -> list[Note]: ...
    @property
    def segments(self) -> list[tuple[int, int, int]]: ...
    @property
    def vcpu_contexts(self) -> list[dict[str, Any]]: ...
    @property
    def shared_info(self) -> bytes | None: ...
    @property
    def auto_translated(self) -> bool: ...
    @property
    def machine(self) -> AddressSpace: ...
    def physical(self, p2m: P2M | None) -> AddressSpace: ...
    def virtual(self, root: int, paging: Paging) -> AddressSpace: ...

@final
class Note:
    """One ELF note."""

    @property
    def name(self) -> str: ...
    @property
    def name_size(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def type_name(self) -> str | None: ...
    @property
    def size(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def kind(self) -> str: ...
    @property
    def fields(self) -> dict[str, Any]: ...

@final
class AddressSpace:
    """Memory under one kind of address."""

    kind: Literal["machine", "pseudo-physical", "virtual"]
    def read(self, address: int, size: int) -> bytes: ...
    def u8(self, address: int) -> int: ...
    def u16(self, address: int) -> int: ...
    def u32(self, address: int) -> int: ...
    def u64(self, address: int) -> int: ...
    def cstring(self, address: int, limit: int = 4096) -> bytes: ...
    def translate(self, address: int) -> int: ...

@final
class P2M:
    """A domain's pfn to mfn table, read where it lies."""

@final
class Image:
    """The ELF file of a kernel or hypervisor: vmlinux, xen-syms."""

@final
class Symbols:
    """Names and addresses of an image, both ways."""

@final
class Types:
    """Layouts of structs, from BTF or DWARF."""

@final
class Unwinder:
    """Walks stacks."""
