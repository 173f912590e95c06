"""The vCPUs of a domain: what each was doing, and where its registers are."""

from collections.abc import Sequence
from typing import NamedTuple

from . import frames
from .infer import RUNSTATES, root_of, vcpu_addresses
from .layout import Layout
from .memory import XenMemory
from .pcpus import Pcpu


class XenVcpu(NamedTuple):
    """A virtual CPU."""

    #: Its number within the domain.
    id: int
    #: Xen's address of its ``struct vcpu``; None in an xl dump-core file.
    address: int | None
    #: The pCPU that it runs on or ran on last.
    pcpu: int | None
    #: "running", or why not: "runnable", "blocked", "offline"; "not running" where Xen's reason is
    #: not known.
    state: str
    #: Whether a pCPU was running it.
    running: bool
    #: Machine address of the page table that was its processor's root.
    root: int | None
    #: The guest's registers; None if it never ran, or they are lost.
    registers: dict[str, int] | None
    #: Who saved them, in words.
    where: str | None
    #: "pv" or "hvm", by its registers; None without any.
    kind: str | None = None
    #: Word size of the mode it was in; None without registers.
    word: int | None = None
    warnings: tuple[str, ...] = ()

    def narrowed(self) -> "XenVcpu":
        """The same as a 32-bit guest's."""
        return self._replace(registers=frames.narrow(self.registers or {}), word=4)


def read(
    memory: XenMemory, layout: Layout, pcpus: Sequence[Pcpu], domain: int
) -> tuple[list[XenVcpu], list[str]]:
    """The vCPUs of the ``struct domain`` at that address, and what is wrong with them."""
    warnings: list[str] = []
    found = _addresses(memory, layout, pcpus, domain, warnings)
    owners = _left_on_stacks(memory, layout, pcpus, [address for _, address, _ in found])
    vcpus = []
    for number, address, problem in found:
        if problem is not None:
            warnings.append(f"vCPU {number} at {address:#x}: {problem}")
            if not memory.is_xen(address):
                continue
        on = next((pcpu for pcpu in pcpus if pcpu.vcpu == address), None)
        vcpu = _read_one(memory, layout, (number, address), on, owners.get(address))
        vcpus.append(vcpu if problem is None else vcpu._replace(warnings=(problem,)))
    return vcpus, warnings


def _addresses(
    memory: XenMemory,
    layout: Layout,
    pcpus: Sequence[Pcpu],
    domain: int,
    warnings: list[str],
) -> list[tuple[int, int, str | None]]:
    """The vCPUs by max_vcpus, as far as it makes sense, else as many as are sound."""
    found = list(vcpu_addresses(memory, layout, domain, None))
    at = layout.get("domain.max_vcpus")
    count = memory.number(domain + at, 4) if at is not None else None
    if count is not None and count != len(found):
        every = list(vcpu_addresses(memory, layout, domain, count))
        good = sum(problem is None for _, _, problem in every)
        if good >= len(found) and len(every) <= 2 * good + 8:
            if not every:
                warnings.append(f"max_vcpus says {count}, but no vCPU can be found")
            found = every
        else:
            warnings.append(f"max_vcpus says {count}, but {len(found)} vCPUs are sound")
    # Those that pCPUs were running are known even where the array is lost.
    known = {address for _, address, _ in found}
    for pcpu in pcpus:
        vcpu, back = pcpu.vcpu, layout.get("vcpu.domain")
        if vcpu is None or back is None or vcpu in known or memory.pointer(vcpu + back) != domain:
            continue
        number = memory.number(vcpu + (layout.get("vcpu.id") or 0), 4)
        if number is not None:
            found.append((number, vcpu, f"only pCPU {pcpu.number} leads to it"))
    return found


def _read_one(
    memory: XenMemory,
    layout: Layout,
    vcpu: tuple[int, int],
    on: Pcpu | None,
    left_on: Pcpu | None,
) -> XenVcpu:
    """``vcpu`` is its number and address; ``on`` was running it; on the stack of ``left_on``, now
    idle, its registers still lie.
    """
    number, address = vcpu

    def field(name: str, size: int) -> int | None:
        at = layout.get(name)
        return None if at is None else memory.number(address + at, size)

    pcpu = field("vcpu.processor", 4)
    cr3 = field("vcpu.cr3", memory.word)
    if on is not None:
        state, pcpu, cr3 = "running", on.number, on.cr3 or cr3
        frame, where = on.guest, f"pCPU {on.number}'s Xen stack"
    else:
        number_of_state = field("vcpu.runstate", 4) or 0
        state = RUNSTATES[number_of_state] if 0 < number_of_state < 4 else "not running"
        if left_on is not None:
            frame = left_on.guest
            where = f"pCPU {left_on.number}'s Xen stack, left there when it went idle"
        else:
            frame, where = _saved(memory, layout, address), "struct vcpu"
            base = field("vcpu.gs_base", 8)
            if frame is not None and base and frame.registers.get("rip", 0) >> 63:
                frame.registers["gs_base"] = base
    return XenVcpu(
        id=number,
        address=address,
        pcpu=pcpu,
        state=state,
        running=on is not None,
        root=root_of(cr3, memory.word) if cr3 else None,
        registers=frame.registers if frame else None,
        where=where if frame else None,
        kind=frame.kind if frame else None,
        word=frame.word if frame else None,
    )


def _saved(memory: XenMemory, layout: Layout, vcpu: int) -> frames.GuestFrame | None:
    """The registers in ``arch.user_regs``; None if the vCPU never ran."""
    at = layout.get("vcpu.registers")
    if at is None:
        return None
    words = memory.words(vcpu + at, frames.size(memory.word))
    return None if words is None else frames.read(words, vcpu + at, memory.word)


def _left_on_stacks(
    memory: XenMemory, layout: Layout, pcpus: Sequence[Pcpu], vcpus: Sequence[int]
) -> dict[int, Pcpu]:
    """Which of a domain's vCPUs have their registers on the stack of a pCPU that is idle now.

    A switch to Xen's idle vCPU changes neither cr3 nor the guest's segment bases and saves nothing:
    ``arch.user_regs`` of the vCPU that ran is stale until another guest takes the pCPU. So the
    pCPU's cr3 tells whose frame is on its stack; among vCPUs of one domain that share a root, as
    idle ones do, the kernel's gs_base, and last the pCPU they name.
    """
    cr3_at, gs_at = layout.get("vcpu.cr3"), layout.get("vcpu.gs_base")
    processor_at = layout.get("vcpu.processor")
    if cr3_at is None:
        return {}
    busy = {pcpu.vcpu for pcpu in pcpus}
    waiting = {
        vcpu: root_of(memory.pointer(vcpu + cr3_at) or 0, memory.word)
        for vcpu in vcpus
        if vcpu not in busy and memory.is_xen(vcpu)
    }
    found: dict[int, Pcpu] = {}
    for pcpu in pcpus:
        if pcpu.guest is None or pcpu.vcpu in vcpus or not pcpu.cr3:
            continue
        root = root_of(pcpu.cr3, memory.word)
        candidates = [vcpu for vcpu, own in waiting.items() if own == root and vcpu not in found]
        base = pcpu.guest.registers.get("gs_base")
        if gs_at is not None and base and pcpu.guest.registers.get("rip", 0) >> 63:
            candidates = [v for v in candidates if memory.number(v + gs_at, 8) == base]
        if len(candidates) > 1 and processor_at is not None:
            candidates = [
                v for v in candidates if memory.number(v + processor_at, 4) == pcpu.number
            ]
        if len(candidates) == 1:
            found[candidates[0]] = pcpu
    return found
