"""struct module: its text and its symbols."""

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_SAMPLED_MODULE_TEXT, MAX_SAMPLED_MODULES, MAX_SAMPLED_SYMBOLS
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .task_sample import Block

SIZE = 0x400
PAGE = 4096


def module(kernel: Kernel, inference: Inferences) -> Struct:
    """module_state, list and name are the first members since 2.6.0. The others are pointers."""
    word = kernel.word
    head = kernel.symbol("modules")
    blocks = []
    # Each module has pages of its own.
    for node in kernel.list(head, min(MAX_SAMPLED_MODULES, kernel.max_objects(PAGE))):
        try:
            module = kernel.containing(node, word)
            blocks.append(Block(module, kernel.data(module, SIZE), word))
        except MemoryFault:
            continue
    if not blocks:
        raise AbsentError("no module is loaded")
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
        if all(_is_core(block, at, word) for block in blocks):
            # Until 4.4: module_init, module_core, init_size, core_size, init_text_size, ...
            found["module_core"] = Inferred(at + word, word)
            found["core_size"] = Inferred(at + 2 * word + 4, 4)
            break
    else:
        raise AbsentError("no member of struct module points to its text")
    for at in range(3 * word + 56, SIZE, word):
        if all(_is_kallsyms(kernel, block, at) for block in blocks):
            found["kallsyms"] = Inferred(at, word)
            break
    return found


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


def _is_core(block: Block, at: int, word: int) -> bool:
    core = block.word(at + word)
    init_size, size, _, text = (block.int(at + 2 * word + i * 4) for i in range(4))
    return (
        core % PAGE == 0
        and 0 <= init_size < MAX_SAMPLED_MODULE_TEXT
        and 0 < text <= size < MAX_SAMPLED_MODULE_TEXT
        and core <= block.address < core + size
    )


def _is_kallsyms(kernel: Kernel, block: Block, at: int) -> bool:
    """A pointer to a struct mod_kallsyms {symtab, num_symtab, strtab, ...} in the module."""

    def near(address: int) -> bool:
        return abs(address - block.address) < MAX_SAMPLED_MODULE_TEXT

    address, word = block.word(at), kernel.word
    if not near(address) or address % word:
        return False
    try:
        symtab, count, strtab = (kernel.pointer(address + i * word) for i in range(3))
        if not (near(symtab) and near(strtab) and 0 < count & 0xFFFF_FFFF < MAX_SAMPLED_SYMBOLS):
            return False
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
