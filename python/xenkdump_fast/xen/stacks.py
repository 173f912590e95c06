"""Backtraces of the hypervisor: the stack of each pCPU, down to the guest that it ran."""

from collections.abc import Sequence
from dataclasses import dataclass

from .._native import Frame, Unwinder
from ..isolation import isolated
from .host import XenHost
from .memory import PAGE
from .pcpus import Pcpu


@dataclass(frozen=True, slots=True)
class PcpuTrace:
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
    owners: dict[int | None, tuple[int, int]] = {}
    for domain in xen.domains(all=True):
        with isolated(f"vCPUs of domain {domain.id} are not known", xen.warnings.append):
            owners.update({vcpu.address: (domain.id, vcpu.id) for vcpu in domain.vcpus})
    unwinder = _unwinder(xen, methods)
    if unwinder is not None and "cfi" not in unwinder.methods and methods is None:
        xen.warnings.append(
            f"{xen.symbols_path} has no unwind tables (.debug_frame or .eh_frame): frames are "
            "found by a scan of the stack, and marked as guesses"
        )
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
    # A map file has symbols (``image`` is None) but no unwind tables.
    return Unwinder(xen.image, xen.symbols, xen.memory.virtual, methods=methods)


def _frames(pcpu: Pcpu, unwinder: Unwinder | None) -> tuple[list[Frame], str | None]:
    """The frames from Xen's registers to the guest's; only these two without symbols."""
    stopped: str | None
    if pcpu.in_guest and pcpu.guest is not None:
        return [Frame(pcpu.guest.registers, "start", user=True)], None
    if not pcpu.registers:
        return [], "its registers are not known: it has no NT_PRSTATUS note"
    if unwinder is None:
        frames = [Frame(pcpu.registers, "start")]
        stopped = "Xen's own frames cannot be told without xen-syms"
    else:
        found = unwinder.unwind(pcpu.registers, stacks=_bounds(pcpu), exact=True)
        frames, stopped = found.frames, found.stopped
    if pcpu.guest is not None and not any(frame.user for frame in frames):
        # The unwinder stopped earlier, but the guest's registers are known.
        frames.append(Frame(pcpu.guest.registers, "cpu_info", user=True))
    return frames, stopped


def _bounds(pcpu: Pcpu) -> list[tuple[int, int]]:
    """The stacks within a pCPU's stack. Xen's own frames end where the guest's registers begin.

    On x86_64 the low pages are one-page stacks for NMI, double fault and machine check. From such a
    page the unwinder goes on to the primary stack, which is at least the last two pages.
    """
    if pcpu.stack is None or pcpu.guest is None:
        return [] if pcpu.stack is None else [pcpu.stack]
    low, end = pcpu.stack
    sp = pcpu.registers["rsp" if pcpu.word == 8 else "esp"]
    primary = end - 2 * PAGE
    if sp >= primary or end - low <= 2 * PAGE:
        return [(low, pcpu.guest.address)]
    return [(sp // PAGE * PAGE, sp // PAGE * PAGE + PAGE), (primary, pcpu.guest.address)]
