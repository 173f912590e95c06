"""mm_struct (memory used by a process) and pglist_data (NUMA nodes)."""

from ..._native import AbsentError, MemoryFault
from ...limits import MAX_PROCESS_PAGES, MAX_PROCESS_PAGES_32
from ..boot import vmcoreinfo
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .task_sample import Block, TaskSample, share

SIZE = 0x400
PAGE = 4096
#: start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end,
#: env_start, env_end: in this order since 2.6.9. Then saved_auxv.
_LAYOUT_WORDS = 11
#: total_vm is at most this many words before start_code.
_REACH = 24


def mm_struct(kernel: Kernel, inference: Inferences) -> Struct:
    """total_vm and the counters of resident pages, relative to the addresses of the program."""
    sample = inference.sample
    word = sample.word
    at = inference.member("task_struct.mm").offset
    blocks = []
    for address in sorted({block.word(at) for block in sample.leaders} - {0}):
        try:
            blocks.append(Block(address, kernel.data(address, SIZE), word))
        except MemoryFault:
            continue
    for start in sample.words(0, SIZE):
        # A process may be in execve(), between two programs.
        programs = [block for block in blocks if _is_program(block, start, word)]
        if programs and len(programs) >= 0.9 * len(blocks):
            break
    else:
        raise AbsentError("no members of mm_struct are the addresses of a program")
    blocks = programs
    found: dict[str, Inferred] = {"start_code": Inferred(start, word)}
    total = _total_vm(blocks, start, word)
    if total is not None:
        found["total_vm"] = Inferred(total, word)
    counts = _rss_stat(kernel, sample, blocks, start + _LAYOUT_WORDS * word)
    if counts is not None:
        found["rss_stat.count"] = counts
    return found


def _is_program(block: Block, at: int, word: int) -> bool:
    code, code_end, data, data_end, heap, brk, stack, args, args_end, env, env_end = (
        block.word(at + i * word) for i in range(_LAYOUT_WORDS)
    )
    return (
        0 < code < code_end
        and 0 < data <= data_end <= heap <= brk < 1 << (word * 8 - 1)
        and stack <= args <= args_end <= env <= env_end
        and env_end - stack < 1 << 24
    )


def _total_vm(blocks: list[Block], start: int, word: int) -> int | None:
    """The last number before start_code that can be total_vm by the members after it.

    It is plausible in every process, and the members after it in nearly all: a program may unmap
    its code.

    They are locked_vm, pinned_vm (3.2, bc3e53f682d9), shared_vm or data_vm, exec_vm, and stack_vm.
    pinned_vm has 8 bytes since 5.1 (70f8a3ca68d3), which are aligned on i386.
    """
    most = MAX_PROCESS_PAGES if word == 8 else MAX_PROCESS_PAGES_32
    # Before it is hiwater_vm, which can be at least as large, but may not be up to date.
    for at in range(start - 5 * word, max(0, start - _REACH * word), -word):
        for code in range(at + 3 * word, min(at + 7 * word, start - word), word):
            fitting = share(blocks, lambda b, at=at, e=code: _are_sizes(b, at, e, start, word))  # type: ignore[misc]
            if fitting >= 0.9 and all(0 < block.word(at) <= most for block in blocks):
                return at
    return None


def _are_sizes(block: Block, total: int, code: int, start: int, word: int) -> bool:
    """Whether total_vm and exec_vm can be at these offsets, all in pages.

    exec_vm is at least the size of the program's code; stack_vm follows it. No part is larger than
    the whole.
    """
    whole, executable, stack = block.word(total), block.word(code), block.word(code + word)
    program = block.word(start + word) - block.word(start)
    return (
        executable * PAGE >= program
        and 0 < stack < executable + stack <= whole
        and all(block.word(part) <= whole for part in range(total + word, code, word))
    )


def _rss_stat(
    kernel: Kernel, sample: TaskSample, blocks: list[Block], auxv: int
) -> Inferred | None:
    """rss_stat.count (2.6.34 to 6.1): between saved_auxv and binfmt, which is &elf_format.

    File pages, anonymous pages, swap entries, and since 4.5 (eca56ff906bd) pages of shared memory.
    """
    word = sample.word
    binfmt = kernel.symbols.get("elf_format")
    if binfmt is None:
        return None
    for end in sample.words(auxv, SIZE):
        if sum(block.word(end) == binfmt for block in blocks) > 0.5 * len(blocks):
            break
    else:
        return None
    most = MAX_PROCESS_PAGES if word == 8 else MAX_PROCESS_PAGES_32
    # saved_auxv has an even number of words and ends with a pair of zeros.
    for counters in (4, 3):
        at = end - counters * word
        if (at - auxv) % (2 * word) == 0 and all(
            block.word(at - word) == 0 == block.word(at - 2 * word)
            and all(_signed(block.word(at + i * word), word) < most for i in range(counters))
            for block in blocks
        ):
            return Inferred(at, counters * word, count=counters)
    return None


def _signed(value: int, word: int) -> int:
    return value - (1 << word * 8) if value >> (word * 8 - 1) else value


def pglist_data(kernel: Kernel, inference: Inferences) -> Struct:
    """node_present_pages: between two members whose offsets are in VMCOREINFO."""
    facts, word = kernel.vmcoreinfo, inference.sample.word
    start = vmcoreinfo.number(facts, "OFFSET(pglist_data.node_start_pfn)")
    spanned = vmcoreinfo.number(facts, "OFFSET(pglist_data.node_spanned_pages)")
    if start is None or spanned != start + 2 * word:
        raise AbsentError("VMCOREINFO does not have the offsets of pglist_data")
    return {
        "node_start_pfn": Inferred(start, word),
        "node_present_pages": Inferred(start + word, word),
        "node_spanned_pages": Inferred(spanned, word),
    }
