"""Variables of a kernel whose kallsyms has functions only (without ``CONFIG_KALLSYMS_ALL``).

Exported variables are among the image's symbols. Others are named by VMCOREINFO, or recognised by
their contents.
"""

import struct
from collections.abc import Iterator, Mapping

from ..._native import AbsentError, AddressSpace, Image, MemoryFault, Symbols
from ...limits import MAX_KERNEL_DATA, MAX_VMCOREINFO, MAX_VMCOREINFO_SEARCH
from . import vmcoreinfo

_SYMBOL = "SYMBOL("
#: Where the code starts.
_TEXT = {"_stext"}
#: Not addresses of variables: an element of node_states, values, and another name of init_top_pgt.
_NO_VARIABLES = {
    4: {"node_online_map", "mem_section"},
    8: {"node_online_map", "mem_section", "vmemmap", "swapper_pg_dir"},
}
#: The largest ``enum module_state``.
_UNFORMED = 3
#: ``char name[]`` of struct module, which follows the list: MODULE_NAME_LEN is 64 less a word.
_NAME_SIZE = 56
#: Where modules are: the areas of module_alloc() on x86_64, and of vmalloc() on i386.
_MODULES = {8: (0xFFFF_FFFF_A000_0000, 0xFFFF_FFFF_FF00_0000), 4: (0x4000_0000, 0xFFF0_0000)}
#: Kernel memory that is mapped once and for all, in which VMCOREINFO is looked for.
_DIRECT_MAP = {
    8: (
        (0xFFFF_8880_0000_0000, 0xFFFF_C87F_FFFF_FFFF),
        (0xFFFF_8800_0000_0000, 0xFFFF_8880_0000_0000),
    ),
    4: ((0xC000_0000, 0xF800_0000),),
}


def complete(image: Image, virtual: AddressSpace, facts: Mapping[str, str]) -> Image:
    """The image with the variables that its symbols lack.

    ``facts`` is the VMCOREINFO of a note. The image is returned as it is if it has variables.
    """
    symbols = image.symbols()
    if "modules" in symbols:
        return image
    if "_etext" not in symbols:
        # Without kallsyms: only exported symbols are known.
        named = dict(_of_vmcoreinfo(facts, image.word)) if is_own(facts, symbols) else {}
        return image.with_variables([(n, at) for n, at in named.items() if n not in _TEXT])
    found: dict[str, int] = {}
    if not is_own(facts, symbols):
        facts, variable = _vmcoreinfo(image, symbols, virtual)
        found.update(variable)
    found.update(_of_vmcoreinfo(facts, image.word))
    modules = _modules(image, symbols, virtual)
    if modules is not None:
        found["modules"] = modules
    return image.with_variables(list(found.items())) if found else image


def is_own(facts: Mapping[str, str], symbols: Symbols) -> bool:
    """Whether a VMCOREINFO is this kernel's: its addresses are those of known symbols."""
    word = 8 if any(address >> 32 for _, address in _of_vmcoreinfo(facts, 4)) else 4
    named = _of_vmcoreinfo(facts, word)
    # Static variables may have the same name.
    pairs = [({s.address for s in symbols.all(name)}, address) for name, address in named]
    known = [address in mine for mine, address in pairs if mine]
    return bool(known) and all(known)


def _of_vmcoreinfo(facts: Mapping[str, str], word: int) -> Iterator[tuple[str, int]]:
    """The symbols in a VMCOREINFO."""
    for key in facts:
        if key.startswith(_SYMBOL) and key.endswith(")"):
            address = vmcoreinfo.number(facts, key, 16)
            name = key[len(_SYMBOL) : -1]
            if address is not None and name not in _NO_VARIABLES[word]:
                yield name, address


def _vmcoreinfo(
    image: Image, symbols: Symbols, virtual: AddressSpace
) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """VMCOREINFO in memory, and the variable that leads to it; both empty if it is not found."""
    remaining = MAX_VMCOREINFO_SEARCH
    for first, last in _DIRECT_MAP[image.word]:
        found = virtual.search(b"OSRELEASE=", first, last, limit=64, most=remaining)
        remaining -= min(found.searched, remaining)
        for address in found.addresses:
            try:
                text = virtual.cstring(address, MAX_VMCOREINFO)
            except MemoryFault:
                continue
            facts = vmcoreinfo.parse(text.decode("utf-8", "backslashreplace"))
            if is_own(facts, symbols):
                return facts, _pointer_to(image, symbols, virtual, address)
    return {}, {}


def _pointer_to(
    image: Image, symbols: Symbols, virtual: AddressSpace, text: int
) -> Mapping[str, int]:
    """``vmcoreinfo_data`` or ``vmcoreinfo_note``, whichever points to a text of VMCOREINFO."""
    start = symbols["_etext"]
    names = {text: "vmcoreinfo_data", text - vmcoreinfo.NOTE_HEADER: "vmcoreinfo_note"}
    for target, name in names.items():
        needle = target.to_bytes(image.word, "little")
        # The first, as the image is before other memory.
        found = virtual.search(
            needle, start, start + MAX_KERNEL_DATA, limit=1, most=MAX_KERNEL_DATA
        )
        for address in found.addresses:
            if address % image.word == 0:
                return {name: address}
    return {}


def _modules(image: Image, symbols: Symbols, virtual: AddressSpace) -> int | None:
    """``modules``: the head of a list in the kernel's data whose nodes are in ``struct module``.

    None if there is none, or more than one: without modules the list is empty.
    """
    start, end = symbols["_etext"], symbols.get("_sinittext") or 0
    if not 0 < end - start <= MAX_KERNEL_DATA:
        return None
    import numpy as np  # few kernels need it

    word = image.word
    size = (end - start) // word * word
    data = bytearray(size)
    for at in range(0, size, 4096):
        n = min(4096, size - at)
        try:
            data[at : at + n] = virtual.read(start + at, n)
        except MemoryFault:
            continue
    words = np.frombuffer(bytes(data), dtype=f"<u{word}")
    low, high = _MODULES[word]
    if word == 4:
        low = max(low, _end_of_direct_map(symbols, virtual))
    nodes = (words >= low) & (words < high) & (words % word == 0)
    # The first and the last node of a list are in modules.
    candidates = np.flatnonzero(nodes[:-1] & nodes[1:])
    found = []
    for index in candidates.tolist():
        address = start + index * word
        if all(_is_module(virtual, word, int(words[index + i]), i, address) for i in (0, 1)):
            found.append(address)
    return found[0] if len(found) == 1 else None


def _end_of_direct_map(symbols: Symbols, virtual: AddressSpace) -> int:
    """``high_memory``, which is exported: vmalloc() uses addresses after it. 0 if unknown."""
    try:
        return virtual.u32(symbols["high_memory"])
    except (KeyError, MemoryFault):
        return 0


def _is_module(virtual: AddressSpace, word: int, node: int, side: int, head: int) -> bool:
    """Whether a list node is in a struct module, and leads to ``head`` on the other side."""
    try:
        data = virtual.read(node - word, 3 * word + _NAME_SIZE)
    except (MemoryFault, AbsentError):
        return False
    state, following, previous = struct.unpack_from("<Q2Q" if word == 8 else "<3I", data)
    name, _, rest = data[3 * word :].partition(b"\0")
    back = previous if side == 0 else following
    return (
        state & 0xFFFF_FFFF <= _UNFORMED
        and back == head
        and bool(name)
        and name.replace(b"_", b"").isalnum()
        and not rest.strip(b"\0")
    )
