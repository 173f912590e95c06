"""Types of a module: its BTF, which the kernel keeps (5.11 on, CONFIG_DEBUG_INFO_BTF_MODULES)."""

from collections.abc import Iterator
from typing import NamedTuple

from .._native import AbsentError, MemoryFault, Types
from ..limits import MAX_BTF_SIZE, MAX_MODULES
from . import modules
from .kernel import Kernel
from .linked_structs import LinkedStructs


class _Data(NamedTuple):
    """Where the BTF of a module is."""

    address: int
    size: int


def types_of(kernel: Kernel, name: str) -> Types:
    """The types of the module called ``name``, with those of the kernel.

    AbsentError if it is not loaded, if its BTF is not known, or if that does not fit the kernel's.
    """
    base = kernel.types.native
    if base is None or base.source != "BTF":
        raise AbsentError(f"{kernel.image.path}: the types of modules continue the kernel's BTF")
    module = next((found for found in modules.modules(kernel) if found.name == name), None)
    if module is None:
        raise AbsentError(f"{kernel.image.path}: no module {name}")
    try:
        data = _find(kernel, module.address)
        if data is None:
            raise AbsentError("the kernel has no BTF of it")
        if not 0 < data.size <= MAX_BTF_SIZE:
            raise AbsentError(f"its BTF has {data.size} bytes")
        return base.split(kernel.data(data.address, data.size))
    except (AbsentError, MemoryFault) as error:
        raise AbsentError(f"{kernel.image.path}: the types of module {name}: {error}") from None


def _find(kernel: Kernel, module: int) -> _Data | None:
    """The BTF of a module, in the list of all or where the module is still being loaded."""
    for entry in _entries(kernel):
        if kernel.read(entry, "btf_module.module") == module:
            btf = kernel.read(entry, "btf_module.btf")
            return _Data(kernel.read(btf, "btf.data"), kernel.read(btf, "btf.data_size"))
    # Cleared once the module is loaded, as the section is not kept (5.11, 607c543f939d).
    if kernel.has("module.btf_data"):
        start = kernel.read(module, "module.btf_data")
        # BTF with a base of its own is adapted to that of the kernel when it is loaded (6.11).
        if start and not (
            kernel.has("module.btf_base_data") and kernel.read(module, "module.btf_base_data")
        ):
            return _Data(start, kernel.read(module, "module.btf_data_size"))
    return None


def _entries(kernel: Kernel) -> Iterator[int]:
    """The addresses of the struct btf_modules."""
    head = kernel.symbols.get("btf_modules")
    if head is None or not kernel.has("btf_module.list"):
        return
    yield from LinkedStructs(kernel, "btf_module.list", MAX_MODULES).list(head)
