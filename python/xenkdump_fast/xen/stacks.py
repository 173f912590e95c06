"""Backtraces of the hypervisor: the stack of each pCPU, down to the guest that it ran."""

from collections.abc import Mapping, Sequence

from .._native import Frame, MemoryFault, Symbols, Unwinder
from .._typing import NamedTuple
from ..isolation import isolated
from ..limits import MAX_SAME_SYMBOLS, MAX_SAVING_CODE
from . import compat
from .host import XenHost
from .memory import PAGE
from .pcpus import Pcpu

#: The function whose address is the pc in the notes, and those that may store it.
_CONSTANT_PC: str = compat.value("constant pc")
_STORES_CONSTANT_PC: tuple[str, ...] = compat.values("stores the constant pc")


class PcpuTrace(NamedTuple):
    """One pCPU's stack."""

    pcpu: Pcpu
    #: The domain and the id of the vCPU that it was running; None if they are not known.
    domain: int | None
    vcpu: int | None
    frames: list[Frame]
    #: Why there are no more frames; None if the stack was unwound down to the guest.
    stopped: str | None


def traces(xen: XenHost, methods: Sequence[str] | None = None) -> list[PcpuTrace]:
    """The stack of every pCPU, in the order of the notes."""
    owners = _owners(xen)
    unwinder = _unwinder(xen, methods)
    if unwinder is not None and "cfi" not in unwinder.methods and methods is None:
        xen.warnings.append(
            f"{xen.symbols_path} has no unwind tables (.debug_frame or .eh_frame): frames are "
            "found by a scan of the stack, and marked as guesses"
        )
    found = []
    replaced = _constant_pc(xen)
    for pcpu in xen.pcpus:
        with isolated(f"pCPU {pcpu.number} has no backtrace", xen.warnings.append):
            number, vcpu = owners.get(pcpu.vcpu, (None, None))
            frames, stopped = _frames(pcpu, unwinder, replaced)
            found.append(PcpuTrace(pcpu, number, vcpu, frames, stopped))
    return found


def _owners(xen: XenHost) -> dict[int | None, tuple[int, int]]:
    """The domain and the id of vCPUs by address, those that pCPUs were running among them.

    Only their domains are read, as far as these vCPUs lead to them: others may be hundreds.
    """
    running = {pcpu.vcpu for pcpu in xen.pcpus if pcpu.vcpu is not None}
    back = xen.layout.get("vcpu.domain")
    named = set() if back is None else {xen.memory.pointer(vcpu + back) for vcpu in running}
    owners: dict[int | None, tuple[int, int]] = {}
    for domain in sorted(xen.domains(all=True), key=lambda one: one.address not in named):
        if domain.address not in named and running <= owners.keys():
            break
        with isolated(f"vCPUs of domain {domain.id} are not known", xen.warnings.append):
            owners.update({vcpu.address: (domain.id, vcpu.id) for vcpu in domain.vcpus})
    return owners


def _unwinder(xen: XenHost, methods: Sequence[str] | None) -> Unwinder | None:
    if xen.symbols is None:
        return None
    # A map file has symbols (``image`` is None) but no unwind tables.
    return Unwinder(xen.image, xen.symbols, xen.memory.virtual, methods=methods)


def _constant_pc(xen: XenHost) -> dict[int, int]:
    """The pc where registers were saved, by the constant that is in the notes in its place.

    Until 4.14 the notes have a constant. The instruction that stores it is in the frame whose stack
    pointer was saved.
    """
    constant = None if xen.symbols is None else xen.symbols.get(_CONSTANT_PC)
    pc = "rip" if xen.word == 8 else "eip"
    in_notes = {pcpu.registers.get(pc) for pcpu in xen.pcpus}
    if xen.symbols is None or constant is None or constant not in in_notes:
        return {}
    for name in _STORES_CONSTANT_PC:
        found = _after_store(xen, xen.symbols, name, constant)
        if found is not None:
            return {constant: found}
    xen.warnings.append(
        f"the registers in the notes have the address of {_CONSTANT_PC} as {pc}, and the code that "
        "saved them was not found: the innermost frames may be missing"
    )
    return {}


def _after_store(xen: XenHost, symbols: Symbols, name: str, constant: int) -> int | None:
    """The address after the instruction of a function that has the constant as operand."""
    for symbol in symbols.all(name)[:MAX_SAME_SYMBOLS]:
        try:
            # A map file has no sizes.
            size = min(symbol.size or MAX_SAVING_CODE, MAX_SAVING_CODE)
            code = xen.memory.data(symbol.address, size)
        except MemoryFault:
            continue
        for end in range(4, len(code) + 1):
            operand = int.from_bytes(code[end - 4 : end], "little")
            after = symbol.address + end
            # mov $constant, or lea constant(%rip).
            if operand == (constant if xen.word == 4 else (constant - after) & 0xFFFF_FFFF):
                return after
    return None


def _frames(
    pcpu: Pcpu, unwinder: Unwinder | None, replaced: Mapping[int, int]
) -> tuple[list[Frame], str | None]:
    """The frames from Xen's registers to the guest's; only these two without symbols.

    ``replaced`` has the pc to start from in place of another.
    """
    stopped: str | None
    if pcpu.in_guest and pcpu.guest is not None:
        return [Frame(pcpu.guest.registers, "start", user=True)], None
    if not pcpu.registers:
        return [], "its registers are not known: it has no NT_PRSTATUS note"
    if unwinder is None:
        frames = [Frame(pcpu.registers, "start")]
        stopped = "the frames of Xen's own code are unknown without xen-syms"
    else:
        pc = "rip" if pcpu.word == 8 else "eip"
        start = {**pcpu.registers, pc: replaced.get(pcpu.registers[pc], pcpu.registers[pc])}
        found = unwinder.unwind(start, stacks=_bounds(pcpu), exact=True)
        frames, stopped = found.frames, found.stopped
    if pcpu.guest is not None and not any(frame.user for frame in frames):
        # The unwinder stopped earlier, but the guest's registers are known.
        frames.append(Frame(pcpu.guest.registers, "cpu_info", user=True))
    return frames, stopped


def _bounds(pcpu: Pcpu) -> list[tuple[int, int]]:
    """The stacks within a pCPU's stack. Xen's own frames end where the guest's registers begin.

    On x86_64 the low pages are one-page stacks for NMI, double fault and machine check. From such a
    page the unwinder continues on the primary stack, which is at least the last two pages.
    """
    if pcpu.stack is None or pcpu.guest is None:
        return [] if pcpu.stack is None else [pcpu.stack]
    low, end = pcpu.stack
    sp = pcpu.registers["rsp" if pcpu.word == 8 else "esp"]
    primary = end - 2 * PAGE
    if sp >= primary or end - low <= 2 * PAGE:
        return [(low, pcpu.guest.address)]
    return [(sp // PAGE * PAGE, sp // PAGE * PAGE + PAGE), (primary, pcpu.guest.address)]
