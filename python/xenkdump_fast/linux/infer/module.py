"""struct module: its text and its symbols."""

from typing import NamedTuple

from ..._native import AbsentError, MemoryFault
from ...limits import (
    MAX_MODULE_STRUCT,
    MAX_SAMPLED_MODULE_TEXT,
    MAX_SAMPLED_MODULES,
    MAX_SAMPLED_SYMBOLS,
    MAX_SAMPLED_SYMTABS,
)
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .task_sample import Block

#: Bytes of a struct module that are examined. Linux 7.3 has 1280.
SIZE = 0x400
PAGE = 4096
#: enum mod_mem_type (6.4, ac3b43283923): text, data and rodata of the core, ro_after_init, then
#: text, data and rodata of the initialization.
MEMORY_TYPES = 7


def _blocks(kernel: Kernel) -> list[Block]:
    """Every struct module. module_state, list and name are the first members since 2.6.0."""
    word = kernel.word
    head = kernel.symbol("modules")
    blocks = []
    # Each module has pages of its own.
    budget = kernel.object_budget("modules", PAGE, MAX_SAMPLED_MODULES)
    for node in kernel.list(head, budget.remaining):
        try:
            module = kernel.containing(node, word)
            blocks.append(Block(module, kernel.data(module, SIZE), word))
        except MemoryFault:
            continue
    if not blocks:
        raise AbsentError("no module is loaded")
    return blocks


def module(kernel: Kernel, inference: Inferences) -> Struct:
    """list, name, the pointers to the text and to the symbols."""
    word = kernel.word
    blocks = _blocks(kernel)
    found = {
        "list": Inferred(word, 2 * word),
        "name": Inferred(3 * word, 64 - word, count=64 - word),
    }
    for at in range(3 * word + 64 - word & ~7, SIZE - 3 * word, word):
        if all(_is_layout(block, at, word) for block in blocks):
            # 4.5 to 6.3: struct module_layout {base, size, text_size, ...}.
            found["core_layout.base"] = Inferred(at, word)
            found["core_layout.size"] = Inferred(at + word, 4)
            found["core_layout"] = Inferred(at, word)
            break
        # Until 4.4: module_init, module_core, init_size, core_size, init_text_size, ... The sizes
        # were long at first, as in 2.6.18.
        widths = (
            width
            for width in dict.fromkeys((word, 4))
            if all(_is_core(block, at, word, width) for block in blocks)
        )
        width = next(widths, None)
        if width is not None:
            found["module_init"] = Inferred(at, word)
            found["module_core"] = Inferred(at + word, word)
            found["init_size"] = Inferred(at + 2 * word, width)
            found["core_size"] = Inferred(at + 2 * word + width, width)
            return {**found, **_symtab(kernel, blocks, at + 2 * word + 4 * width, found)}
    else:
        memories = _memories(blocks, word)
        if memories is None:
            raise AbsentError("no member of struct module points to its text")
        found["mem"] = Inferred(memories.start, MEMORY_TYPES * memories.stride)
    for at in range(3 * word + 56, SIZE, word):
        if all(_is_kallsyms(kernel, block, at) for block in blocks):
            found["kallsyms"] = Inferred(at, word)
            break
    return found


class _Memories(NamedTuple):
    """mem[] of struct module: the offset of its first element, and offsets in each."""

    start: int
    stride: int
    size: int


def module_memory(kernel: Kernel, inference: Inferences) -> Struct:
    """base and size of an element of module.mem (6.4 on)."""
    memories = _memories(_blocks(kernel), kernel.word)
    if memories is None:
        raise AbsentError("struct module has no array of memory")
    return {
        "": Inferred(0, memories.stride),
        "base": Inferred(0, kernel.word),
        "size": Inferred(memories.size, 4),
    }


def _memories(blocks: list[Block], word: int) -> _Memories | None:
    """Finds module.mem by the pointers to the module that its elements end with.

    struct module_memory begins with base and ends with struct mod_tree_node: the pointer and a
    latch_tree_node, which is two rb_nodes of three words. Between them is size, and since 6.13
    also is_rox.
    """
    node = 7 * word
    for at in range(0, SIZE, word):
        if any(block.word(at) != block.address for block in blocks):
            continue
        for before in range(2 * word, 5 * word, word):
            start, stride = at - before, before + node
            if start < 0 or at + (MEMORY_TYPES - 1) * stride >= SIZE:
                continue
            for size in range(word, before, 4):
                found = _Memories(start, stride, size)
                if all(_are_memories(block, found, word) for block in blocks):
                    return found
    return None


