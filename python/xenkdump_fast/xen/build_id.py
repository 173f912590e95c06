"""Compares a xen-syms with the hypervisor in the dump."""

from collections.abc import Mapping

from .._native import Image, Symbols
from . import compat
from .memory import XenMemory, number

#: Symbol of the ELF note with Xen's build id.
_BUILD_ID: str = compat.value("symbol of the build id")
#: Names of symbols by their names in VMCOREINFO_XEN.
_ALIASES: dict[str, str] = dict(compat.values("symbol in VMCOREINFO_XEN"))


def mismatch(
    memory: XenMemory, text: Mapping[str, str], image: Image | None, symbols: Symbols | None
) -> str | None:
    """How the symbols differ from the dump; None if they do not, or nothing can be compared.

    Compares the build id in Xen's memory, and the addresses in VMCOREINFO_XEN.
    """
    if symbols is None:
        return None
    name = image.path if image is not None else "the map file"
    at = symbols.get(_BUILD_ID)
    if image is not None and image.build_id is not None and at is not None:
        own = bytes.fromhex(image.build_id)
        # Sizes of name and descriptor, the type NT_GNU_BUILD_ID, the name.
        note = memory.read(at, 16 + len(own))
        if note is not None and note[16:] == own:
            return None
        if note is not None:
            there = note[16:].hex() if note[12:16] == b"GNU\0" else "not at its address"
            return f"{name} is not the hypervisor of the dump, whose build id is {there}"
    found = 0
    keys = [key for key in text if key.startswith("SYMBOL(")]
    for key in keys:
        symbol = _ALIASES.get(key[7:-1], key[7:-1])
        address, own_address = number(text, key, 16), symbols.get(symbol)
        if address is None or own_address is None:
            continue
        found += 1
        if address != own_address:
            return (
                f"{name} is not the hypervisor of the dump: {symbol} is at {own_address:#x} in it, "
                f"at {address:#x} in the dump"
            )
    if keys and not found:
        kind = " (it is a Linux kernel's)" if "linux_banner" in symbols else ""
        return f"{name} is not the hypervisor of the dump: it has none of its symbols{kind}"
    return None
