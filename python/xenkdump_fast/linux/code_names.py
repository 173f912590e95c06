"""Names of code by its address."""

from .kernel import Kernel


def name_of(kernel: Kernel, address: int) -> str | None:
    """The symbol at an address, with the offset from it: ``name`` or ``name+16``; else None.

    Symbols of modules are known once the kernel's ``unwinder`` was used.
    """
    symbol = kernel.code.lookup(address) if address else None
    if symbol is None:
        return None
    offset = address - symbol.address
    if symbol.size and offset >= symbol.size:
        return None
    return f"{symbol.name}+{offset}" if offset else symbol.name
