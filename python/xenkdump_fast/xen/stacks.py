"""The stacks of the hypervisor itself: what each pCPU was doing, down to the guest it ran."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._native import Unwinder
from ..isolation import isolated
from .host import XenHost
from .memory import PAGE
from .pcpus import Pcpu


@dataclass(frozen=True, slots=True)
class Frame:
    """One function on a Xen stack."""

    pc: int
    #: The stack pointer in this frame: above the return address of the function that it called.
    sp: int
    symbol: str | None
    offset: int
    #: How it was found: "start", "cfi", "scan", ...
    how: str
    guess: bool
    #: The pc is where execution stood, not a return address.
    interrupted: bool
    #: It is the guest's.
    guest: bool
    #: The registers that this frame starts from, where they were saved.
    registers: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class PcpuTrace:
    """One pCPU's stack."""

    pcpu: Pcpu
    #: The domain and the number of the vCPU it was running; None for one that is not known.
    domain: int | None
    vcpu: int | None
    frames: list[Frame]
    #: Why there are no more frames; None where the stack was read to the guest.
    stopped: str | None


def traces(xen: XenHost, methods: Sequence[str] | None = None) -> list[PcpuTrace]:
    """The stack of every pCPU, in the order of the notes."""
    owners: dict[int | None, tuple[int, int]] = {}
    for domain in xen.domains(all=True):
        with isolated(f"vCPUs of domain {domain.id} are not known", xen.warnings.append):
            owners.update({vcpu.address: (domain.id, vcpu.id) for vcpu in domain.vcpus})
    unwinder = _unwinder(xen, methods)
    found = []
    for pcpu in xen.pcpus:
        with isolated(f"pCPU {pcpu.number} has no backtrace", xen.warnings.append):
            number, vcpu = owners.get(pcpu.vcpu, (None, None))
            frames, stopped = _frames(pcpu, unwinder)
            found.append(PcpuTrace(pcpu, number, vcpu, frames, stopped))
    return found


def _unwinder(xen: XenHost, methods: Sequence[str] | None) -> Unwinder | None:
    if xen.symbols is None:
        return None
    # None: symbols from a map file, which has no unwind tables.
    return Unwinder(xen.image, xen.symbols, xen.memory.virtual, methods=methods)


def _frames(pcpu: Pcpu, unwinder: Unwinder | None) -> tuple[list[Frame], str | None]:
    """From Xen's registers to the guest's; without symbols those two ends alone."""
    stopped: str | None
    if not pcpu.registers:
        return [], "its registers are not known: it has no NT_PRSTATUS note"
    if unwinder is None:
        ip, sp = ("rip", "rsp") if pcpu.word == 8 else ("eip", "esp")
        start = pcpu.registers
        frames = [_bare(start[ip], start[sp], "start", start)]
        stopped = "Xen's own frames cannot be told without xen-syms"
    else:
        found = unwinder.unwind(pcpu.registers, stacks=_bounds(pcpu), exact=True)
        frames = [
            Frame(
                pc=frame.pc,
                sp=frame.sp,
                symbol=frame.symbol,
                offset=frame.offset,
                how=frame.how,
                guess=frame.guess,
                interrupted=frame.interrupted,
                guest=frame.user,
                registers=frame.registers,
            )
            for frame in found.frames
        ]
        stopped = found.stopped
    if pcpu.guest is not None and not any(frame.guest for frame in frames):
        # The unwinder did not get there, but where the guest's registers are is known.
        registers = pcpu.guest.registers
        ip, sp = ("rip", "rsp") if "rip" in registers else ("eip", "esp")
        frames.append(_bare(registers[ip], registers[sp], "cpu_info", registers, guest=True))
    return frames, stopped


def _bounds(pcpu: Pcpu) -> list[tuple[int, int]]:
    """The stacks within a pCPU's: where Xen's own frames end, the guest's registers begin.

    On x86_64 the low pages are one-page stacks for NMI, double fault and machine check; an
    interruption leads from such a page to the primary stack, the last two pages at least.
    """
    if pcpu.stack is None or pcpu.guest is None:
        return [] if pcpu.stack is None else [pcpu.stack]
    low, end = pcpu.stack
    sp = pcpu.registers["rsp" if pcpu.word == 8 else "esp"]
    primary = end - 2 * PAGE
    if sp >= primary or end - low <= 2 * PAGE:
        return [(low, pcpu.guest.address)]
    return [(sp // PAGE * PAGE, sp // PAGE * PAGE + PAGE), (primary, pcpu.guest.address)]


def _bare(pc: int, sp: int, how: str, registers: dict[str, int], *, guest: bool = False) -> Frame:
    return Frame(pc, sp, None, 0, how, False, True, guest, registers)
