"""Whether a xen-syms is that of the hypervisor in the dump."""

from collections.abc import Mapping

from .._native import Image, Symbols
from .memory import XenMemory, number

#: Where Xen keeps the ELF note with its build id (4.7 on).
_BUILD_ID = "__note_gnu_build_id_start"


def mismatch(
    memory: XenMemory, text: Mapping[str, str], image: Image | None, symbols: Symbols | None
) -> str | None:
    """How the symbols differ from the dump; None if they do not, or nothing can be compared.

    By the build id in Xen's memory, and by the addresses that VMCOREINFO_XEN tells.
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
            there = note[16:].hex() if note[12:16] == b"GNU\0" else "not where it should be"
            return (
                f"{name} is not the hypervisor of the dump: its build id is {own.hex()}, the "
                f"dump's is {there}"
            )
    found = 0
    keys = [key for key in text if key.startswith("SYMBOL(")]
    for key in keys:
        # pgd_l4 is an alias for idle_pg_table, in the note alone.
        symbol = {"pgd_l4": "idle_pg_table"}.get(key[7:-1], key[7:-1])
        told, own_address = number(text, key, 16), symbols.get(symbol)
        if told is None or own_address is None:
            continue
        found += 1
        if told != own_address:
            return (
                f"{name} is not the hypervisor of the dump: {symbol} is at {own_address:#x} in it, "
                f"at {told:#x} in the dump"
            )
    if keys and not found:
        return f"{name} is not the hypervisor of the dump: it has none of its symbols"
    return None