def _are_memories(block: Block, found: _Memories, word: int) -> bool:
    """Whether the elements are ranges of whole pages, one of which has the struct module."""
    contains = False
    for start in range(found.start, found.start + MEMORY_TYPES * found.stride, found.stride):
        owner = block.word(start + found.stride - 7 * word)
        base, size = block.word(start), block.int(start + found.size)
        if owner != block.address or base % PAGE or size % PAGE:
            return False
        # What is freed after the initialization keeps its base and size, or has neither.
        if not (0 < size < MAX_SAMPLED_MODULE_TEXT if base else size == 0):
            return False
        contains |= base <= block.address < base + size
    return contains


def _is_layout(block: Block, at: int, word: int) -> bool:
    """The struct module is in its own core; the text is part of what is read-only."""
    base, size, text = block.word(at), block.int(at + word), block.int(at + word + 4)
    read_only = block.int(at + word + 8)
    return (
        base % PAGE == 0
        and 0 < text <= read_only <= size < MAX_SAMPLED_MODULE_TEXT
        and size % PAGE == 0
        and base <= block.address < base + size
    )


def _is_core(block: Block, at: int, word: int, width: int) -> bool:
    core = block.word(at + word)
    read = block.word if width == word else block.int
    init_size, size, _, text = (read(at + 2 * word + i * width) for i in range(4))
    return (
        core % PAGE == 0
        and 0 <= init_size < MAX_SAMPLED_MODULE_TEXT
        and 0 < text <= size < MAX_SAMPLED_MODULE_TEXT
        and core <= block.address < core + size
    )


def _symtab(kernel: Kernel, blocks: list[Block], start: int, core: Struct) -> Struct:
    """symtab, num_symtab and strtab, members of struct module until 4.4; empty if not found."""
    word = kernel.word
    longer = []
    for block in blocks[:MAX_SAMPLED_SYMTABS]:
        # It ends with the module's core at the latest.
        end = block.word(core["module_core"].offset) + block.int(core["core_size"].offset)
        size = min(end - block.address, MAX_MODULE_STRUCT)
        try:
            longer.append(Block(block.address, kernel.data(block.address, size), word))
        except MemoryFault:
            continue
    if not longer:
        return {}
    # {symtab, long num_symtab, strtab}; since 2.6.32 (4a4962263f07) {symtab, core_symtab,
    # int num_symtab, core_num_syms, strtab, core_strtab}.
    forms = (word, word, 2 * word), (2 * word, 4, 2 * word + 8)
    for at in range(start, MAX_MODULE_STRUCT - 3 * word, word):
        for count, width, strtab in forms:
            found = {
                "symtab": Inferred(at, word),
                "num_symtab": Inferred(at + count, width),
                "strtab": Inferred(at + strtab, word),
            }
            if all(_has_symtab(kernel, block, found) for block in longer):
                return found
    return {}


def _has_symtab(kernel: Kernel, block: Block, members: Struct) -> bool:
    symtab, count, strtab = (
        block.word(member.offset) if member.size == kernel.word else block.int(member.offset)
        for member in members.values()
    )
    return _are_symbols(kernel, block, symtab, count, strtab)


def _is_near(block: Block, address: int) -> bool:
    return abs(address - block.address) < MAX_SAMPLED_MODULE_TEXT


def _is_kallsyms(kernel: Kernel, block: Block, at: int) -> bool:
    """A pointer to a struct mod_kallsyms {symtab, num_symtab, strtab, ...} in the module."""
    address, word = block.word(at), kernel.word
    if not _is_near(block, address) or address % word:
        return False
    try:
        symtab, count, strtab = (kernel.pointer(address + i * word) for i in range(3))
    except MemoryFault:
        return False
    return _are_symbols(kernel, block, symtab, count & 0xFFFF_FFFF, strtab)


def _are_symbols(kernel: Kernel, block: Block, symtab: int, count: int, strtab: int) -> bool:
    """Whether these can be the symbols of a module."""
    if not (_is_near(block, symtab) and _is_near(block, strtab)):
        return False
    if not 0 < count < MAX_SAMPLED_SYMBOLS:
        return False
    try:
        # The first symbol is empty.
        entry = kernel.data(symtab, 16)
        return entry == bytes(16) and kernel.data(strtab, 1) == b"\0"
    except MemoryFault:
        return False


def mod_kallsyms(kernel: Kernel, inference: Inferences) -> Struct:
    """symtab, num_symtab, strtab (4.5 on, 8244062ef1e5); typetab since 5.2 (1c7651f43777)."""
    inference.member("module.kallsyms")
    word = kernel.word
    return {
        "symtab": Inferred(0, word),
        "num_symtab": Inferred(word, 4),
        "strtab": Inferred(2 * word, word),
    }
