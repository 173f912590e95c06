"""The registers of a guest at the top of a pCPU's Xen stack.

Xen keeps a ``struct cpu_info`` there: ``guest_cpu_user_regs``, ``processor_id``, ``current_vcpu``.
Its size, and with it every offset from the stack's top, differs between versions (``compat.py``).
So it is found by its contents: a small number, followed by a pointer into Xen's memory, and before
them valid values of an interrupted guest's ip, cs, flags, sp and ss.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from .._typing import NamedTuple
from ..limits import MAX_PCPUS
from . import compat

#: cpu_user_regs in the order of memory, up to the slot of error code and entry vector.
_GENERAL = {
    8: (
        *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8"),
        *("rax", "rcx", "rdx", "rsi", "rdi"),
    ),
    4: ("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax"),
}
#: The general registers of 64 bits, without the stack pointer.
GENERAL = _GENERAL[8]
#: The five registers that the processor pushes.
_PUSHED = {8: ("rip", "cs", "rflags", "rsp", "ss"), 4: ("eip", "cs", "eflags", "esp", "ss")}
#: What a 32-bit Xen saves after them; a 64-bit Xen leaves these in the processor.
_SELECTORS = ("es", "ds", "fs", "gs")
#: Names of a 32-bit guest's registers in a frame of 64-bit Xen.
_NARROW = {"rip": "eip", "rsp": "esp", "rflags": "eflags"} | {
    f"r{name}": f"e{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp")
}
#: Bits of the flags register that are never set: 3, 5, 15 and from 22 on.
_FLAGS_ZERO = ~0x3F7FD7
#: Bit 1 is set in every rflags (X86_EFLAGS_MBS).
_FLAGS_SET = 2
#: Words between ss and processor_id.
_GAPS: tuple[int, ...] = compat.values("words behind ss")
#: Bytes at the stack's top that are searched: three times the struct.
WINDOW = 0x300
#: What Xen leaves in cs and ss of an HVM guest; a PV guest never has these.
_NO_SELECTORS: tuple[int, ...] = compat.values("selector of an HVM guest")
#: Xen's own selectors start here.
_XEN_SELECTORS = 0xE000
#: FLAT_RING3_CS64 of xen/include/public/arch-x86/xen-x86_64.h.
_FLAT_RING3_CS64 = 0xE033


class GuestFrame(NamedTuple):
    """The registers of a guest when it entered the hypervisor."""

    registers: dict[str, int]
    #: Word size of the guest's mode: 4 or 8.
    word: int
    #: "pv"; or "hvm" (PVH too), where selectors and control registers are in the VMCB or VMCS.
    kind: str
    #: Xen's virtual address of the saved registers.
    address: int

    @property
    def is_ambiguous(self) -> bool:
        """Whether it is called "pv" by selectors of user space that translated guests have too.

        Xen copies a translated guest's selectors when the toolstack asks for its context.
        """
        cs = self.registers.get("cs", 0)
        return self.kind == "pv" and cs & 3 == 3 and cs < _XEN_SELECTORS


class CpuInfo(NamedTuple):
    """``struct cpu_info``, as far as it is recognised."""

    #: ``processor_id``: Xen's own number for the pCPU.
    number: int
    #: ``current_vcpu``: Xen's virtual address of the ``struct vcpu`` that the pCPU was running.
    vcpu: int
    #: None if the pCPU has no guest's registers.
    guest: GuestFrame | None


def find(top: int, window: bytes, word: int, is_xen: Callable[[int], bool]) -> CpuInfo | None:
    """Reads the ``struct cpu_info`` in ``window``, the last bytes of a stack that ends at ``top``.

    ``is_xen`` decides whether an address is Xen's and can be read.
    """
    words = struct.unpack(f"<{len(window) // word}{'Q' if word == 8 else 'I'}", window)
    base = top - len(words) * word
    for at in range(len(words) - 1, 0, -1):
        if words[at - 1] & 0xFFFF_FFFF >= MAX_PCPUS or not is_xen(words[at]):
            continue
        # The selectors that the toolstack has read stay on the stack (seen on 4.20 after xl save).
        for kind in ("pv", "hvm", "hvm kernel"):
            frame = _frame(words, at - 1, base, word, kind)
            if frame is not None:
                return CpuInfo(words[at - 1] & 0xFFFF_FFFF, words[at], frame)
        # No guest has run since boot, or none is left: the registers are zero. What is below them
        # on the stack is not a struct.
        before = words[max(0, at - 10) : at - 1]
        if not any(before):
            return CpuInfo(words[at - 1] & 0xFFFF_FFFF, words[at], None)
    return None


def _frame(words: Sequence[int], end: int, base: int, word: int, kind: str) -> GuestFrame | None:
    """The registers whose ss is at most a few words before index ``end``."""
    for gap in _GAPS:
        found = _frame_at(words, end - gap - 1, base, word, kind)
        if found is not None:
            return found
    return None


def _frame_at(
    words: Sequence[int], ss_at: int, base: int, word: int, kind: str
) -> GuestFrame | None:
    """The registers whose ss is at index ``ss_at``; ``base`` is the address of index 0.

    ``kind`` is "pv", "hvm", or "hvm kernel" for an HVM guest whose selectors are known.
    """
    general = _GENERAL[word]
    start = ss_at - len(_PUSHED[word]) - len(general)
    pushed = words[ss_at - 4 : ss_at + 1]
    if start < 0 or len(pushed) < 5 or not _plausible(pushed, word, kind):
        return None
    ip, cs, flags, sp, ss = pushed
    registers = dict(zip(general, words[start:], strict=False))
    # saved_upcall_mask shares a slot with cs; the padding of selectors is undefined.
    values = (ip, cs & 0xFFFF, flags, sp, ss & 0xFFFF)
    registers.update(zip(_PUSHED[word], values, strict=True))
    mode = word
    if kind == "hvm":
        del registers["cs"], registers["ss"]
    elif word == 4:
        selectors = (value & 0xFFFF for value in words[ss_at + 1 : ss_at + 5])
        registers.update(zip(_SELECTORS, selectors, strict=False))
    elif word == 8 and _is_32_bit_guest(cs & 0xFFFF, ip, sp):
        mode = 4
        registers = narrow(registers)
    return GuestFrame(registers, mode, kind.removesuffix(" kernel"), base + start * word)


def running(registers: dict[str, int], word: int, address: int) -> GuestFrame:
    """The registers of a PV guest whose code the pCPU was running, which are in no stack.

    ``address`` is the end of its Xen stack.
    """
    if word == 8 and _is_32_bit_guest(
        registers.get("cs", 0), registers.get("rip", 0), registers.get("rsp", 0)
    ):
        return GuestFrame(narrow(registers), 4, "pv", address)
    return GuestFrame(registers, word, "pv", address)


def in_kernel(registers: Mapping[str, int]) -> bool:
    """Whether a 64-bit guest's registers are its kernel's: the same rule as ``PtRegs::is_user``.

    The pc alone does not decide: a kernel that calls NULL has a pc of user space. ``cs`` does,
    except for Xen's flat segment, which kernel and user space of a PV guest share, and for an HVM
    guest, whose ``cs`` Xen does not save. But no kernel has its stack in the user half.
    """
    cs = registers.get("cs", 0)
    if cs not in (0, _FLAT_RING3_CS64):
        return cs & 3 == 0
    return bool((registers.get("rip", 0) | registers.get("rsp", 0)) >> 63)


def narrow(registers: dict[str, int]) -> dict[str, int]:
    """The registers of a 32-bit guest under their 32-bit names."""
    return {
        _NARROW.get(name, name): value
        for name, value in registers.items()
        if not name[1:].isdigit() and not name.endswith("_base")
    }


def search(words: Sequence[int], word: int, kind: str = "pv") -> Iterator[int]:
    """The offsets in a struct at which a guest's saved registers (cpu_user_regs) may start."""
    before = len(_GENERAL[word]) + 1
    # The flags alone exclude nearly all candidates.
    possible = enumerate(words[before + 2 : max(0, len(words) - 2)])
    for i in [i for i, flags in possible if flags & 2 and not flags & _FLAGS_ZERO]:
        pushed = words[before + i : before + i + 5]
        # An HVM guest's selectors are zero, as in zeroed memory; its ip and sp are not.
        if _plausible(pushed, word, kind) and (kind == "pv" or (pushed[0] and pushed[3])):
            yield i * word


