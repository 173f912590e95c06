"""A domain of a real host as the toolstack would have saved it, for the forge to write."""

from collections.abc import Callable, Mapping

import xenkdump_fast as xk
from xenkdump_fast._native import AddressSpace
from xenkdump_fast.linux import mm
from xenkdump_fast.xen.host import HostDomain
from xenkdump_forge.containers.saved_domain import SavedDomain, Vcpu

PAGE = 4096
MASK = 0x000F_FFFF_FFFF_F000


def saved_pv(domain: xk.Domain, records: HostDomain) -> SavedDomain:
    """A PV domain: its frames by its P2M, its page tables by the cr3 of tasks and vCPUs."""
    machine, p2m = domain.dump.native.machine, domain.p2m
    info = records.shared_info
    assert info is not None
    assert records.shared_page is not None
    frames: list[int | None] = []
    for pfn in range(info.max_pfn):
        kind, mfn = p2m.entry(pfn)
        frames.append(mfn if kind == "frame" else None)
    roots = {domain.virtual.translate(domain.kernel.symbols["init_top_pgt"]) // PAGE}
    for task in domain.kernel.tasks():
        try:
            table = mm.page_table(domain.kernel, task)
        except xk.AbsentError:
            continue  # a kernel thread
        roots.add(domain.virtual.translate(table) // PAGE)
    vcpus = []
    for vcpu in records.vcpus:
        if vcpu.registers is not None and vcpu.root:
            roots.add(vcpu.root // PAGE)
            vcpus.append(_vcpu(vcpu.id, vcpu.registers, vcpu.root // PAGE))
    owned = set(frames)
    assert roots <= owned
    return SavedDomain(8, frames, _reader(machine), roots, vcpus, [], records.shared_page)


def saved_hvm(domain: xk.Domain, records: HostDomain) -> SavedDomain:
    """A translated domain: its page tables hold pfns already."""
    machine, p2m = records.guest.machine, domain.p2m
    held = {pfn for first, count in p2m.spans() for pfn in range(first, first + count)}
    frames = [
        pfn if pfn in held and p2m.entry(pfn)[0] == "frame" else None
        for pfn in range(max(held) + 1)
    ]
    vcpus = [
        _vcpu(vcpu.id, vcpu.registers, vcpu.root // PAGE)
        for vcpu in records.vcpus
        if vcpu.registers is not None and vcpu.root
    ]
    return SavedDomain(8, frames, _reader(machine), [], vcpus, [], bytes(PAGE))


def _vcpu(number: int, registers: Mapping[str, int], root: int) -> Vcpu:
    return Vcpu(number, registers, root, registers.get("gs_base", 0))


def _reader(machine: AddressSpace) -> Callable[[int], bytes]:
    def read(mfn: int) -> bytes:
        try:
            return machine.read(mfn * PAGE, PAGE)
        except xk.MemoryFault:
            return bytes(PAGE)

    return read
