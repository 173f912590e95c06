"""``bt --hypervisor`` as crash prints it in a hypervisor session, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.hypervisor import XenBacktraces
from ..hypervisor.stacks import PcpuTrace
from .escape import visible
from .frames import frame_json, place, registers_json
from .registers import exception_frame

#: DOMID_IDLE: what a pCPU runs that has nothing to do.
IDLE = 0x7FFF


def lines(result: XenBacktraces) -> Iterator[str]:
    """pCPU by pCPU, an empty line between them."""
    for i, trace in enumerate(result.traces):
        if i:
            yield ""
        yield from _pcpu(trace, result.word)


def _pcpu(trace: PcpuTrace, word: int) -> Iterator[str]:
    pcpu = trace.pcpu
    vcpu = "(unknown)" if pcpu.vcpu is None else f"{pcpu.vcpu:x}"
    yield f"PCPU: {pcpu.number:2}  VCPU: {vcpu}{_guest(trace)}"
    number = 0
    for i, frame in enumerate(trace.frames):
        guess = "  (guess)" if frame.guess else ""
        if frame.guest:
            yield "    [guest]" if trace.domain != IDLE else "    [guest that ran here last]"
            narrow = "eip" in (frame.registers or {})
            yield from exception_frame(frame.registers or {}, 4 if narrow else word)
        elif frame.interrupted and i > 0:
            yield f"    [exception RIP: {place(frame)}]{guess}"
            yield from exception_frame(frame.registers or {}, word)
        else:
            name = visible(frame.symbol) if frame.symbol else "(unknown)"
            # Where execution stood there is no return address; crash shows where the others lie.
            at = frame.sp if frame.interrupted else (frame.sp - word) & ((1 << word * 8) - 1)
            pc = f"{frame.pc:0{word * 2}x}"
            yield f"{'#' + str(number):>3} [{at:0{word * 2}x}] {name} at {pc}{guess}"
            number += 1
    if trace.stopped:
        yield f"    ({trace.stopped})"


def _guest(trace: PcpuTrace) -> str:
    """Which domain the vCPU is of; Xen's own idle domain runs nothing."""
    if trace.domain is None:
        return ""
    if trace.domain == IDLE:
        return "  IDLE"
    return f"  DOMAIN: {trace.domain}  VCPU-ID: {trace.vcpu}"


def json(result: XenBacktraces) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"pcpus": [_pcpu_json(trace) for trace in result.traces]}


def _pcpu_json(trace: PcpuTrace) -> dict[str, Any]:
    pcpu = trace.pcpu
    found: dict[str, Any] = {
        "pcpu": pcpu.number,
        "vcpu": None if pcpu.vcpu is None else hex(pcpu.vcpu),
        "domain": trace.domain,
        "vcpu_id": trace.vcpu,
        "cr3": None if pcpu.cr3 is None else hex(pcpu.cr3),
        "registers": registers_json(pcpu.registers),
        "frames": [frame_json(frame, guest=frame.guest) for frame in trace.frames],
    }
    if trace.stopped is not None:
        found["why"] = trace.stopped
    return found