def read(words: Sequence[int], address: int, word: int) -> GuestFrame | None:
    """The guest's registers in the ``cpu_user_regs`` at ``address``, which consists of ``words``.

    None if no guest can have these. A vCPU that never ran has zeros, except for the bit of its
    flags that is always set (seen on 4.20).
    """
    if not any(value & ~_FLAGS_SET for value in words):
        return None
    # Xen copies the selectors when the toolstack asks for the context (seen on 4.20 after xl save).
    for kind in ("pv", "hvm", "hvm kernel"):
        found = _frame_at(words, len(_GENERAL[word]) + len(_PUSHED[word]), address, word, kind)
        if found is not None:
            return found
    return None


def size(word: int) -> int:
    """Bytes that ``read`` needs."""
    return (len(_GENERAL[word]) + 1 + len(_PUSHED[word])) * word


def _plausible(pushed: Sequence[int], word: int, kind: str) -> bool:
    ip, cs, flags, sp, ss = pushed
    if word == 8 and not (_canonical(ip) and _canonical(sp)):
        return False
    if flags & _FLAGS_ZERO or not flags & _FLAGS_SET:
        return False
    if kind == "hvm":
        return cs & 0xFFFF == ss & 0xFFFF and cs & 0xFFFF in _NO_SELECTORS
    if kind == "hvm kernel":
        # ss may be null in 64-bit mode.
        return not cs >> 16 and 8 <= cs < _XEN_SELECTORS and not (cs & 3 or ss & 3)
    # A PV guest runs in ring 1 (32-bit kernel) or 3, never in 0 or 2. cs shares its slot with
    # saved_upcall_mask: byte 4 of it in a 64-bit frame, byte 2 in a 32-bit one.
    mask = cs >> 32 if word == 8 else cs >> 16
    selector, stack = cs & 0xFFFF, ss & 0xFFFF
    if mask > 1 or (word == 8 and cs & 0xFFFF_0000) or selector in _NO_SELECTORS:
        return False
    # ss may be null in 64-bit mode, but not in ring 3.
    return selector & 3 in (1, 3) and stack & 3 == selector & 3 and stack >= 8


def _canonical(address: int) -> bool:
    return address >> 47 in (0, 0x1FFFF)


def _is_32_bit_guest(cs: int, ip: int, sp: int) -> bool:
    """Whether a frame of 64-bit Xen is that of a 32-bit guest.

    Only its kernel runs in ring 1. Its user space has 0x73; that of a 64-bit Linux has 0x33 or, for
    a 32-bit program, 0x23. Xen's flat selectors are 0xe02b for it, 0xe033 and 0xe023 for others.
    """
    if ip >> 32 or sp >> 32:
        return False
    return cs & 3 == 1 or cs in (0x73, 0xE02B)
