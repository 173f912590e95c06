"""The text of a 32-bit Xen 3.4: the functions on the stacks of its pCPUs at a crash."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ..code import stack
from ..code.asm import Asm
from ..code.text import Frame, Recipe, Text, assemble, epilogue, names, prologue
from ..debuginfo import cfi
from ..elf import format as elf

#: The image is linked at 1 MiB of the direct map.
TEXT = 0xFF110000
#: The out-of-line copy of an inline function, of which only the address is used.
_SAVE_REGS = TEXT + 0x1000
_HYPERCALL_TABLE = 0xFF1D0000
_EXCEPTION_TABLE = 0xFF1D1000

#: Call chains of pCPUs, innermost first: of the one that crashes, and of one that its NMI stops.
CRASHING = names("kexec_crash_save_cpu kexec_crash do_kexec_op_internal do_kexec_op hypercall")
STOPPED = names("kexec_crash_save_cpu crash_nmi_callback do_nmi handle_nmi_mce")
#: The same for a pCPU that was idle, which the NMI interrupted in default_idle().
STOPPED_IDLE = (*STOPPED, *names("default_idle idle_loop"))

_SAVE_ALL = "fc 06 1e 50 55 57 56 52 51 53 b810e0ffff 8ed8 8ec0"
_SAVE_CPU = Frame(("ebp", "edi", "esi", "ebx"), 28)


def _save_cpu(asm: Asm) -> None:
    """kexec_crash_save_cpu() with elf_core_save_regs() inlined, which stores its own address."""
    prologue(asm, _SAVE_CPU)
    asm.emit("89c3 895b1c 894b20 895324")
    asm.emit(b"\xc7\x43\x48" + _SAVE_REGS.to_bytes(4, "little"))  # movl $elf_core_save_regs, ...
    asm.label(".saved")
    asm.emit("8cc8 9c 8f4350 896354")
    epilogue(asm, _SAVE_CPU)


def _save_regs(asm: Asm) -> None:
    prologue(asm, Frame(("ebx",), 4))
    asm.emit("89c3 895b1c")
    epilogue(asm, Frame(("ebx",), 4))


def _hypercall(asm: Asm) -> None:
    """Pushes six arguments below the guest's registers."""
    asm.emit("83ec04")
    asm.emit(_SAVE_ALL)
    asm.emit("fb 83f826 7310" + "ff742414" * 6)
    asm.call_indirect(b"\xff\x14\x85" + _HYPERCALL_TABLE.to_bytes(4, "little"), "*")
    asm.emit("83c418 89442418")  # add $24, %esp; mov %eax, UREGS_eax(%esp)
    asm.label("test_all_events")
    asm.emit("31c9 f7d1 fa ebf0")


def _handle_nmi_mce(asm: Asm) -> None:
    asm.emit(_SAVE_ALL)
    asm.emit("31c0 89e2 52")
    asm.call_indirect(b"\xff\x14\x85" + _EXCEPTION_TABLE.to_bytes(4, "little"), "*")
    asm.emit("83c404 ebf0")


@cache
def text() -> Text:
    """The assembled text."""
    return assemble(
        Recipe(
            word=4,
            base=TEXT,
            chains=[CRASHING, STOPPED, STOPPED_IDLE[-2:], ("safe_halt", "default_idle")],
            frames={
                "kexec_crash_save_cpu": _SAVE_CPU,
                "elf_core_save_regs": Frame(("ebx",), 4),
            },
            handwritten={
                "kexec_crash_save_cpu": _save_cpu,
                "elf_core_save_regs": _save_regs,
                "hypercall": _hypercall,
                "handle_nmi_mce": _handle_nmi_mce,
            },
            indirect={"do_nmi": "ff1500001dff"},
            addresses={"elf_core_save_regs": _SAVE_REGS},
            pushes=("ebp", "edi", "esi", "ebx"),
        )
    )


def xen_syms() -> bytes:
    """The content of xen-syms."""
    own = text()
    symbols = [
        elf.Symbol(f.name, f.address, f.size, elf.STT_FUNC, ".text") for f in own.functions.values()
    ]
    end = own.base + len(own.code)
    for name, at in (("_start", own.base), ("_stext", own.base), ("_etext", end)):
        symbols.append(elf.Symbol(name, at, 0, elf.STT_NOTYPE, ".text"))
    code = elf.SHF_ALLOC | elf.SHF_EXECINSTR
    sections = [
        elf.Section(".text", elf.SHT_PROGBITS, own.base, own.code, code, align=4096),
        cfi.section(own, 4),
    ]
    return elf.image(elf.ELF32, elf.EM_386, sections, symbols, own.base)


@dataclass(frozen=True)
class Calls:
    """A chain of calls on a pCPU's stack."""

    #: Xen's own registers in the note: eip is a constant.
    eip: int
    esp: int
    #: The frames, innermost first.
    frames: list[stack.StackFrame]


def call(
    out: stack.Stack,
    info: int,
    guest: Mapping[str, int],
    chain: tuple[str, ...],
    rng: random.Random,
) -> Calls:
    """Calls through ``chain`` below the guest's registers at ``info``."""
    out.sp = info
    outer: list[stack.StackFrame] = []
    if chain == STOPPED_IDLE:
        outer = stack.run(text(), out, chain[-2:], rng)
        pc = text().functions["default_idle"].sites["safe_halt"]
        # Without esp, ss and the selectors behind them: they are a guest's only.
        pushed = [*rng.choices(range(0x100), k=7), 2 << 16, pc, 0xE008, 0x246]
        outer.insert(0, stack.interrupt(out, "default_idle", pc, pushed))
        out.push(out.sp)
        chain = STOPPED
    elif chain[-1] == "hypercall":
        out.push_all([guest.get(name, 0) for name in ("ebx", "ecx", "edx", "esi", "edi", "ebp")])
    else:
        out.push(info)
    frames = stack.run(text(), out, chain, rng)
    inner = stack.StackFrame(text().labels[".saved"][0], out.sp, None, chain[0], interrupted=True)
    return Calls(_SAVE_REGS, out.sp, [inner, *frames, *outer])
