"""Exception frames in crash's layout."""

from collections.abc import Iterator, Mapping

_X86_64 = (
    (("RIP", "rip", 16), ("RSP", "rsp", 16), ("RFLAGS", "rflags", 8)),
    (("RAX", "rax", 16), ("RBX", "rbx", 16), ("RCX", "rcx", 16)),
    (("RDX", "rdx", 16), ("RSI", "rsi", 16), ("RDI", "rdi", 16)),
    (("RBP", "rbp", 16), (" R8", "r8", 16), (" R9", "r9", 16)),
    (("R10", "r10", 16), ("R11", "r11", 16), ("R12", "r12", 16)),
    (("R13", "r13", 16), ("R14", "r14", 16), ("R15", "r15", 16)),
    (("ORIG_RAX", "orig_rax", 16), ("CS", "cs", 4), ("SS", "ss", 4)),
)


def exception_frame(registers: Mapping[str, int], word: int) -> Iterator[str]:
    """The lines of an exception frame; registers that are not known are left out."""
    if word == 8:
        for row in _X86_64:
            known = [
                f"{label}: {registers[name]:0{width}x}"
                for label, name, width in row
                if name in registers
            ]
            if known:
                yield "    " + "  ".join(known)
    else:
        yield from _i386(registers)


def _i386(registers: Mapping[str, int]) -> Iterator[str]:
    def wide(label: str, name: str) -> str:
        value = registers.get(name)
        return f"{label}: {'' if value is None else format(value & 0xFFFFFFFF, '08x')}"

    def narrow(label: str, name: str) -> str:
        value = registers.get(name)
        return f"{label}:  {'    ' if value is None else format(value & 0xFFFF, '04x')}"

    # The processor saves ss and esp only when the exception came from user space.
    from_user = "esp" in registers and "ss" in registers
    first = [wide("EAX", "eax"), wide("EBX", "ebx"), wide("ECX", "ecx"), wide("EDX", "edx")]
    if not from_user:
        first.append(wide("EBP", "ebp"))
    yield "    " + "  ".join(first) + " "
    yield "    " + "  ".join(
        [
            narrow("DS", "ds") + "    ",
            wide("ESI", "esi"),
            narrow("ES", "es") + "    ",
            wide("EDI", "edi"),
        ]
    )
    if from_user:
        third = [narrow("SS", "ss") + "    ", wide("ESP", "esp"), wide("EBP", "ebp")]
        if "gs" in registers:
            third.append(narrow("GS", "gs"))
        yield "    " + "  ".join(third)
    yield (
        "    "
        + "  ".join(
            [
                narrow("CS", "cs") + "    ",
                wide("EIP", "eip"),
                wide("ERR", "orig_eax"),
                wide("EFLAGS", "eflags"),
            ]
        )
        + " "
    )
